"""View: the vector that is inverted, as a person sees it."""

from dataclasses import dataclass

import numpy as np
import torch

from invlib import perturb
from invlib.inverter import check_vectors
from invlib.widgets.lab.settings import Settings


@dataclass(frozen=True)
class View:
    """A vector, and what a store holds of it."""

    vector: np.ndarray  # [embed_dim] float32 of unit length: what the attacker inverts
    norm: float  # of what the store holds
    stored: int  # numbers in the store
    cosine: float  # to the clean vector; 1 where nothing happened to it

    @classmethod
    def of(cls, given: np.ndarray, settings: Settings, embed_dim: int) -> "View":
        """What the settings make of a vector [1, n], as it was encoded or pasted.

        Raises the `InputError` of a vector that does not fit.
        """
        vectors = check_vectors(given, embed_dim)
        if settings.is_clean:
            return cls(vectors[0], float(np.linalg.norm(given)), embed_dim, 1.0)
        clean = given if settings.vector is None else perturb.unit(given)
        generator = torch.Generator().manual_seed(settings.seed)
        seen = perturb.apply(settings.perturb(embed_dim), clean, generator)
        stored = seen.stored[0].astype(np.float64)
        vector = check_vectors(seen.vectors, embed_dim)[0]
        return cls(vector, float(np.linalg.norm(stored)), len(stored), float(seen.cosines[0]))
