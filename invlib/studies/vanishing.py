"""Vanishing: which kinds of words still come back as noise grows, beside what chance finds."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd
import torch

from invlib.inverter import Inverter
from invlib.metrics import share_interval, words
from invlib.perturb import GaussianNoise, apply

COMMON = 30  # of the most frequent words of the texts


def kind_of(word: str, is_first: bool, common: set[str]) -> str:
    """number: anything with a digit; name: a capital where no sentence begins; common; other."""
    if any(character.isdigit() for character in word):
        return "number"
    if word[0].isupper() and not is_first and word != "I":
        return "capitalised"
    return "common" if words(word)[0] in common else "other"


def words_kept(texts: Sequence[str], recovered: Sequence[str]) -> pd.DataFrame:
    """One row per word of the texts: its kind, did it come back, does it stand in the next text's recovery (chance)."""
    counted = Counter(word for text in texts for word in words(text) if word.isalpha())
    common, rows = {word for word, _ in counted.most_common(COMMON)}, []
    for text, own, other in zip(texts, recovered, [*recovered[1:], *recovered[:1]], strict=True):
        came, chance = set(words(own)), set(words(other))
        for place, word in enumerate(text.split()):
            if pieces := set(words(word)):
                rows.append((kind_of(word, place == 0, common), float(pieces <= came), float(pieces <= chance)))
    return pd.DataFrame(rows, columns=["kind", "kept", "by chance"])


def under_noise(inverter: Inverter, texts: Sequence[str], sigmas: Sequence[float], num_steps: int = 4) -> pd.DataFrame:
    """Share of the words of each kind that come back through Gaussian noise: sigma, kind, found, value, low, high, n.

    found: "kept", or "by chance", which has no interval.
    """
    clean, parts = inverter.encoder.encode(list(texts)), []
    for sigma in sigmas:
        seen = apply(GaussianNoise(sigma), clean, torch.Generator().manual_seed(0)).vectors
        found = inverter.invert(seen, num_steps=num_steps, keep_trajectories=False).texts
        for kind, own in words_kept(texts, found).groupby("kind"):
            chance = (own["by chance"].mean(),) * 3
            for name, interval in (("kept", share_interval(own["kept"])), ("by chance", chance)):
                parts.append((sigma, kind, name, *interval, len(own)))
    return pd.DataFrame(parts, columns=["sigma", "kind", "found", "value", "low", "high", "n"])
