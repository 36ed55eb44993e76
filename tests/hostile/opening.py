"""Every kind of file is opened in a process with limits: what comes is a valid result or one line."""

import tempfile
from collections import Counter
from pathlib import Path

from tests.hostile.counts import end
from tests.hostile.files import KINDS
from tests.hostile.worker import Outcome, outcomes

SOUND = {"sound_folder", "sound_published"}
# What can never be a checkpoint, whatever the seed.
REFUSED = {"pickled_call", "pickled_by_hand", "stretched_tensor", "packed_records", "yaml_text", "something_else"}


def is_wrong(found: Outcome) -> bool:
    """Is it something else than a valid result or one line, or a result where there can be none?"""
    expected = {"valid"} if found.kind in SOUND else {"error"} if found.kind in REFUSED else {"valid", "error"}
    return found.name not in expected


def run(seeds: int) -> tuple[Counter, list[Outcome]]:
    """How often each outcome came, and what was wrong: `seeds` files of every kind."""
    with tempfile.TemporaryDirectory() as place:
        cases = [(kind, seed) for seed in range(seeds) for kind in KINDS]
        found = list(outcomes(cases, Path(place)))
    return Counter(one.name for one in found), [one for one in found if is_wrong(one)]


if __name__ == "__main__":
    end(run)
