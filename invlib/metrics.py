"""How much of a text came back, with 95 % intervals.

Text is compared as the bundled encoder sees it: lower-cased, without accents, split into words and punctuation
marks; blanks do not count ("well-known" and "well - known" have the same vector, so no attack can tell them apart).
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
import scipy.stats
from sacrebleu.metrics import BLEU

from invlib.door.vectors import answers, directions
from invlib.errors import InputError, require, shown

RESAMPLES = 1000
Encode = Callable[[list[str]], np.ndarray]  # texts → vectors [n, d]
SHARES = ("exact_match", "length_within_one", "length_within_one_token")  # 0 or 1 for every text


def words(text: str) -> list[str]:
    """The units of comparison: "It's a café." is it, ', s, a, cafe and the full stop."""
    letters = (c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    return re.findall(r"[^\W_]+|[^\w\s]|_", "".join(letters))


def token_f1(reference: str, text: str) -> float:
    """Harmonic mean of precision and recall over the multiset of words, in [0, 1]."""
    a, b = Counter(words(reference)), Counter(words(text))
    return 2 * (a & b).total() / max(1, a.total() + b.total())


def rouge_l(reference: str, text: str) -> float:
    """ROUGE-L (Lin 2004): as `token_f1`, but only the longest run of words in the same order counts, gaps allowed."""
    from rapidfuzz.distance import LCSseq  # only here: training scores without it

    a, b = words(reference), words(text)
    return 2 * LCSseq.similarity(a, b) / max(1, len(a) + len(b))


def positional_accuracy(reference: str, text: str) -> float:
    """Share of the reference's words that stand at the very same place in the text, in [0, 1]."""
    a, b = words(reference), words(text)
    return sum(x == y for x, y in zip(a, b, strict=False)) / len(a) if a else 0.0


def exact_match(reference: str, text: str) -> float:
    """1 when every word is right and in its place, else 0."""
    return float(words(reference) == words(text))


def edit_similarity(reference: str, text: str) -> float:
    """1 - Levenshtein distance / length of the longer text, in characters."""
    from rapidfuzz.distance import Levenshtein  # see rouge_l

    return Levenshtein.normalized_similarity(" ".join(words(reference)), " ".join(words(text)))


def length_within_one(reference: str, text: str) -> float:
    """1 when the numbers of words differ by at most one, else 0."""
    return float(abs(len(words(reference)) - len(words(text))) <= 1)


_EACH = (token_f1, rouge_l, positional_accuracy, exact_match, edit_similarity, length_within_one)
PER_TEXT: dict[str, Callable[[str, str], float]] = {metric.__name__: metric for metric in _EACH}


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of matching rows, [n]. Raises `InputError` for a row of zero length."""
    a, b = directions(a), directions(b)
    require(a.shape == b.shape, "vectors", f"as many as their partners, {list(a.shape)}", list(b.shape))
    return (a * b).sum(axis=1)


def per_text(references: Sequence[str], texts: Sequence[str], tokenizer=None) -> pd.DataFrame:
    """One row per text, one column per metric.

    tokenizer: something whose `encode` turns texts into lists of ids; adds `length_within_one_token`.
    Raises `InputError` for no texts, unequal numbers, or an empty reference.
    """
    _check(references, texts)
    pairs = list(zip(references, texts, strict=True))
    table = pd.DataFrame({name: [metric(*pair) for pair in pairs] for name, metric in PER_TEXT.items()})
    if tokenizer is not None:
        lengths = [np.array([len(ids) for ids in tokenizer.encode(list(given))]) for given in (references, texts)]
        table["length_within_one_token"] = (abs(lengths[0] - lengths[1]) <= 1).astype(float)
    return table


def score(references: Sequence[str], texts: Sequence[str], encoder=None, *, tokenizer=None, seed=0) -> pd.DataFrame:
    """How much came back: one row per metric with value, low, high (95 %) and n. Raises as `per_text`.

    BLEU is on 0–100 (sacrebleu, corpus level); everything else on 0–1. With an encoder, `cosine` compares the two
    texts' vectors, one query each; an empty text has cosine 0. With a tokenizer, lengths count in its tokens too.
    Intervals: bootstrap percentiles over the texts (1,000 resamples); for shares (exact match, length) Wilson's.
    """
    columns = per_text(references, texts, tokenizer).items()
    rows = [(name, *(share_interval(own) if name in SHARES else mean_interval(own, seed))) for name, own in columns]
    rows.insert(1, ("bleu", *bleu_interval(references, texts)))
    if encoder is not None:
        rows.append(("cosine", *mean_interval(text_cosines(references, texts, encoder), seed)))
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"]).assign(n=len(references))


def text_cosines(references: Sequence[str], texts: Sequence[str], encoder) -> np.ndarray:
    """Cosine of each text's vector to its reference's, [n]; 0 for an empty text, which has no vector."""
    cosines, written = np.zeros(len(texts)), [row for row, text in enumerate(texts) if text.strip()]
    if written:
        found, expected = (encoder.encode([given[row] for row in written]) for given in (texts, references))
        cosines[written] = cosine(found, expected)
    return cosines


def reencoded(texts: Sequence[str], encode: Encode, embed_dim: int) -> np.ndarray:
    """Vectors of what was written, [n, embed_dim]; zero for an empty text, which is not encoded."""
    vectors = np.zeros((len(texts), embed_dim), np.float32)
    written = [row for row, text in enumerate(texts) if text.strip()]
    if written:
        vectors[written] = answers(encode([texts[row] for row in written]), len(written), embed_dim)
    return vectors


def reencoded_cosines(vectors: np.ndarray, texts: Sequence[str], encode: Encode) -> np.ndarray:
    """Cosine of each text, encoded again, to its vector of [n, embed_dim]; 0 for an empty text."""
    again = reencoded(texts, encode, vectors.shape[1])
    cosines, written = np.zeros(len(texts), vectors.dtype), again.any(axis=1)
    cosines[written] = cosine(again[written], vectors[written])
    return cosines


def ranks(vectors: np.ndarray, pool: np.ndarray, own: Sequence[int] | np.ndarray) -> np.ndarray:
    """Place of the true text among a pool [m, d] by cosine, [n]; 1 is the closest; what is as close comes before it.

    vectors: of what came back, [n, d]; a zero one, of an empty text, has the last place. own: row in the pool, [n].
    """
    similarity = vectors @ directions(pool).T
    return (similarity >= similarity[np.arange(len(own)), own][:, None]).sum(axis=1)


def mean_interval(values: Iterable, seed: int = 0) -> tuple[float, float, float]:
    """Mean, low, high: the 95 % interval over the texts, by bootstrap percentiles."""
    values = np.asarray(list(values), float)
    if len(values) < 2 or np.ptp(values) == 0:
        return (float(values.mean()),) * 3
    found = scipy.stats.bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=seed)
    return float(values.mean()), *map(float, found.confidence_interval)


def share_interval(values: Iterable) -> tuple[float, float, float]:
    """Share of ones, low, high: Wilson's 95 % interval. A bootstrap of no success at all would claim certainty."""
    values = list(values)
    test = scipy.stats.binomtest(int(sum(values)), len(values))
    return test.statistic, *map(float, test.proportion_ci(method="wilson"))


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """How a figure and its interval are written: 0.605 (0.596–0.616)."""
    return f"{value:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def bleu_interval(references: Sequence[str], texts: Sequence[str]) -> tuple[float, float, float]:
    """Corpus BLEU (0–100) of the compared words, and its 95 % interval by sacrebleu's own bootstrap."""
    found, expected = ([" ".join(words(text)) for text in given] for given in (texts, references))
    bleu = BLEU(tokenize="none", force=True)  # force: our words are tokenised, no warning about it
    result = bleu.corpus_score(found, [expected], n_bootstrap=RESAMPLES)
    told = json.loads(result.format(signature=str(bleu.get_signature()), is_json=True))
    middle, half = told.get("confidence_mean", 0.0), told.get("confidence_var", 0.0)  # left out where the mean is 0
    return told["score"], max(0.0, middle - half), min(100.0, middle + half)


def _check(references: Sequence[str], texts: Sequence[str]) -> None:
    for given in (references, texts):
        if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray | pd.Series) or np.ndim(given) != 1:
            raise InputError(f"expected lists of texts, got {shown(given)}; put one text in a list")
    if len(references) != len(texts):
        raise InputError(f"{len(references)} references but {len(texts)} texts; give one text per reference")
    if not len(references):
        raise InputError("there is nothing to score; give at least one reference")
    for row, (reference, text) in enumerate(zip(references, texts, strict=True)):
        for name, found in (("reference", reference), ("text", text)):
            if not isinstance(found, str):
                raise InputError(f"{name} {row} is {found!r}; expected a string, an empty one where nothing came back")
        if not words(reference):
            raise InputError(f"reference {row} is empty; remove it, there is nothing to recover")
