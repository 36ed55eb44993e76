"""Adapt: a checkpoint that hears another encoder's vectors, from a file or from the encoder itself."""

import json

import numpy as np
import pytest
import torch

from invlib import Inverter, checkpoint
from invlib.config import load_config
from invlib.training import __main__ as command
from invlib.training import adapt, start
from invlib.training.pairs import Pairs
from tests.speed.untrained import untrained

FOREIGN = 60
TEXTS = [f"{first} {second} now." for first in ("the dog", "a cat", "my hand", "the river") for second in
         ("sees the house", "runs to the sea", "is very cold", "was never here", "made a small fire")]  # fmt: skip


@pytest.fixture(scope="module")
def folder(minilm, pruned, tmp_path_factory):
    """A checkpoint with every part and random weights, texts, and a foreign encoder's vectors of them."""
    from tests.pages import ROOT

    folder = tmp_path_factory.mktemp("adapt")
    config = load_config(ROOT / "configs" / "tiny.yaml")
    config = adapt.replace(config, model=adapt.replace(config.model, corrector_dim=8))
    model = untrained(config.model).model
    model.null_embedding.data.normal_()
    checkpoint.write(folder / "own", model, config, dtype=torch.float32)
    pruned.save(folder / "own" / "tokenizer.json")
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), encoding="utf-8")
    plan = np.random.default_rng(0).standard_normal((384, FOREIGN))
    np.save(folder / "vectors.npy", 3 * minilm.encode(TEXTS) @ plan)
    return folder


def adapted(folder, *more) -> int:
    known = ["--adapt", str(folder / "own"), "--text", str(folder / "texts.jsonl")]
    return command.main([*known, "--out", str(folder / "run"), *more])


@pytest.fixture(scope="module")
def run(folder):
    before = adapt.TRAINING
    adapt.TRAINING = adapt.replace(before, max_steps=2, warmup_steps=0, eval_every=2, batch_size=8)
    try:
        assert adapted(folder, "--vectors", str(folder / "vectors.npy")) == 0
    finally:
        adapt.TRAINING = before
    return folder / "run"


def test_only_the_layer_that_hears_the_vector_is_trained(folder, run):
    before, after = (checkpoint.read(path)[0].state_dict() for path in (folder / "own", run))
    assert {name.partition(".")[0] for name in before.keys() - after.keys()} == {"corrector"}, (
        "it knows its own encoder"
    )
    changed = {name for name in after if before[name].shape != after[name].shape or (before[name].bfloat16() !=
               after[name]).any()}  # fmt: skip
    assert {name.partition(".")[0] for name in changed} == {"cond_proj", "embedding_mean", "embedding_std",
                                                            "null_embedding"}  # fmt: skip


def test_the_run_opens_and_inverts_foreign_vectors(folder, run):
    inverter = Inverter.load(run)
    assert inverter.config.embedding_cond_dim == FOREIGN and inverter.config.encoder_model.startswith("vectors-")
    assert len(inverter.invert(np.load(folder / "vectors.npy")[:2], num_steps=2).texts) == 2


def test_at_the_start_a_foreign_vector_is_heard_as_its_text_was(folder, minilm, pruned):
    own = checkpoint.read(folder / "own")[0]
    texts = [f"{text} {number}" for text in TEXTS for number in range(40)]
    vectors, plan = minilm.encode(texts), np.linalg.qr(np.random.default_rng(1).standard_normal((384, 384)))[0]

    class Known(Pairs):
        def __init__(self):
            self.tokens = np.zeros((len(texts), 40), int)
            self.lengths = np.array([len(ids) for ids in pruned.encode(texts)])
            self.embeddings = (vectors @ plan).astype(np.float16)

    pairs = Known()
    for row, ids in enumerate(pruned.encode(texts)):
        pairs.tokens[row, : len(ids)] = ids
    weights = own.state_dict() | start._hearing(own, pairs, pruned)
    other = type(own)(adapt.replace(own.config, embedding_cond_dim=384))
    other.load_state_dict(weights)
    clean, foreign = torch.from_numpy(vectors), torch.from_numpy(pairs.embeddings.astype(np.float32))
    with torch.inference_mode():
        wanted, heard = own.condition(clean), other.condition(foreign)
        nothing = torch.ones(2, dtype=torch.bool)
        prior, own_prior = other.condition(foreign[:2], nothing), own.condition(clean[:2], nothing)
    assert (heard - wanted).norm() < 0.35 * (wanted - wanted.mean(dim=0)).norm()
    torch.testing.assert_close(prior, own_prior, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "needs --encoder NAME, or --vectors FILE"),
        (["--encoder", "minilm", "--vectors", "vectors.npy"], "needs --encoder NAME, or --vectors FILE"),
        (["--vectors", "fewer.npy"], "has 3 vectors, .* 20 texts"),
        (["--vectors", "absent.npy"], "is no array of vectors"),
        (["--vectors", "vectors.npy", "--config", "x.yaml"], "either --config FILE, or --adapt CHECKPOINT"),
    ],
    ids=str,
)
def test_what_cannot_be_adapted_to_is_told_in_one_line(folder, more, message, capsys):
    import re

    np.save(folder / "fewer.npy", np.eye(3))
    assert adapted(folder, *(str(folder / word) if word.endswith(".npy") else word for word in more)) == 2
    told = capsys.readouterr().err
    assert re.search(message, told) and told.count("\n") == 1
