"""Verdict: what an audit found, counted part by part, and said in plain language."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from invlib.audit.origin import Origin
from invlib.errors import InputError
from invlib.metrics import share_interval

EXAMPLES = 10
CLOSE, NEAR = 0.8, 0.6  # of confidence; what they mean in words is measured in notebook 08
_MONTHS = "jan(uary)?|feb(ruary)?|march|april|may|june|july|aug(ust)?|sept(ember)?|oct(ober)?|nov(ember)?|dec(ember)?"
_DAYS = "(mon|tues|wednes|thurs|fri|satur|sun)day"
PATTERNS = {
    "e-mail-like": re.compile(r"\w\s*@\s*\w+\s*\.\s*\w{2,}"),
    "phone-like": re.compile(r"(?:\d[\s().+-]*){7,}"),
    "date-like": re.compile(rf"\b({_MONTHS})\s+\d|\d\s+({_MONTHS})\b|\b{_DAYS}\b|\d\s*[/.-]\s*\d+\s*[/.-]\s*\d", re.I),
    "number": re.compile(r"\d"),
}


@dataclass(frozen=True)
class Summary:
    """Counts over all parts of an audit."""

    vectors: int
    broken: int
    confidences: np.ndarray  # of the recovered texts
    found: dict[str, int]  # texts with each pattern
    examples: pd.DataFrame  # the most confident texts


def patterns(texts: Iterable[str]) -> dict[str, int]:
    """How many texts hold something that looks like an e-mail address, a phone number, a date, a number.

    What stands there is the model's guess: count it, do not quote it. Names need the true records (`leaks.leaked`).
    """
    found = Counter(kind for text in texts for kind, pattern in PATTERNS.items() if pattern.search(text))
    return {kind: found[kind] for kind in PATTERNS}


def summarise(parts: Iterable[pa.Table]) -> Summary:
    """Go through the parts one by one; only confidences and a few examples are kept."""
    vectors, confidences, found, best = 0, [], Counter(), []
    for part in parts:
        table = part.to_pandas()
        good = table[table["problem"].isna()]
        vectors += len(table)
        confidences.append(good["confidence"].to_numpy())
        found.update(patterns(good["text"]))
        best.append(good.nlargest(EXAMPLES, "confidence"))
    known = np.concatenate(confidences)
    examples = pd.concat(best, ignore_index=True).nlargest(EXAMPLES, "confidence")[["id", "text", "confidence"]]
    return Summary(vectors, vectors - len(known), known, dict(found), examples.reset_index(drop=True))


def pattern_shares(summary: Summary) -> pd.DataFrame:
    """Share of the recovered texts with each pattern: kind, value, low, high (Wilson's 95 % interval), n.

    Raises `InputError` where nothing was recovered.
    """
    n = len(summary.confidences)
    if not n:
        raise InputError("no vector of this audit could be inverted, so there is no text to look for patterns in")
    rows = [(kind, *share_interval(np.arange(n) < k), n) for kind, k in summary.found.items()]
    return pd.DataFrame(rows, columns=["kind", "value", "low", "high", "n"])


def verdict(summary: Summary, origin: Origin) -> str:
    """Two or three sentences for somebody who has to decide."""
    if not origin.plausible:
        return (
            f"{origin} What was recovered is fluent and says little: judge nothing by it. That this model reads "
            "nothing here is no proof that nobody can: an attacker who knows a defence adapts to it (notebook 07)."
        )
    known = summary.confidences[np.isfinite(summary.confidences)]
    if not len(known):
        return str(origin)
    close, near = ((known >= limit).mean() for limit in (CLOSE, NEAR))
    advice = "Few texts come back, from the vectors alone; an attacker who may also ask the encoder gets further."
    if near >= 0.1:
        advice = "Handle this store like the texts themselves: access, retention and deletion."
    return (
        f"{origin} Of {len(known)} recovered texts, encoded again, {close:.0%} come within a cosine of {CLOSE} of "
        f"their vector and {near:.0%} within {NEAR}, without one question to the encoder that made it. {advice}"
    )
