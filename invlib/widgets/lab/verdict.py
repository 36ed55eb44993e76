"""Verdict: what a person should know of a text before it is inverted, and of what came back, in one line."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

from invlib import metrics
from invlib.search.ledger import ROUNDING
from invlib.tokenizer import Tokenizer
from invlib.widgets.lab.alignment import HIT, MOVED, AlignedPair

EXACT, CLOSE, FAR = "exact", "close", "far"
# Cosine of a draft, encoded again, to its vector: nearly every sentence reaches it, and hardly anything that is no
# vector of the encoder. tests/widgets/test_alignment.py holds both sides.
GENUINE = 0.4
SAME = 1 - ROUNDING  # a cosine that only the text itself has


def advice(text: str, ids: Sequence[int], tokenizer: Tokenizer, most: int) -> str:
    """Why a text cannot come back whole; empty where nothing speaks against it."""
    letters = [c for c in text if c.isalpha()]
    foreign = sum(not unicodedata.name(c, "").startswith("LATIN") for c in letters)
    unknown = sum(i == tokenizer.unk_token_id for i in ids)
    if len(ids) > most:
        return f"This text has {len(ids):,} pieces and the model writes {most} at most: it cannot come back whole"
    if 2 * foreign > len(letters):
        return "The model writes English: what comes back of another language is a guess at its meaning"
    if unknown:
        pieces = "1 piece of this text is" if unknown == 1 else f"{unknown} pieces of this text are"
        return f"{pieces} not in the model's vocabulary and cannot come back"
    return ""


def of_text(pairs: Sequence[AlignedPair], original: str, text: str) -> tuple[str, str]:
    """Kind and line for a text that is known: exact, or how many of its words are there again, in which order."""
    if metrics.exact_match(original, text):
        return EXACT, "Exact: every word came back"
    words = [pair for pair in pairs if pair.expected is not None and pair.expected[0].isalnum()]
    kinds = Counter(pair.expected_kind for pair in words)
    back = kinds[HIT] + kinds[MOVED]
    line = f"{back} of {len(words)} words came back" + (", order differs" if kinds[MOVED] else "")
    added = [pair.found for pair in pairs if pair.found_kind == "extra" and pair.found[0].isalnum()]
    if back == len(words) and added:
        line += f", and {len(added)} that {'was' if len(added) == 1 else 'were'} not there"
    elif back == len(words) and not kinds[MOVED]:
        line += ", punctuation differs"
    return (CLOSE if 2 * back >= len(words) else FAR), line


def of_vector(cosine: float | None, draft_cosine: float | None) -> tuple[str, str]:
    """Kind and line for a vector whose text nobody knows, by the cosine of what was written."""
    if cosine is None or draft_cosine is None:
        return "", ""
    if cosine >= SAME:
        return EXACT, "As good as exact: this text has the same vector"
    if draft_cosine < GENUINE:
        return (
            FAR,
            "The vector does not look like one of this encoder, or too much happened to it: this is a guess",
        )
    return CLOSE, f"Close: this text's own vector lies at cosine {cosine:.3f}"
