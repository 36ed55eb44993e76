"""Ledger: every text that was encoded on the way to one vector, and how many may still be."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import numpy as np
from jaxtyping import Float

from invlib.door.vectors import answers
from invlib.errors import InputError

Encode = Callable[[list[str]], np.ndarray]
Tokens = tuple[int, ...]

ROUNDING = 1e-6  # of 1 - cosine in fp32: a text's own vector lies within
NEAREST = 1e-4  # of 1 - cosine: few texts have another one nearer
DEVIATIONS = 3  # of the noise's length, within which nearly all vectors lie


def recognised_from(noise_level: float, embed_dim: int) -> float:
    """The cosine from which on a text is the text whose vector was kept with an error of length σ√d = noise_level.

    With Gaussian noise n the text itself has 1 - cosine = |n|² / 2, that is noise_level² / 2 · (1 ± z √(2 / d)) (the
    part of n along the vector does not turn it; χ² of d degrees). Where the spread of that is wider than what tells
    two texts apart, nothing is recognised: 2, which no cosine reaches, and a search spends its budget.
    """
    loss, spread = noise_level**2 / 2, noise_level**2 / 2 * DEVIATIONS * (2 / embed_dim) ** 0.5
    return 1 - ROUNDING - loss - spread if 2 * spread < NEAREST else 2.0


@dataclass(frozen=True)
class Found:
    """A text that was encoded, its tokens, its vector (unit length) and the cosine to the target."""

    text: str
    tokens: Tokens
    vector: np.ndarray = field(repr=False)
    cosine: float


@dataclass(eq=False)
class Ledger:
    """What was encoded, in order; no text twice, and never more than `max_queries`."""

    vector: Float[np.ndarray, "embed"]  # the one to invert, unit length
    encode: Encode  # texts → vectors [n, embed_dim]: an `Encoder.encode` or any function, such as a remote service
    decode: Callable[[Sequence[int]], str]
    _: KW_ONLY
    mask_token_id: int
    max_length: int
    pinned: Mapping[int, int]  # position → token id that every text must have
    max_queries: int = 0
    stop_cosine: float = 1 - ROUNDING  # a text this close is taken to be the text, see `recognised_from`
    found: dict[str, Found] = field(default_factory=dict)
    error: str | None = None  # what the encoder did wrong; that ends the search

    @property
    def queries(self) -> int:
        """Texts encoded so far."""
        return len(self.found)

    @property
    def left(self) -> int:
        """Texts that may still be encoded; none after an error or when the text is found."""
        is_over = self.error or (self.found and self.best(1)[0].cosine >= self.stop_cosine)
        return 0 if is_over else self.max_queries - self.queries

    def best(self, count: int) -> list[Found]:
        """The closest texts so far, best first."""
        return sorted(self.found.values(), key=lambda found: -found.cosine)[:count]

    def score(self, candidates: Iterable[Tokens]) -> list[Found | None]:
        """Encode what is new among the candidates, as far as the budget goes; None where it did not."""
        candidates = [tokens if self._is_allowed(tokens) else () for tokens in candidates]
        texts = [self.decode(tokens) for tokens in candidates]
        new = {text: tokens for text, tokens in zip(texts, candidates, strict=True) if text.strip()}
        asked = [text for text in new if text not in self.found][: max(0, self.left)]
        vectors = self._encoded(asked) if asked else ()
        for text, vector in zip(asked, vectors, strict=False):  # nothing came back after an error
            self.found[text] = Found(text, new[text], vector, float(vector @ self.vector))
        return [self.found.get(text) for text in texts]

    def _is_allowed(self, tokens: Tokens) -> bool:
        fits = 0 < len(tokens) <= self.max_length and self.mask_token_id not in tokens
        return fits and all(i < len(tokens) and tokens[i] == token for i, token in self.pinned.items())

    def _encoded(self, texts: list[str]) -> np.ndarray | tuple:
        try:
            vectors = np.asarray(self.encode(texts))
        except Exception as error:  # whatever a service raises: what was found so far must not be lost
            self.error = f"the encoder failed after {self.queries} queries ({type(error).__name__}: {error})"
            return ()
        if vectors.shape[1:] != self.vector.shape and not self.found:
            raise InputError(
                f"the encoder gives vectors of shape {vectors.shape[1:]}, the one to invert has {self.vector.shape}; "
                "search with the encoder that made it"
            )
        try:
            return answers(vectors, len(texts), len(self.vector))
        except InputError as error:
            self.error = f"{error}, after {self.queries} queries"
            return ()
