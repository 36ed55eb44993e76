"""Provenance: which state of this project made a file."""

import subprocess
from pathlib import Path


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
