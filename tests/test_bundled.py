"""The checkpoint that ships: its files, and that every number told about it is the measured one."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

import invlib
from invlib.checkpoint import fingerprint
from invlib.config import load_config
from invlib.model import ConditionalMDLM
from invlib.studies.documents import filled
from invlib.studies.score import CONTROLS, INVERTED
from invlib.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "checkpoints" / "minilm"


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    """Of both domains."""
    return pd.DataFrame(json.loads((FOLDER / "results.json").read_text())["scores"])


def test_no_file_is_too_large_for_a_repository():
    assert all(path.stat().st_size < 95e6 for path in (ROOT / "data").rglob("*") if path.is_file())


def test_weights_are_bf16_and_fit_configuration_and_tokenizer():
    weights = load_file(FOLDER / "model.safetensors")
    config, tokenizer = load_config(FOLDER / "config.yaml").model, Tokenizer.load(FOLDER)
    assert {str(value.dtype) for value in weights.values()} == {"torch.bfloat16"}
    assert tokenizer.vocab_size == config.vocab_size == len(weights["token_embed.weight"])
    assert tokenizer.mask_token_id == config.mask_token_id


@pytest.mark.parametrize("document", [ROOT / "README.md", FOLDER / "README.md"], ids=["README", "model card"])
def test_the_tables_that_are_told_are_those_that_were_measured(document):
    text = document.read_text(encoding="utf-8")
    assert "<!-- scores -->" in text and "<!-- search -->" in text
    assert filled(text, FOLDER) == text, "run: python -m invlib.studies documents --out README.md …"


def test_every_table_is_of_the_weights_that_ship():
    tables, own = ROOT / "data/tables", fingerprint(invlib.Inverter.load("minilm").model)
    of = {
        name: pd.read_csv(tables / f"{name}.csv", dtype=str)["weights"] for name in ("alignment", "chunks", "unpaired")
    }
    assert {name: set(weights) for name, weights in of.items()} == dict.fromkeys(of, {own[:12]})
    assert json.loads((tables / "about.json").read_text())["weights"] == own


def test_both_domains_are_scored_on_as_many_sentences_and_searched(scores):
    assert scores["text"].unique().tolist() == ["test", "test2"] and scores["n"].min() >= 2000
    searched = pd.read_csv(FOLDER / "search.csv")
    whole = searched[(searched["group"] == "all") & (searched["queries"] <= 1000)]
    assert set(whole["text"]) == {"test", "test2"} and whole["n"].min() >= 500


@pytest.mark.parametrize("document", [ROOT / "README.md", FOLDER / "README.md"], ids=["README", "model card"])
def test_the_pool_of_the_nearest_sentence_is_told_as_it_was(document):
    results = json.loads((FOLDER / "results.json").read_text())
    told, pool = document.read_text(encoding="utf-8"), int(results["pool"].rpartition(" ")[2])
    assert re.search(rf"closest of\s(the first )?{pool:,} training sentences", told)


def test_the_size_that_the_model_card_tells_is_that_of_the_weights():
    card, config = (FOLDER / "README.md").read_text(encoding="utf-8"), load_config(FOLDER / "config.yaml").model
    parameters = sum(weight.numel() for weight in ConditionalMDLM(config).parameters()) / 1e6
    told = f"{config.num_layers} layers, {config.hidden_dim} wide, {parameters:.1f} million parameters in bf16"
    assert told in card and f"{config.vocab_size:,} WordPiece pieces" in card
    assert f"{config.embedding_cond_dim}-dimensional" in card and f"up to {config.max_seq_len} pieces" in card


@pytest.mark.parametrize("text", ["test", "test2"])
@pytest.mark.parametrize("metric", ["token_f1", "bleu", "exact_match", "edit_similarity", "cosine"])
def test_the_inverter_is_clearly_above_every_control(metric, text, scores):
    rows = scores[(scores["metric"] == metric) & (scores["text"] == text)].set_index("attacker")
    assert rows.loc[INVERTED, "low"] > rows.loc[list(CONTROLS), "high"].max()


def test_evaluation_sentences_are_many_distinct_and_fit_the_model():
    sentences = pd.read_json(ROOT / "data" / "sentences" / "sentences.jsonl", lines=True)
    lengths = [len(ids) for ids in Tokenizer.load(FOLDER).encode(sentences["text"].tolist())]
    assert len(sentences) >= 300 and sentences["text"].str.lower().is_unique
    assert sentences.groupby("kind").size().min() >= 60
    assert min(lengths) >= 4 and max(lengths) <= 32


def test_the_counts_of_the_data_card_are_those_of_the_sentences():
    table = pd.read_json(ROOT / "data" / "sentences" / "sentences.jsonl", lines=True)
    table["words"] = table["text"].str.split().map(len)
    table["tokens"] = [len(ids) for ids in Tokenizer.load(FOLDER).encode(table["text"].tolist())]
    card = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for kind, group in [*table.groupby("kind"), ("all", table)]:
        name = kind if kind == "all" else f"`{kind}`"
        # 1e-9: halves are rounded up, as people do
        mean_and_range = (f"{n.mean() + 1e-9:.1f} ({n.min()}-{n.max()})" for n in (group["words"], group["tokens"]))
        assert f"| {name} | {len(group)} | {' | '.join(mean_and_range)} |" in card


def test_the_failures_that_the_model_card_quotes_are_those_of_these_weights():
    card = " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())
    told = card[card.index("Failures, from") : card.index("## Training")]
    quoted = re.findall(r'"([^"]+)"', told)
    sentences = [text for text in quoted if text[0].isupper()]
    inverter = invlib.Inverter.load("minilm")
    written = inverter.invert(inverter.encoder.encode(sentences)).texts
    whole = "Thank you very much."
    assert quoted == [
        text for pair in zip(sentences, written, strict=True) for text in (pair[:1] if pair[0] == whole else pair)
    ]
    assert written[sentences.index(whole)] == whole.lower()
