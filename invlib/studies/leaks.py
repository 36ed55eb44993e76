"""Leaks: how many of the secrets in known records stand in the texts that an attacker recovered.

Secrets and texts are compared as the encoder sees them (`metrics.words`): case, accents and blanks do not count.
exact: the secret's words stand in the text, one after the other. "12" is not found in "120" or "12th".
near: some run of the text's words, up to one longer or shorter, has a normalised edit similarity
  (1 - Levenshtein distance / longer length, in characters) of at least 0.8. Every exact find, of similarity 1, is near.

Short secrets turn up by chance ("7", a common first name): read the shares beside those of a control, such as the
texts inverted from shuffled vectors.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rapidfuzz.distance import Levenshtein

from invlib.door.files import reading
from invlib.door.vectors import problem_of
from invlib.errors import InputError
from invlib.metrics import share_interval, words

KINDS = ("name", "number", "date", "email", "phone", "canary")
NEAR = 0.8


@dataclass(frozen=True)
class Secret:
    """One thing that must not get out: its kind, one of KINDS, and how it is written in its record."""

    kind: str
    value: str


@dataclass(frozen=True)
class Record:
    """A text and the secrets in it."""

    text: str
    secrets: tuple[Secret, ...]


def read_records(path: str | Path) -> list[Record]:
    """Records of a .jsonl file, one {"text": …, "secrets": [{"kind": …, "value": …}, …]} a line.

    Raises `InputError` for a missing file, and with its number for a line of another form, an unknown kind, or a secret
    that does not stand in its text.
    """
    path = Path(path)
    with reading(path, "holds no records", "the project's own are data/records/records.jsonl"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [_record(line, f"{path.name} line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def find_secrets(records: Sequence[Record], texts: Sequence[str]) -> pd.DataFrame:
    """What came back of each secret: one row per secret, with its record, kind and value; the similarity of the nearest
    run of words; exact and near (0 or 1).

    Raises `InputError` unless there is one text per record, and at least one secret.
    """
    if len(records) != len(texts):
        raise InputError(f"{len(records)} records but {len(texts)} texts; give one text per record")
    rows = [
        (row, secret.kind, secret.value, similarity(text, secret.value))
        for row, (record, text) in enumerate(zip(records, texts, strict=True))
        for secret in record.secrets
    ]
    if not rows:
        raise InputError("the records hold no secret, so none can leak; give records with secrets")
    found = pd.DataFrame(rows, columns=["record", "kind", "value", "similarity"])
    return found.assign(exact=1.0 * (found["similarity"] == 1), near=1.0 * (found["similarity"] >= NEAR))


def leaked(records: Sequence[Record], texts: Sequence[str]) -> pd.DataFrame:
    """Share of the secrets of each kind, and of all, that came back: kind, metric (exact, near), value, low, high, n.

    Wilson's 95 % interval over the n secrets, as if they were independent; several of one record are not quite.
    Kinds without a secret are left out. Raises the `InputError`s of `find_secrets`.
    """
    found = find_secrets(records, texts)
    both = pd.concat([found, found.assign(kind="all")])
    rows = [
        (kind, metric, *share_interval(own[metric]), len(own))
        for kind, own in both.groupby(pd.Categorical(both["kind"], [*KINDS, "all"]), observed=True)
        for metric in ("exact", "near")
    ]
    return pd.DataFrame(rows, columns=["kind", "metric", "value", "low", "high", "n"])


def similarity(text: str, value: str) -> float:
    """Normalised edit similarity of the value to the nearest run of words in the text, in [0, 1]; 0 in an empty text.

    >>> round(similarity("ask Anna Brown", "Ana Brown"), 2), similarity("call 555 - 0114", "555-0114")
    (0.9, 1.0)
    """
    wanted, given = words(value), words(text)
    runs = (
        " ".join(given[start : start + size])
        for size in range(max(1, len(wanted) - 1), len(wanted) + 2)
        for start in range(max(1, len(given) - size + 1))
    )
    target = " ".join(wanted)
    return max((Levenshtein.normalized_similarity(target, run) for run in runs if run), default=0.0)


def _record(line: str, place: str) -> Record:
    try:
        found = json.loads(line)
        record = Record(found["text"], tuple(Secret(s["kind"], s["value"]) for s in found["secrets"]))
        if problem_of(record.text) or not all(isinstance(s.value, str) for s in record.secrets):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        form = '{"text": "…", "secrets": [{"kind": "name", "value": "…"}]}'
        raise InputError(f"{place} is not of the form {form}; repair it or remove it") from None
    for secret in record.secrets:
        if secret.kind not in KINDS:
            raise InputError(f"{place} has a secret of kind {secret.kind!r}; the kinds are {', '.join(KINDS)}")
        if similarity(record.text, secret.value) < 1:
            raise InputError(f"{place}: the secret {secret.value!r} does not stand in its text; copy it from there")
    return record
