"""Sentences to begin with, by domain: those of data/sentences."""

import json

from invlib.checkpoint import SENTENCES as FILE


def by_kind() -> dict[str, list[str]]:
    """Kind → its sentences, in the order of the file; none where the file is missing."""
    kinds: dict[str, list[str]] = {}
    for line in FILE.read_text(encoding="utf-8").splitlines() if FILE.is_file() else ():
        row = json.loads(line)
        kinds.setdefault(row["kind"], []).append(row["text"])
    return kinds
