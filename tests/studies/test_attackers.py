"""Attackers who adapt: the linear guess, what training may touch, and that each belongs to its weights."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import invlib
from invlib import perturb
from invlib.errors import InputError
from invlib.model import ConditionalMDLM
from invlib.perturb.noise import directions
from invlib.studies import attackers
from invlib.studies.__main__ import main
from invlib.studies.attackers import KnownTexts, adapt, adapted, linear_guess, load_attackers, save_attacker, studied

DEFENCE = perturb.Truncation(192, 384)
PERMUTED = perturb.SecretPermutation.draw(384, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def naive(inverter):
    return inverter


@pytest.fixture(scope="module")
def known(naive, sentences):
    return KnownTexts.draw(naive, sentences)


@pytest.fixture(scope="module")
def everywhere(known):
    """Known vectors in all directions, so that a linear defence can be undone exactly."""
    vectors = directions(1200, 384, np.random.default_rng(0)).astype(np.float32)
    return KnownTexts(known.tokens, known.lengths, vectors)


def test_the_known_texts_are_those_that_fit_with_their_vectors(naive, sentences):
    known = KnownTexts.draw(naive, [*sentences, "Hi.", "long " * 60])
    assert len(known.lengths) == len(sentences) and known.tokens.shape[1] == known.lengths.max()
    texts = [naive.tokenizer.decode(ids[:n].tolist()) for ids, n in zip(known.tokens, known.lengths, strict=True)]
    np.testing.assert_allclose(naive.encoder.encode(texts), known.embeddings, atol=1e-5)
    assert len(KnownTexts.draw(naive, sentences, 5).lengths) == 5
    with pytest.raises(InputError, match="0 of 2 texts have 4 to 32 tokens"):
        KnownTexts.draw(naive, ["Hi.", "No."])


def test_the_linear_guess_undoes_a_linear_defence(naive, everywhere, sentences):
    attacker = adapted(naive, adapt(naive, PERMUTED, everywhere, steps=0))
    clean = naive.encoder.encode(sentences)
    stored = PERMUTED.store(clean)
    f1 = {
        who: invlib.metrics.per_text(
            naive.invert(clean, num_steps=2).texts, inverter.invert(stored, num_steps=2).texts
        )["token_f1"].mean()
        for who, inverter in (("naive", naive), ("attacker", attacker))
    }
    assert f1["naive"] < 0.3 and f1["attacker"] > 0.8


def test_the_guess_is_the_best_linear_one_in_standardised_vectors(naive, everywhere):
    matrix, offset = linear_guess(naive.model, DEFENCE, everywhere, torch.Generator())
    mean, std = naive.model.embedding_mean.numpy(), naive.model.embedding_std.numpy()
    z, defended = (
        (v - mean) / std for v in (everywhere.embeddings, perturb.apply(DEFENCE, everywhere.embeddings).vectors)
    )
    kept = slice(0, 192)
    error = defended @ matrix.numpy() + offset.numpy() - z
    assert np.abs(error[:, kept]).mean() < 0.3 * np.abs(defended - z)[:, kept].mean() + 0.2
    assert (error**2).mean() < ((defended - z) ** 2).mean()


def test_training_moves_cond_proj_and_nothing_else(naive, known):
    before = {name: value.clone() for name, value in naive.model.state_dict().items()}
    guess, trained = (adapt(naive, DEFENCE, known, steps=steps) for steps in (0, 3))
    assert {name.partition(".")[0] for name in trained} == {"cond_proj", "matrix", "offset"}
    assert any(not torch.equal(guess[name], trained[name]) for name in guess)
    attacker = adapted(naive, trained).model.state_dict()
    for name, value in naive.model.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} of the naive inverter has moved"
        if not name.startswith(("cond_proj.", "length_head.0.")):  # the guess goes in front of both
            assert attacker[name].data_ptr() == value.data_ptr(), f"{name} is not shared"


def test_the_same_seed_makes_the_same_attacker(naive, known):
    noise = perturb.GaussianNoise(0.05)
    a, b, c = (adapt(naive, noise, known, steps=2, seed=seed)["cond_proj.0.weight"] for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_length_head_on_the_vector_itself_hears_the_guess(naive, everywhere):
    config = dataclasses.replace(naive.config, length_dim=64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ConditionalMDLM(config)
    weights = {
        **naive.model.state_dict(),
        **{name: value for name, value in model.state_dict().items() if "length" in name},
    }
    model = invlib.checkpoint.assemble(config, weights, Path("test"))
    own = invlib.Inverter(model, naive.tokenizer, naive.encoder)
    attacker = adapted(own, adapt(own, PERMUTED, everywhere, steps=0))
    clean = everywhere.embeddings[:20]
    mine, theirs = own.length_log_probs(clean), attacker.length_log_probs(PERMUTED.store(clean))
    naively = own.length_log_probs(PERMUTED.store(clean))
    assert np.abs(mine - theirs).mean() < 0.3 * np.abs(mine - naively).mean()


@pytest.fixture
def saved(naive, known, tmp_path, monkeypatch):
    """Weights of an attacker, and its file, which is all that is loaded."""
    monkeypatch.setattr(attackers, "studied", lambda embed_dim: {"cut": DEFENCE})
    weights = adapt(naive, DEFENCE, known, steps=0)
    save_attacker(tmp_path / "cut.safetensors", naive, weights)
    return weights, tmp_path / "cut.safetensors"


def test_an_attacker_comes_back_as_it_was_saved_in_less_than_2_mb(naive, saved, sentences):
    weights, path = saved
    assert path.stat().st_size < 2e6
    again, attacker = load_attackers(naive, path.parent)["cut"], adapted(naive, weights)
    stored = perturb.apply(DEFENCE, naive.encoder.encode(sentences)).vectors
    assert again.invert(stored).texts == attacker.invert(stored).texts


def test_an_attacker_fits_its_own_weights_in_any_precision_and_no_others(naive, saved):
    folder = saved[1].parent
    load_attackers(invlib.Inverter.load("minilm", dtype=torch.bfloat16), folder)
    weights = {
        name: value + 1 if name == "pos_embed.weight" else value for name, value in naive.model.state_dict().items()
    }
    other = invlib.checkpoint.assemble(naive.config, weights, folder)
    with pytest.raises(InputError, match="cut.safetensors was made for weights .*; make it: python -m"):
        load_attackers(invlib.Inverter(other, naive.tokenizer, naive.encoder), folder)


def test_what_is_no_attacker_is_told(naive, saved, tmp_path):
    path = saved[1]
    with pytest.raises(InputError, match="cut.safetensors cannot be read as an attacker .*No such file.*; make it"):
        load_attackers(naive, tmp_path / "none")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be read as an attacker"):
        load_attackers(naive, path.parent)


def test_those_beside_the_bundled_weights_are_loaded(naive):
    assert list(load_attackers(naive)) == list(studied(384))


def test_the_command_makes_what_it_is_asked_for(tmp_path, sentences, capsys):
    (tmp_path / "text.txt").write_text("\n".join(sentences))
    command = ["attackers", "--text", str(tmp_path / "text.txt"), "--steps", "0", "--out", str(tmp_path)]
    assert main([*command, "--only", "int4", "binary"]) == 0
    assert sorted(path.stem for path in tmp_path.glob("*.safetensors")) == ["binary", "int4"]
    assert main([*command, "--only", "int5"]) == 2
    assert "no studied defence int5; there are gaussian-0.02" in capsys.readouterr().err


def test_the_studied_defences_are_the_same_in_every_process():
    a, b = studied(384), studied(384)
    assert list(a) == list(b) and "truncation-192" in a
    np.testing.assert_array_equal(a["projection-96"].components, b["projection-96"].components)
