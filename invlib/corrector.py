"""Corrector: what a denoiser hears of the last try at a text, a hypothesis that the encoder has seen."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from invlib.config import ModelConfig
from invlib.products.linear import Linear

NOISE_RATES = tuple(2.0**k for k in range(-2, 6))  # per unit of distance: from far to near

Vectors = Float[Tensor, "batch embed"]
Lengths = Int[Tensor, "batch"]


@dataclass(frozen=True)
class Hypothesis:
    """The last try at the texts behind some vectors, and how the encoder saw it: what a corrector hears.

    tokens: [batch, max_seq_len], padded with any token. vectors: of the texts that they spell, unit length.
    """

    tokens: Int[Tensor, "batch length"]
    lengths: Lengths
    vectors: Vectors

    def rows(self, index) -> "Hypothesis":
        """That of some rows of the batch (slice, index or boolean mask), or rows repeated."""
        return Hypothesis(self.tokens[index], self.lengths[index], self.vectors[index])


class Corrector(nn.Module):
    """Hears a hypothesis: its tokens at their places, its length, its vector, and how far that lies from the one to
    invert and in which direction (hypothesis and residual, vec2text, Morris et al. 2023, §4). A new one says nothing.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        inputs = 2 * config.embedding_cond_dim + len(NOISE_RATES) + config.max_seq_len
        self.hear = Linear(inputs, config.corrector_dim)
        self.to_condition = _silent(config.corrector_dim, config.hidden_dim)
        self.to_places = _silent(config.hidden_dim, config.hidden_dim)
        self.to_length = _silent(config.corrector_dim, config.length_dim or config.hidden_dim)

    def forward(self, residual: Vectors, seen: Vectors, lengths: Lengths) -> Float[Tensor, "batch corrector"]:
        """residual: from the hypothesis' vector to the one to invert; seen: the hypothesis' vector, standardised."""
        distance = residual.norm(dim=1)
        direction = F.normalize(residual, dim=1) * residual.shape[1] ** 0.5
        width = self.hear.in_features - 2 * residual.shape[1] - len(NOISE_RATES)
        parts = direction, seen, rates_of(distance), F.one_hot(lengths - 1, width)
        return F.gelu(self.hear(torch.cat([part.to(seen.dtype) for part in parts], dim=1)))


def rates_of(distance: Float[Tensor, "batch"]) -> Float[Tensor, "batch rate"]:
    """1 - exp(-rate · distance) of every rate: all zero at a distance of 0, each of another resolution."""
    rates = NOISE_RATES[0] * 2.0 ** torch.arange(len(NOISE_RATES), device=distance.device)
    return 1 - torch.exp(-distance.float()[:, None] * rates)


def _silent(inputs: int, outputs: int) -> Linear:
    layer = Linear(inputs, outputs, bias=False)
    nn.init.zeros_(layer.weight)
    return layer
