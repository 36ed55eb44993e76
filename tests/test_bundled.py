"""The checkpoint that ships: its files, and that every number told about it is the measured one."""

import json
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from invlib.config import load_config
from invlib.studies import CONTROLS, INVERTED, markdown_table
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


@pytest.mark.parametrize("metric", ["token_f1", "bleu", "exact_match", "edit_similarity", "cosine"])
def test_the_inverter_is_clearly_above_every_control(metric, scores):
    rows = scores[scores["metric"] == metric].set_index("attacker")
    assert rows.loc[INVERTED, "low"] > rows.loc[list(CONTROLS), "high"].max()


def test_evaluation_sentences_are_many_distinct_and_fit_the_model():
    sentences = pd.read_json(ROOT / "data" / "sentences" / "sentences.jsonl", lines=True)
    lengths = [len(ids) for ids in Tokenizer.load(FOLDER).encode(sentences["text"].tolist())]
    assert len(sentences) >= 300 and sentences["text"].str.lower().is_unique
    assert sentences.groupby("kind").size().min() >= 60
    assert min(lengths) >= 4 and max(lengths) <= 32
