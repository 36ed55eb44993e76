"""Cuts: whole words, from anywhere, with vectors of their own; their share of what is seen is the configuration's."""

import dataclasses

import numpy as np
import pytest
import torch

from invlib.config import DataConfig
from invlib.errors import InputError
from invlib.tokenizer import Tokenizer
from invlib.training import __main__ as command_line
from invlib.training import loop
from invlib.training.batches import Mix
from invlib.training.cuts import SOURCE, spans, with_cuts
from invlib.training.packed import PackedPairs, read_encoder
from tests.training.test_packed import place  # noqa: F401


@pytest.fixture(scope="module")
def cut(place) -> tuple[PackedPairs, PackedPairs, Tokenizer]:  # noqa: F811
    """Pairs, the same with cuts, and their tokenizer."""
    kit = place / "kit"
    made_with = read_encoder(kit / "first", torch.device("cpu")), Tokenizer.load(kit / "first")
    pairs = PackedPairs.build(place / "whole", kit / "second", *made_with, 16)
    return pairs, with_cuts(pairs, place / "cuts", *made_with, 0), made_with[1]


def test_a_span_is_words_of_its_row_from_every_place_and_of_every_length():
    joined = np.zeros((4000, 12), bool)
    joined[:, [2, 3, 7]] = True
    lengths = np.repeat([9, 12], 2000)
    starts, ends = spans(joined, lengths, np.random.default_rng(0))
    assert not joined[np.arange(4000), starts].any() and (starts < ends).all() and (ends <= lengths).all()
    inside = np.minimum(ends, 11)
    assert not (joined[np.arange(4000), inside] & (ends < lengths)).any()
    assert set(starts[:2000]) == {0, 1, 4, 5} and set(ends[2000:]) == {4, 5, 6, 8, 9, 10, 11, 12}


def test_every_cut_is_part_of_a_longer_sentence_and_its_vector_its_own(cut, minilm):
    pairs, both, tokenizer = cut
    whole = [" ".join(tokenizer.pieces(ids[:n])) for ids, n in zip(pairs.tokens, pairs.lengths, strict=True)]
    rows = np.arange(len(pairs), len(both))
    assert len(rows) and {both.source_names[k] for k in both.sources[rows]} == {SOURCE}
    lengths = both.lengths[rows]
    for ids, n in zip(both.tokens[rows], lengths, strict=True):
        own = " ".join(tokenizer.pieces(ids[:n]))
        assert n >= 4 and any(own in text and own != text for text in whole)
    texts = [tokenizer.decode(ids[:n]) for ids, n in zip(both.tokens[rows], lengths, strict=True)]
    assert (both.embeddings[rows].astype(np.float32) * minilm.encode(texts)).sum(axis=1).min() > 1 - 1e-4


def test_cuts_have_their_share_and_the_mix_divides_the_rest(cut):
    _, both, _ = cut
    shares = loop._shares(DataConfig(mix={"tales/*": 0.5, "*": 0.5}, cuts=0.2))
    assert shares == {SOURCE: 0.2, "tales/*": 0.4, "*": 0.4} and list(shares)[0] == SOURCE
    mix = Mix.by_source(both, np.arange(len(both)), shares, 0)
    assert {both.source_names[k] for k in both.sources[mix.groups[0]]} == {SOURCE}
    assert all(SOURCE not in {both.source_names[k] for k in both.sources[group]} for group in mix.groups[1:])
    assert loop._shares(DataConfig(cuts=0.2)) == {SOURCE: 0.2, "*": 0.8}


def test_a_run_with_cuts_trains_goes_on_and_needs_packed_text(place, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    config = place / "kit" / "first" / "config.yaml"
    (tmp_path / "cuts.yaml").write_text(config.read_text().replace("cuts: 0.0", "cuts: 0.25"))
    command = ["--config", str(tmp_path / "cuts.yaml"), "--out", str(tmp_path / "run")]
    kit = place / "kit"
    packed = ["--text", str(kit / "second"), "--valid", str(kit / "first")]
    assert command_line.main([*command, *packed]) == 0
    assert (tmp_path / "pairs" / "cuts" / "embeddings.npy").is_file()
    assert command_line.main([*command, *packed]) == 0
    capsys.readouterr()
    plain = ["--text", str(place / "a.jsonl"), "--valid", str(place / "v.jsonl")]
    assert command_line.main([*command[:2], "--out", str(tmp_path / "other"), *plain]) == 2
    assert "cuts are made of packed corpora" in capsys.readouterr().err
    with pytest.raises(InputError, match="cuts must be"):
        dataclasses.replace(DataConfig(), cuts=1.0)
