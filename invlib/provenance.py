"""Provenance: which state of this project made a file."""

import subprocess
from pathlib import Path


def commit_of_this_clone() -> str:
    """The commit of this clone, "+" behind it where files differ; "unknown" outside of a clone."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
