"""Membership: is this very text in there? One encode and a nearest neighbour, and how often that is wrong.

A near-duplicate of a stored text lies almost as close as the text itself. What a store's precision or noise leaves of
that difference is measured on texts that are certainly not inside: near-duplicates of known texts, made here, against
those texts as this store would keep them; and other texts against the store itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from invlib.metrics import share_interval

SIMULATED = 200  # texts whose near-duplicates are made
ALPHA = 0.01  # false-positive rate that a verdict is worth
INSIDE, NEAR, ABSENT = "inside", "inside, or a near-duplicate of it", "not found"
Encode = Callable[[list[str]], np.ndarray]  # texts → unit vectors [n, d]


@dataclass
class Membership:
    """Texts that are looked for, and the texts that say what a cosine is worth. `see` every row, then `table`."""

    texts: Sequence[str]
    encode: Encode
    known: Sequence[str]  # texts that are certainly not inside
    keep: Callable[[np.ndarray], np.ndarray] = lambda clean: clean  # unit vectors → as this store would hold them
    dim: int = 0  # coordinates that the store keeps
    is_sure: bool = True  # that the store holds them as `keep` does
    nearest: np.ndarray = field(init=False)  # cosine of each text's, then of each known text's, nearest row
    ids: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.texts) + len(self.known)
        self._asked, self.nearest = self.encode([*self.texts, *self.known]), np.full(count, -np.inf, np.float32)
        self.ids = np.full(count, None, object)

    def see(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        """Rows of the store: unit vectors [n, m], whole or cut to their first m coordinates."""
        self.dim = vectors.shape[1]
        cosines = vectors @ cut(self._asked, self.dim).T
        best = cosines.argmax(axis=0)
        found = cosines[best, np.arange(len(self.ids))]
        closer = found > self.nearest
        self.nearest[closer], self.ids[closer] = found[closer], np.asarray(ids, object)[best[closer]]

    def table(self) -> pd.DataFrame:
        """One row a text: text, cosine, id, verdict, and the false-positive rates with their intervals.

        near: share of near-duplicates of a stored text that come as close; other: of other texts; found: of texts that
        are inside, how many come as far as the verdict `inside` asks for; NaN where the store's ranges were estimated.
        """
        asked, other = np.split(self.nearest, [len(self.texts)])
        near, own = self._simulated()
        rates = {name: np.array([share_interval(null >= c) for c in asked]) for name, null in
                 (("near", near), ("other", other))}  # fmt: skip
        verdicts = np.select([rates["near"][:, 0] <= ALPHA, rates["other"][:, 0] <= ALPHA], [INSIDE, NEAR], ABSENT)
        table = pd.DataFrame({"text": self.texts, "cosine": asked, "id": self.ids[: len(asked)], "verdict": verdicts})
        for name, values in rates.items():
            table[[name, f"{name}_low", f"{name}_high"]] = values
        found = float((own > np.quantile(near, 1 - ALPHA)).mean())
        return table.assign(found=found if self.is_sure else np.nan)

    def _simulated(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosines of near-duplicates to the kept vectors of their texts, and of the texts themselves to those."""
        texts, own = [*self.texts, *self.known][-SIMULATED:], cut(self._asked[-SIMULATED:], self.dim)
        made = [(row, changed) for row, text in enumerate(texts) for changed in near_duplicates(text, texts[row - 1])]
        kept, rows = self.keep(own), [row for row, _ in made]
        changed = cut(self.encode([text for _, text in made]), self.dim)
        return (changed * kept[rows]).sum(axis=1), (own * kept).sum(axis=1)


def near_duplicates(text: str, other: str) -> list[str]:
    """The text with a word left out, two words exchanged, a word of another text, another number or an ending mark."""
    words, foreign = text.split(), other.split()
    middle = len(words) // 2
    changed = [words[:middle] + words[middle + 1 :], words[:middle] + foreign[-1:] + words[middle + 1 :]]
    changed.append(words[: middle - 1] + words[middle : middle + 1] + words[middle - 1 : middle] + words[middle + 1 :])
    marked = text[:-1] if text[-1] in ".!?" else f"{text}."
    counted = text.translate({ord(a): b for a, b in zip("0123456789", "1234567890", strict=True)})
    made = dict.fromkeys([*map(" ".join, changed), marked, counted])
    return [one for one in made if one.strip() and one.casefold() != text.casefold()]


def cut(vectors: np.ndarray, dim: int) -> np.ndarray:
    """The first `dim` coordinates, of unit length again."""
    part = vectors[:, :dim]
    return part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
