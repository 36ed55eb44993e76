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
from rapidfuzz.distance import LCSseq, Levenshtein
from sacrebleu.metrics import BLEU

from invlib.errors import InputError

RESAMPLES = 1000
SHARES = ("exact_match", "length_within_one", "length_within_one_token")  # 0 or 1 for every text


def words(text: str) -> list[str]:
    """The units of comparison.

    >>> words("It's a well-known café.")
    ['it', "'", 's', 'a', 'well', '-', 'known', 'cafe', '.']
    """
    text = unicodedata.normalize("NFD", text.lower())
    text = "".join(c for c in text if unicodedata.category(c) != "Mn")
    return re.findall(r"[^\W_]+|[^\w\s]|_", text)


def token_f1(reference: str, text: str) -> float:
    """Harmonic mean of precision and recall over the multiset of words, in [0, 1]."""
    a, b = Counter(words(reference)), Counter(words(text))
    shared = (a & b).total()
    return 2 * shared / (a.total() + b.total()) if shared else 0.0


def rouge_l(reference: str, text: str) -> float:
    """ROUGE-L (Lin 2004): as `token_f1`, but only the longest run of words in the same order counts, gaps allowed."""
    a, b = words(reference), words(text)
    shared = LCSseq.similarity(a, b)
    return 2 * shared / (len(a) + len(b)) if shared else 0.0


def positional_accuracy(reference: str, text: str) -> float:
    """Share of the reference's words that stand at the very same place in the text, in [0, 1]."""
    a, b = words(reference), words(text)
    return sum(x == y for x, y in zip(a, b, strict=False)) / len(a) if a else 0.0


def exact_match(reference: str, text: str) -> float:
    """1 when every word is right and in its place, else 0."""
    return float(words(reference) == words(text))


def edit_similarity(reference: str, text: str) -> float:
    """1 - Levenshtein distance / length of the longer text, in characters."""
    return Levenshtein.normalized_similarity(" ".join(words(reference)), " ".join(words(text)))


def length_within_one(reference: str, text: str) -> float:
    """1 when the numbers of words differ by at most one, else 0."""
    return float(abs(len(words(reference)) - len(words(text))) <= 1)


PER_TEXT: dict[str, Callable[[str, str], float]] = {
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "positional_accuracy": positional_accuracy,
    "exact_match": exact_match,
    "edit_similarity": edit_similarity,
    "length_within_one": length_within_one,
}


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of matching rows, [n]. Raises `InputError` for a row of zero length."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not norms.all():
        raise InputError(f"row {int(np.flatnonzero(norms == 0)[0])} is a zero vector; it has no direction")
    return (a * b).sum(axis=1) / norms


def per_text(
    references: Sequence[str],
    texts: Sequence[str],
    cosines: np.ndarray | None = None,
    tokenizer=None,
) -> pd.DataFrame:
    """One row per text, one column per metric; `cosine` where cosines are given.

    tokenizer: something whose `encode` turns texts into lists of ids; adds `length_within_one_token`.
    """
    _check(references, texts)
    table = pd.DataFrame(
        {name: [metric(r, t) for r, t in zip(references, texts, strict=True)] for name, metric in PER_TEXT.items()}
    )
    if tokenizer is not None:
        pairs = zip(tokenizer.encode(list(references)), tokenizer.encode(list(texts)), strict=True)
        table["length_within_one_token"] = [float(abs(len(r) - len(t)) <= 1) for r, t in pairs]
    return table if cosines is None else table.assign(cosine=np.asarray(cosines, float))


def score(
    references: Sequence[str], texts: Sequence[str], encoder=None, *, tokenizer=None, seed: int = 0
) -> pd.DataFrame:
    """How much came back: one row per metric with value, low, high (95 %) and n.

    BLEU is on 0–100 (sacrebleu, corpus level); everything else on 0–1. With an encoder, `cosine` compares the two
    texts' vectors, one query per text and one per reference. An empty text has cosine 0. With a tokenizer, lengths
    are compared in its tokens as well as in words.
    Intervals: bootstrap percentiles over the texts (1,000 resamples); for shares (exact match, length) Wilson's.
    Raises `InputError` for no texts, unequal numbers, or an empty reference.
    """
    table = per_text(references, texts, tokenizer=tokenizer)
    rows = [(name, *metric_interval(name, table[name], seed)) for name in table]
    rows.insert(1, ("bleu", *bleu_interval(references, texts)))
    if encoder is not None:
        rows.append(("cosine", *mean_interval(text_cosines(references, texts, encoder), seed)))
    frame = pd.DataFrame(rows, columns=["metric", "value", "low", "high"])
    return frame.assign(n=len(references))


def text_cosines(references: Sequence[str], texts: Sequence[str], encoder) -> np.ndarray:
    """Cosine of each text's vector to its reference's, [n]; 0 for an empty text, which has no vector."""
    cosines = np.zeros(len(references))
    written = [row for row, text in enumerate(texts) if text.strip()]
    if written:
        vectors = encoder.encode([references[row] for row in written])
        cosines[written] = reencoded_cosines(vectors, [texts[row] for row in written], encoder.encode)
    return cosines


def reencoded(texts: Sequence[str], encode: Callable[[list[str]], np.ndarray], embed_dim: int) -> np.ndarray:
    """Vectors of what was written, [n, embed_dim]; zero for an empty text, which is not encoded."""
    vectors = np.zeros((len(texts), embed_dim), np.float32)
    written = [row for row, text in enumerate(texts) if text.strip()]
    if written:
        vectors[written] = encode([texts[row] for row in written])
    return vectors


def reencoded_cosines(
    vectors: np.ndarray, texts: Sequence[str], encode: Callable[[list[str]], np.ndarray]
) -> np.ndarray:
    """Cosine of each text, encoded again, to its vector of [n, embed_dim]; 0 for an empty text."""
    again = reencoded(texts, encode, vectors.shape[1])
    empty = ~again.any(axis=1)
    return np.where(empty, 0.0, cosine(np.where(empty[:, None], vectors, again), vectors))


def ranks(vectors: np.ndarray, pool: np.ndarray, own: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """Place of the true text among the pool, [n]; 1 is the closest. Cosine; one that is as close stands before it.

    vectors: of what came back, [n, d]; pool: of all candidates, [m, d]; own: row of the true text in the pool, [n]
    (default: row by row).
    """
    own = np.arange(len(vectors)) if own is None else np.asarray(own)
    lengths = np.linalg.norm(pool, axis=1)
    if not lengths.all():
        raise InputError(f"row {int(np.flatnonzero(lengths == 0)[0])} of the pool is a zero vector")
    similarity = vectors @ (pool / lengths[:, None]).T
    # A zero vector, of an empty text, is as close to everything: last place.
    return (similarity >= similarity[np.arange(len(own)), own][:, None]).sum(axis=1)


def mean_interval(values: Iterable, seed: int = 0) -> tuple[float, float, float]:
    """Mean, low, high: the 95 % interval over the texts, by bootstrap percentiles."""
    values = np.asarray(list(values), float)
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return mean, mean, mean
    resampled = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return mean, float(resampled.low), float(resampled.high)


def share_interval(values: Iterable) -> tuple[float, float, float]:
    """Share of the ones among zeros and ones, low, high: Wilson's 95 % interval.

    A bootstrap of no success at all would claim certainty.
    """
    values = np.asarray(list(values), float)
    share = scipy.stats.binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
    return float(values.mean()), float(share.low), float(share.high)


def metric_interval(name: str, values: Iterable, seed: int = 0) -> tuple[float, float, float]:
    """The interval of one column of `per_text`: that of a share for the metrics that are 0 or 1 for every text."""
    return share_interval(values) if name in SHARES else mean_interval(values, seed)


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """How a figure and its interval are written.

    >>> with_interval(0.605, 0.596, 0.616, digits=2)
    '0.60 (0.60–0.62)'
    """
    return f"{value:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def interval(values: Iterable, name: str = "", seed: int = 0) -> tuple[float, float, float]:
    """Superseded by `mean_interval` and `share_interval`; goes with its last caller."""
    return metric_interval(name, values, seed)


def bleu_interval(references: Sequence[str], texts: Sequence[str]) -> tuple[float, float, float]:
    """Corpus BLEU (0–100) of the compared words, and its 95 % interval by sacrebleu's own bootstrap."""
    hypotheses = [" ".join(words(text)) for text in texts]
    targets = [[" ".join(words(reference)) for reference in references]]
    bleu = BLEU(tokenize="none", force=True)  # force: our words are tokenised, no warning about it
    result = bleu.corpus_score(hypotheses, targets, n_bootstrap=RESAMPLES)
    found = json.loads(result.format(signature=str(bleu.get_signature()), is_json=True))
    middle, half = found.get("confidence_mean", 0.0), found.get("confidence_var", 0.0)  # left out where the mean is 0
    return found["score"], max(0.0, middle - half), min(100.0, middle + half)


def _check(references: Sequence[str], texts: Sequence[str]) -> None:
    if isinstance(references, str) or isinstance(texts, str):
        raise InputError("expected lists of texts, got one string; put it in a list")
    if len(references) != len(texts):
        raise InputError(f"{len(references)} references but {len(texts)} texts; give one text per reference")
    if not references:
        raise InputError("there is nothing to score; give at least one reference")
    for row, (reference, text) in enumerate(zip(references, texts, strict=True)):
        for name, found in (("reference", reference), ("text", text)):
            if not isinstance(found, str):
                raise InputError(f"{name} {row} is {found!r}; expected a string, an empty one where nothing came back")
        if not words(reference):
            raise InputError(f"reference {row} is empty; remove it, there is nothing to recover")
