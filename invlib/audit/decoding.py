"""Decoding: how an audit writes texts. Few steps that do not double words, and a text's way back to its vector."""

import re
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from invlib.inverter import Inverter
from invlib.metrics import reencoded
from invlib.policies import Prediction, StepContext, Visible

STEPS = 5  # the last of them only for neighbours that waited; notebook 08 compares
BATCH = 256  # texts encoded at a time
_DOUBLED = re.compile(r"\b([^\W\d_]+)(?:\s+\1\b)+")


def apart(prediction: Prediction, context: StepContext) -> Visible:
    """The most probable proposals first, but of two neighbours with the same one the less probable waits.

    Written together, neither sees the other; the one that waits is asked again beside the one that stands.
    """
    tokens, masked = prediction.proposals, prediction.masked
    surety = prediction.confidence.masked_fill(~masked, 2.0)  # what stands is surer than any probability
    same = tokens[:, 1:] == tokens[:, :-1]
    left_waits = same & (surety[:, :-1] < surety[:, 1:])
    waits = torch.zeros_like(masked)
    waits[:, :-1] |= left_waits
    waits[:, 1:] |= same & ~left_waits
    among = masked & ~waits
    score = surety.masked_fill(~among, -1.0)
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return prediction.visible | among & (rank < context.quota(prediction)[:, None])


def settled_early(num_steps: int):
    """A time grid that ends one step before the last one, which is for those that waited."""
    return lambda progress: max(0.0, 1 - progress * num_steps / max(1, num_steps - 1))


def decoded(inverter: Inverter, vectors: np.ndarray, num_steps: int = STEPS) -> list[str]:
    """A text for each of the vectors [n, embed_dim], from them alone; a word that is written twice stands once."""
    options = {"num_steps": num_steps, "policy": apart, "grid": settled_early(num_steps), "keep_trajectories": False}
    return [_DOUBLED.sub(r"\1", text) for text in inverter.invert(vectors, **options).texts]


def ways_back(inverter: Inverter, vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """The texts encoded again, of unit length [n, embed_dim]; zero for an empty text."""
    again = reencoded(texts, partial(inverter.encoder.encode, batch_size=BATCH), vectors.shape[1])
    return again / np.maximum(np.linalg.norm(again, axis=1, keepdims=True), 1e-12)
