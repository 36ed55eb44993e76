"""Results: what makes another key and what makes the same one; a file is a finished cell or an error.

And it says which state of the project made it, in a form that survives a CSV.
"""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from invlib import perturb
from invlib.errors import InputError
from invlib.policies import entropy_bounded
from invlib.search import BestOf
from invlib.studies import results
from invlib.studies.results import cell_path, kept


def key(*inputs) -> str:
    return cell_path("cells", *inputs).stem


def test_a_parameter_of_any_kind_is_part_of_the_key():
    a, b = (perturb.SecretRotation.draw(8, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert key(a) == key(perturb.SecretRotation(a.key.copy())) != key(b)
    assert key(perturb.KnownPairs(a, None)) != key(perturb.KnownPairs(b, None))
    assert key(perturb.GaussianNoise(0.02)) != key(perturb.GaussianNoise(0.021))
    assert key("one", 1) != key("one", 2) != key("two", 2)
    assert key(np.zeros(3)) == key(np.zeros(3)) != key(np.zeros(4))


def test_strategies_and_partial_functions_name_a_cell_and_what_has_no_name_does_not():
    one, same, other = (key(functools.partial(entropy_bounded, gamma=gamma)) for gamma in (0.1, 0.1, 0.2))
    assert one == same != other
    assert key(BestOf(2)) == key(BestOf(2)) != key(BestOf(3))
    with pytest.raises(InputError, match="cannot name a cell .*; use numbers, texts, dataclasses"):
        key(lambda prediction, turn: turn)


def test_a_key_is_the_same_in_another_process():
    inputs = ({"texts": ["one", "two"], "prompt": None}, {"num_steps": 1, "temperature": 0.5}, 0)
    code = f"import joblib; print(joblib.hash({inputs!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == key(*inputs)


def test_what_is_kept_is_found_again_and_a_damaged_file_is_named(tmp_path):
    path = cell_path(tmp_path / "cells", 1)
    assert kept(path, lambda: [{"value": 0.1}]) == [{"value": 0.1}]
    assert kept(path, lambda: pytest.fail("computed again")) == [{"value": 0.1}]
    path.write_text(path.read_text()[:5])
    with pytest.raises(InputError, match=f"{path.name} is not a finished cell .*; delete it"):
        kept(path, list)
    with pytest.raises(InputError, match="cells/a.json could not be written"):
        kept(Path("/dev/null/cells/a.json"), list)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository of one commit, in which the module believes to lie."""
    monkeypatch.setattr(results, "__file__", str(tmp_path / "results.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "--quiet")
    (tmp_path / "weights.txt").write_text("1")
    git("add", "weights.txt")
    git("commit", "--quiet", "--message", "first")
    return tmp_path, git("rev-parse", "HEAD").strip()


def test_the_commit_is_named_in_whole(clone):
    """A shortened name may look like a number: 4e2117656003 comes back from a CSV as infinity."""
    _, commit = clone
    assert results.commit_of_this_clone() == commit and len(commit) == 40


def test_a_changed_file_shows(clone):
    folder, commit = clone
    (folder / "weights.txt").write_text("2")
    assert results.commit_of_this_clone() == f"{commit}+"


def test_outside_of_a_clone_it_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "__file__", str(tmp_path / "results.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results.commit_of_this_clone() == "unknown"
