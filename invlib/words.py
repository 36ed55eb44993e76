"""Word map: which words a text holds, read from its vector by one linear map, whatever the text's length.

Factorised and log-linear (FLiP, arXiv 2604.18109): the log-odds that a piece of the encoder's vocabulary stands in the
text are bias + up · down · vector. Pieces, not whole words: the encoder reads nothing else, and a rare name is some.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.special import expit

from invlib.checkpoint import BUNDLED
from invlib.door.files import check_sums, reading, write_atomically
from invlib.door.vectors import check_vectors
from invlib.errors import InputError

FILE = "words.safetensors"
ROWS = 2048  # vectors that are mapped at once


@dataclass(frozen=True)
class WordMap:
    """The map of one encoder; `invlib.training.words` fits it."""

    tokenizer: Any  # the encoder's
    ids: torch.Tensor  # its piece of each row [n]
    down: torch.Tensor  # [embed_dim, rank]
    up: torch.Tensor  # [n, rank], in the file int8
    scale: torch.Tensor  # of each row of `up` [n]
    bias: torch.Tensor  # [n]
    share: torch.Tensor  # of the training's texts that hold it [n]
    is_name: torch.Tensor  # is it mostly written with a capital? [n]
    sure: torch.Tensor  # intercept and slope of the log-odds, for one piece and for several [2, 2]
    about: dict  # encoder, number of texts, off: texts with a word for one that was told, at the least and the most

    @classmethod
    def load(cls, encoder: Any, path: str | Path | None = None) -> "WordMap":
        """path: folder of the map; default: the bundled one. Raises `InputError` where there is none, or another's."""
        path = Path(path or BUNDLED / f"{encoder.name}_words") / FILE
        if not path.is_file():
            raise InputError(f"no word map at {path}; make one with `python -m invlib.training words`")
        check_sums(path.parent)
        with reading(path, "cannot be read as a word map", "fetch it again"), safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found = cls(encoder.tokenizer, **held, about=about)
        if about["encoder"] != encoder.name:
            raise InputError(f"{path} is the map of {about['encoder']!r}, this encoder is {encoder.name!r}")
        return found

    @classmethod
    def near(cls, encoder: Any) -> "WordMap | None":
        """The bundled one of an encoder; None where there is none."""
        name = getattr(encoder, "name", None)
        return cls.load(encoder) if name and (BUNDLED / f"{name}_words" / FILE).is_file() else None

    def save(self, folder: Path) -> None:
        """Write `words.safetensors`, with `up` in int8."""
        scale = self.up.abs().amax(dim=1).clamp_min(1e-8) / 127
        held = {name: getattr(self, name) for name in ("ids", "bias", "share", "is_name", "sure")}
        held |= {"down": self.down.half(), "up": (self.up / scale[:, None]).round().to(torch.int8), "scale": scale}
        about = {"about": json.dumps(self.about)}
        write_atomically(folder / FILE, lambda path: save_file(held, path, metadata=about))

    @torch.inference_mode()
    def log_odds(self, vectors: Any, rows: torch.Tensor) -> Iterator[torch.Tensor]:
        """Of some pieces [m], [≤ ROWS, m] at a time. vectors: [n, embed_dim]; raises as `Inverter.invert`."""
        up = self.down.float() @ (self.up[rows].float() * self.scale[rows, None]).T
        for part in torch.from_numpy(check_vectors(vectors, len(self.down))).split(ROWS):
            yield torch.addmm(self.bias[rows], part, up)

    def chances(self, vectors: Any, words: Sequence[str]) -> np.ndarray:
        """Calibrated chance that each word or phrase stands in each text, [n, words]; NaN for one the map cannot spell.

        A phrase is as likely as the least likely of its pieces, and its chance is calibrated for itself.
        """
        spelled = [self.rows_of(word) for word in words]
        start, slope = self.sure[[int(len(own or ()) > 1) for own in spelled]].numpy().T
        return expit(start + slope * self.odds(vectors, spelled))

    def odds(self, vectors: Any, spelled: Sequence[list[int] | None]) -> np.ndarray:
        """Log-odds of the least likely of each list of pieces, [n, lists]; NaN for None."""
        rows = sorted({row for own in spelled for row in own or ()})
        place, found = {row: at for at, row in enumerate(rows)}, []
        for odds in self.log_odds(vectors, torch.tensor(rows, dtype=torch.long)):
            nothing = odds.new_full((len(odds),), torch.nan)
            least = [odds[:, [place[row] for row in own]].amin(dim=1) if own else nothing for own in spelled]
            found.append(torch.stack(least, dim=1))
        return torch.cat(found).numpy()

    def rows_of(self, word: str) -> list[int] | None:
        """The rows of the pieces of a word or phrase; None where one is not among the map's, or the word has none."""
        found = [self._place.get(piece) for piece in self.tokenizer(word, add_special_tokens=False)["input_ids"]]
        return None if None in found or not found else found

    def bags(self, vectors: Any) -> list[list[str]]:
        """The most probable words of each text, the most probable first; as many as the map expects of different ones.

        Pieces inside of words are left out.
        """
        found, (start, slope) = [], self.sure[0]
        for odds in self.log_odds(vectors, self._whole):
            most = (start + slope * odds).sigmoid().sum(dim=1).round().int().clamp_min(1).tolist()
            order = odds.topk(max(most), dim=1).indices.tolist()
            found += [[self.words[row] for row in own[:k]] for own, k in zip(order, most, strict=True)]
        return found

    def ranked(self, vectors: Any, wanted: Callable[[str], bool], most: int) -> list[list[str]]:
        """The `most` most probable of the wanted words of each text."""
        rows = [row for row, word in enumerate(self.words) if wanted(word)]
        order = [odds.topk(most, dim=1).indices for odds in self.log_odds(vectors, self._whole[rows])]
        return [[self.words[rows[at]] for at in own] for own in torch.cat(order).tolist()]

    def general(self, words: Sequence[str]) -> np.ndarray:
        """Share of the training's texts with each word, or with the rarest piece of it [n]; NaN as in `chances`."""
        rarest = [self.share[rows].min() if (rows := self.rows_of(word)) else np.nan for word in words]
        return np.array(rarest, np.float32)

    def is_common(self, word: str) -> bool:
        """Is a word one piece of the map, and no name?"""
        rows = self.rows_of(word)
        return rows is not None and len(rows) == 1 and not self.is_name[rows[0]]

    @cached_property
    def words(self) -> list[str]:
        """The pieces that are whole words."""
        return self.tokenizer.convert_ids_to_tokens(self.ids[self._whole].tolist())

    @cached_property
    def _whole(self) -> torch.Tensor:
        pieces = self.tokenizer.convert_ids_to_tokens(self.ids.tolist())
        return torch.tensor([row for row, piece in enumerate(pieces) if not piece.startswith("##")])

    @cached_property
    def _place(self) -> dict[int, int]:
        return {piece: row for row, piece in enumerate(self.ids.tolist())}
