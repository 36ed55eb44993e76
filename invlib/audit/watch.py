"""Watch-words: which of these are likely inside, in how many rows, and where first? One linear map a vector."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from invlib.errors import InputError
from invlib.words import WordMap

LIKELY = 0.5


@dataclass
class Watch:
    """Words and phrases that are looked for. `see` every row, then `table`.

    Raises `InputError` where the map can spell none of them.
    """

    words: Sequence[str]
    map: WordMap
    rows: int = 0
    expected: np.ndarray = field(init=False)  # number of rows with the word
    variance: np.ndarray = field(init=False)
    likely: np.ndarray = field(init=False)  # rows in which it is rather there than not
    surest: np.ndarray = field(init=False)  # the highest chance of a row
    ids: np.ndarray = field(init=False)  # that row

    def __post_init__(self) -> None:
        self.expected, self.variance, self.likely, self.surest = np.zeros((4, len(self.words)))
        self.ids = np.full(len(self.words), None, object)
        if not any(map(self.map.rows_of, self.words)):
            raise InputError(f"the word map knows none of the {len(self.words)} watch-words; expected one a line")

    def see(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        """Rows of the store: unit vectors [n, embed_dim]."""
        chances = self.map.chances(vectors, self.words)
        self.rows += len(chances)
        self.expected += chances.sum(axis=0)
        self.variance += (chances * (1 - chances)).sum(axis=0)
        self.likely += (chances >= LIKELY).sum(axis=0)
        best = np.nan_to_num(chances).argmax(axis=0)
        found = chances[best, np.arange(len(self.words))]
        surer = found > self.surest
        self.surest[surer], self.ids[surer] = found[surer], np.asarray(ids, object)[best[surer]]

    def table(self) -> pd.DataFrame:
        """One row a word, the most expected first: word, share of rows and its interval, likely rows, surest, id.

        The interval holds chance (95 %) and by how much told chances were off, in sum, on held-out texts.
        """
        spread, (under, over) = 1.96 * np.sqrt(self.variance), self.map.about["off"]
        low, high = np.maximum(0, self.expected * under - spread), self.expected * over + spread
        shares = {name: own / max(1, self.rows) for name, own in
                  (("share", self.expected), ("share_low", low), ("share_high", high.clip(max=self.rows)))}  # fmt: skip
        found = pd.DataFrame({"word": self.words, **shares, "general": self.map.general(self.words)})
        found = found.assign(likely=self.likely.astype(int), surest=self.surest, id=self.ids)
        return found.sort_values("share", ascending=False, ignore_index=True)
