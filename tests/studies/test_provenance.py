"""Provenance: a file says which state of the project made it, in a form that survives a CSV."""

import subprocess

import pytest

from invlib.studies import provenance


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository of one commit, in which the module believes to lie."""
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
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
    assert provenance.commit_of_this_clone() == commit and len(commit) == 40


def test_a_changed_file_shows(clone):
    folder, commit = clone
    (folder / "weights.txt").write_text("2")
    assert provenance.commit_of_this_clone() == f"{commit}+"


def test_outside_of_a_clone_it_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit_of_this_clone() == "unknown"
