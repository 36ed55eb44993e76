"""Verdict: what an audit found, counted part by part, and said in plain language."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa

from invlib.audit.origin import CHANGED, READ, Origin
from invlib.errors import InputError
from invlib.metrics import share_interval
from invlib.words import WordMap

EXAMPLES = 10
CLOSE, NEAR = 0.8, 0.6  # of confidence; what they mean in words is measured in notebook 08
_MONTHS = "jan(uary)?|feb(ruary)?|march|april|may|june|july|aug(ust)?|sept(ember)?|oct(ober)?|nov(ember)?|dec(ember)?"
_DAYS = "(mon|tues|wednes|thurs|fri|satur|sun)day"
PATTERNS = {
    "e-mail-like": re.compile(r"\w+(?:\s*[.-]\s*\w+)*\s*@\s*\w+(?:\s*\.\s*\w{2,})+"),
    "phone-like": re.compile(r"(?:\d[\s().+-]*){7,}"),
    "date-like": re.compile(
        rf"\b({_MONTHS})\s+\d+|\d+\s+({_MONTHS})\b|\b{_DAYS}\b|\d+\s*[/.-]\s*\d+\s*[/.-]\s*\d+", re.I
    ),
    "number": re.compile(r"\d+"),
}
_GIVEN = (  # common given names; what is said of a person needs no surname to be personal
    "adam|alex|alice|amy|andrew|ann|anna|anne|anthony|ben|brian|carol|charles|charlie|chris|daniel|david|diana|edward|"
    "elena|elizabeth|emily|emma|eric|eva|frank|fred|george|hannah|harry|helen|henry|jack|jacob|james|jane|jennifer|jim|"
    "joan|joe|john|jonathan|joseph|julia|karen|kate|kevin|laura|lisa|louis|lucy|luke|margaret|maria|marie|mark|martin|"
    "mary|matthew|michael|mike|nancy|nick|oliver|olivia|oscar|patrick|paul|peter|philip|rachel|rebecca|richard|robert|"
    "rose|ruth|sam|samuel|sarah|simon|sophie|stephen|steve|susan|thomas|tim|tom|victoria|walter|william"
)
_NAMED = re.compile(rf"\b(?:{_GIVEN})\b(?:\s+\w+)?|(?<=\b)(?:mr|mrs|ms|dr|miss|sir|lady)\s*\.?\s+\w+", re.I)


@dataclass(frozen=True)
class Summary:
    """Counts over all parts of an audit."""

    vectors: int
    broken: int
    confidences: np.ndarray  # of the recovered texts
    found: dict[str, int]  # texts with each pattern
    examples: pd.DataFrame  # the most confident texts
    verdicts: dict[str, int] = field(default_factory=dict)  # rows of each kind
    problems: dict[str, int] = field(default_factory=dict)  # why rows could not be used

    @property
    def share(self) -> tuple[float, float, float]:
        """Share of the rows with a vector that are read, with its 95 % interval; NaN where none was checked."""
        checked = sum(self.verdicts.values())
        read = self.verdicts.get(READ, 0) + self.verdicts.get(CHANGED, 0)
        return share_interval(np.arange(checked) < read) if checked else (float("nan"),) * 3


def patterns(texts: Iterable[str]) -> dict[str, int]:
    """How many texts hold something that looks like an e-mail address, a phone number, a date, a number.

    What stands there is the model's guess: count it, do not quote it. Names need the true records (`leaks.leaked`).
    """
    found = Counter(kind for text in texts for kind, pattern in PATTERNS.items() if pattern.search(text))
    return {kind: found[kind] for kind in PATTERNS}


def masked(text: str, known: WordMap | None = None) -> str:
    """A text without what looks like a person's: names, addresses, numbers, dates.

    known: with a word map, also without every word that is rare or mostly a name: surnames, places, invented words.

    >>> masked("mrs brown moved to flat 27 on 3 march , write to ann @ example . com")
    '█ moved to flat █ on █ , write to █'
    """
    for pattern in (*PATTERNS.values(), _NAMED):
        text = pattern.sub("█", text)
    if known is None:
        return text
    return re.sub(r"[^\W\d_█]{2,}", lambda word: word[0] if known.is_common(word[0]) else "█", text)


def masked_address(name: str) -> str:
    """An id without an e-mail address or a phone number; other numbers are what it is for."""
    for kind in ("e-mail-like", "phone-like"):
        name = PATTERNS[kind].sub("█", name)
    return name


def summarise(parts: Iterable[pa.Table]) -> Summary:
    """Go through the parts one by one; only confidences and a few examples are kept."""
    vectors, confidences, best = 0, [], []
    found, verdicts, problems = Counter(), Counter(), Counter()
    for part in parts:
        table = part.to_pandas()
        good = table[table["problem"].isna()]
        vectors += len(table)
        confidences.append(good["confidence"].to_numpy())
        found.update(patterns(good["text"]))
        verdicts.update(good["verdict"].dropna())
        problems.update(table["problem"].dropna())
        best.append(good.nlargest(EXAMPLES, "confidence"))
    known = np.concatenate(confidences)
    examples = pd.concat(best, ignore_index=True).nlargest(EXAMPLES, "confidence")
    examples = examples.drop(columns=["row", "problem", "metadata"]).reset_index(drop=True)
    return Summary(vectors, vectors - len(known), known, dict(found), examples, dict(verdicts), dict(problems))


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
        some = (
            " Rows of the verdict 'read' are the exception: look at them one by one." if origin.rows.read.any() else ""
        )
        return (
            f"{origin} What was recovered is fluent and says little: judge nothing by it.{some} That this model reads "
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
