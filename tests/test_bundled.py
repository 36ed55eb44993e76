"""The checkpoint that ships: its files, and that every number told about it is the measured one."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

import invlib
from invlib.config import load_config
from invlib.model import ConditionalMDLM
from invlib.studies.score import CONTROLS, INVERTED, markdown_table
from invlib.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "checkpoints" / "minilm"


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
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
def test_the_scores_that_are_told_are_the_scores_that_were_measured(document, scores):
    assert markdown_table(scores) in document.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", [ROOT / "README.md", FOLDER / "README.md"], ids=["README", "model card"])
def test_how_the_scores_were_measured_is_told_as_it_was(document, scores):
    told, results = document.read_text(encoding="utf-8"), json.loads((FOLDER / "results.json").read_text())
    (n,) = scores["n"].unique()
    assert re.search(
        rf"^{n:,} sentences [^|]*\b{results['num_steps']} (encoder-free )?steps from 100 % masks", told, re.M
    )
    pool = int(results["pool"].rpartition(" ")[2])
    assert re.search(rf"closest of\s(the first )?{pool:,} training sentences", told)


def test_what_the_search_is_said_to_find_is_what_it_found():
    curve = pd.read_csv(FOLDER / "search.csv")
    most = curve[curve["queries"] == curve["queries"].max()].set_index("metric")
    shown = {"exact_match": "{:.3f}", "bleu": "{:.1f}", "cosine": "{:.3f}"}
    figures = []
    for metric, digits in shown.items():
        value, low, high = (digits.format(most.loc[metric, column]) for column in ("value", "low", "high"))
        figures.append(f"{metric.replace('_', ' ')} {value} ({low}–{high})")
    told = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    (n,), (queries,) = most["n"].unique(), most["queries"].unique()
    assert f"up to {queries:,} times for each sentence, the search finds on {n} of these sentences: " in told
    assert ", ".join(figures) in told


def test_the_learning_curve_of_the_model_card_is_that_of_the_log():
    log = pd.read_csv(FOLDER / "log.csv").dropna(subset="token_f1")
    rows = [
        f"| {r.step:,} | {r.samples:,} | {r.token_f1:.3f} | {r.exact_match:.1%} | {r.length_right:.0%} |".replace(
            "%", " %"
        )
        for r in log.itertuples()
    ]
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(rows) > 1 and "\n".join(rows) in card
    assert f"{log['samples'].iloc[-1]:,} sentences seen" in card


def test_the_size_that_the_model_card_tells_is_that_of_the_weights():
    card, config = (FOLDER / "README.md").read_text(encoding="utf-8"), load_config(FOLDER / "config.yaml").model
    parameters = sum(weight.numel() for weight in ConditionalMDLM(config).parameters()) / 1e6
    told = f"{config.num_layers} layers, {config.hidden_dim} wide, {parameters:.1f} million parameters in bf16"
    assert told in card and f"{config.vocab_size:,} WordPiece pieces" in card
    assert f"{config.embedding_cond_dim}-dimensional" in card and f"up to {config.max_seq_len} pieces" in card


@pytest.mark.parametrize("metric", ["token_f1", "bleu", "exact_match", "edit_similarity", "cosine"])
def test_the_inverter_is_clearly_above_every_control(metric, scores):
    rows = scores[scores["metric"] == metric].set_index("attacker")
    controls = rows.drop(INVERTED)
    assert set(CONTROLS[:3]) <= set(controls.index) and rows.loc[INVERTED, "low"] > controls["high"].max()


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
