"""Provenance: which state of this project made a file, and how a table is written."""

import subprocess
from pathlib import Path

import pandas as pd

from invlib.checkpoint import write_atomically


def commit_of_this_clone() -> str:
    """The whole name of this clone's commit, "+" behind it where files differ; "unknown" outside of a clone.

    Whole, because a reader of CSV takes a shortened name like 4e2117656003 for a number, and this one for infinity.
    """
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def write_table(path: Path, table: pd.DataFrame, float_format: str = "%.4f") -> None:
    """Write a table as CSV, whole or not at all. Raises `InputError` where it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda partial: table.to_csv(partial, index=False, float_format=float_format))
