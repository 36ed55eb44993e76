"""The full-size tables: on which texts, and that one command makes them."""

import json

import joblib
import numpy as np
import pandas as pd
import pytest
import torch

import invlib
from invlib import perturb
from invlib.perturb.noise import directions
from invlib.studies import tables
from invlib.studies.__main__ import main
from invlib.studies.attackers import studied
from invlib.studies.tables import known_pairs, perturbations, project_texts

OTHERS = directions(424, 384, np.random.default_rng(0)).astype(np.float32)


def test_five_hundred_texts_are_studied_and_others_fit_the_codebooks():
    texts = project_texts()
    studied_texts = [record.text for record in texts.studied]
    assert len(set(studied_texts)) == len(studied_texts) >= 500
    assert sum(bool(record.secrets) for record in texts.studied) >= 200
    assert not set(studied_texts) & set(texts.others)
    few = [record.text for record in project_texts(limit=20).studied]
    assert few == studied_texts[:20], "a trial is the beginning of the whole"
    assert 5 < sum(bool(record.secrets) for record in project_texts(limit=20).studied) < 15


def test_every_perturbation_is_another_and_can_be_applied():
    every = perturbations(OTHERS)
    clean = OTHERS[:5]
    for perturbation in every:
        seen = perturb.apply(perturbation, clean, torch.Generator().manual_seed(0))
        assert seen.vectors.shape == clean.shape
    hashes = [joblib.hash(p) for p in every]
    assert len(set(hashes)) == len(every)
    public = joblib.hash(studied(384)["projection-96"])
    assert public in hashes, "the projection that an attacker was trained for is the one that is swept"


def test_known_pairs_break_the_very_keys_that_are_swept():
    swept = {p.name: p for p in perturbations(OTHERS) if p.name.startswith("secret")}
    for known in known_pairs(OTHERS):
        np.testing.assert_array_equal(known.inner.key, swept[known.inner.name].key)
    assert known.name == "secret permutation, known pairs" and known.strength == 3


@pytest.fixture
def small(monkeypatch):
    naive = invlib.Inverter.load("minilm")
    monkeypatch.setattr(tables, "load_attackers", lambda inverter, folder: {"int8": naive, "gaussian-0.05": naive})
    monkeypatch.setattr(tables, "perturbations", lambda others: [perturb.GaussianNoise(0.05), *tables.secrets(384)])
    monkeypatch.setattr(tables, "PAIRS", {"secret rotation": (10,), "secret permutation": (1,)})


def test_one_command_makes_the_tables_with_what_made_them(small, tmp_path, capsys):
    command = ["tables", "--limit", "4", "--cache", str(tmp_path / "cells"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    sweep, utility = (pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in ("sweep", "utility"))
    attacks = sweep.groupby("attack")["perturbation"].unique().map(set).to_dict()
    assert attacks["naive"] == {"no vector", "none", "Gaussian noise", "secret rotation", "secret permutation"}
    assert attacks["adapted"] == {"absmax quantisation", "Gaussian noise"}
    assert attacks["known pairs"] == {"secret rotation, known pairs", "secret permutation, known pairs"}
    assert set(sweep["metric"]) > {"token_f1", "rouge_l", "independent_cosine", "rank", "leaked all", "vector_cosine"}
    assert set(utility["metric"]) == {"recall@10", "ndcg@10", "rank_correlation"}
    assert utility.query("perturbation == 'none' and metric == 'recall@10'")["value"].item() == 1
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["texts"] == 4 and len(about["weights"]) == 64 and about["commit"] and about["made"].endswith("+00:00")


def test_a_missing_attacker_is_told_before_the_work_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "locate", lambda name: tmp_path)
    monkeypatch.setattr(tables, "costs", None)
    assert main(["tables", "--out", str(tmp_path)]) == 2
    assert "gaussian-0.02.safetensors cannot be read as an attacker" in capsys.readouterr().err
