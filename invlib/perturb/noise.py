"""Noise: Gaussian, bounded, and three kinds with a privacy budget ε.

What ε means here. It bounds how well *one stored vector* tells two texts apart; it says nothing about a text's words,
and it is spent again with every further vector of the same text. Papers measure it differently, so equal ε are not
equal noise: the analytic Gaussian's ε holds between *any* two texts; Laplace's and PurMech's ε is per unit of distance
(metric privacy), 2ε and πε between opposite vectors, and only becomes weak noise when ε is of the order of d.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.integrate import cumulative_trapezoid
from scipy.optimize import brentq
from scipy.special import log_ndtr, xlogy

from invlib.door.options import NOT_NEGATIVE, POSITIVE, number, within
from invlib.errors import require
from invlib.perturb.perturbation import Perturbation

GRID = 2**14  # points of the tabulated angle distribution


@dataclass(frozen=True)
class GaussianNoise(Perturbation):
    """y = x + σ z, z ~ N(0, I).

    sigma: standard deviation per coordinate. What it does depends on d: |σ z| ≈ σ√d beside the vector's length 1,
    so σ = 0.01 is 0.28 at d = 768 and 0.20 at d = 384 (Morris et al. 2023 sweep σ alone). The expected cosine to x is
    1 / √(1 + σ²d), up to relative terms of order σ and 1/√d.
    """

    sigma: float = within(NOT_NEGATIVE)
    name, measure, random = "Gaussian noise", "σ per coordinate", True

    def noise_norm(self, embed_dim: int) -> float:
        """σ√d, the root mean square length of the noise beside a vector of length 1."""
        return self.sigma * math.sqrt(embed_dim)

    def _store(self, vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return vectors + np.float32(self.sigma) * random.standard_normal(vectors.shape, np.float32)


@dataclass(frozen=True)
class BoundedNoise(Perturbation):
    """y = x + z, z uniform in the ball |z| ≤ radius: no vector moves further than promised.

    |z| = radius · u^(1/d) with u uniform on [0, 1], so that in high dimension nearly all of it is used
    (mean radius · d / (d + 1)). With radius < 1 the cosine is at least √(1 - radius²).
    """

    radius: float = within(NOT_NEGATIVE)
    name, measure, random = "bounded noise", "largest length of the noise", True

    def _store(self, vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        n, d = vectors.shape
        return moved(vectors, self.radius * random.uniform(size=(n, 1)) ** (1 / d), random)


@dataclass(frozen=True)
class AnalyticGaussian(Perturbation):
    """(ε, δ)-differentially private Gaussian noise, with the smallest σ that keeps the promise (Balle and Wang 2018).

    The mechanism is (ε, δ)-DP exactly when (their Theorem 8)
      Φ(Δ/2σ - εσ/Δ) - e^ε Φ(-Δ/2σ - εσ/Δ) ≤ δ.
    The classical σ = Δ √(2 ln(1.25/δ)) / ε is looser, and proven for ε ≤ 1 only.

    sensitivity Δ: how far apart two texts' vectors can be; 2 for unit vectors (local privacy: any text for any other).
    """

    epsilon: float = within(POSITIVE)
    delta: float = within(number(0, 1, above=True, below=True), default=1e-5)
    sensitivity: float = within(POSITIVE, default=2.0)
    name, measure, random = "analytic Gaussian", "ε between any two texts", True

    @property
    def sigma(self) -> float:
        """Standard deviation per coordinate."""
        # e^±30 brackets every ε and δ a float can hold apart; in the logarithm the root is well conditioned.
        middle = math.log(self.sensitivity)
        return math.exp(brentq(self._excess, middle - 30, middle + 30, xtol=1e-13))

    def _excess(self, log_sigma: float) -> float:
        return gaussian_delta(math.exp(log_sigma), self.epsilon, self.sensitivity) - self.delta

    @property
    def caution(self) -> str:
        return f"for one vector of a text, with δ = {self.delta:g}; k vectors of the same text spend up to k times ε"

    def _store(self, vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return GaussianNoise(self.sigma)._store(vectors, random)


def gaussian_delta(sigma: float, epsilon: float, sensitivity: float) -> float:
    """The δ that Gaussian noise of a given σ buys at a given ε: left side of Balle and Wang 2018, Theorem 8."""
    a, b = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
    # e^ε alone overflows from ε = 710 on; together with the tail probability it stays below 1.
    return math.exp(log_ndtr(a - b)) - math.exp(epsilon + log_ndtr(-a - b))


@dataclass(frozen=True)
class LaplaceNoise(Perturbation):
    """y = x + z with density ∝ e^(-ε|z|): ε|x - x'|-metric privacy (Feyisetan et al. 2020; LapMech of Du et al. 2023).

    Direction uniform, length ~ Gamma(shape d, scale 1/ε), so the mean length is d/ε.
    Coordinates drawn from independent Laplace distributions would give a promise in |x - x'|₁, not this one.
    """

    epsilon: float = within(POSITIVE)
    name, measure, random = "Laplace noise", "ε per unit of Euclidean distance", True

    @property
    def caution(self) -> str:
        return f"per unit of distance: up to ε = {2 * self.epsilon:g} between opposite vectors; compare ε/d, not ε"

    def _store(self, vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        n, d = vectors.shape
        return moved(vectors, random.gamma(d, 1 / self.epsilon, size=(n, 1)), random)


@dataclass(frozen=True)
class PurMech(Perturbation):
    """y on the unit sphere with density ∝ e^(-ε·angle(x, y)): ε·angle-metric privacy by the Purkayastha distribution
    (Weggenmann and Kerschbaum 2021; PurMech of Du et al. 2023).

    y = cos θ x + sin θ u: u is uniform on the unit sphere orthogonal to x, θ has density ∝ e^(-εθ) sin^(d-2) θ on
    [0, π]. With ε → 0 the vector is lost: θ → π/2. Its peak is at tan θ = (d - 2) / ε.
    """

    epsilon: float = within(POSITIVE)
    name, measure, random = "PurMech", "ε per radian", True

    @property
    def caution(self) -> str:
        return f"per radian: up to ε = {math.pi * self.epsilon:.4g} between opposite vectors; compare ε/d, not ε"

    def _store(self, vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        n, d = vectors.shape
        require(d >= 2, "the dimension", "at least 2 for PurMech", d)
        theta = purkayastha_angles(n, d, self.epsilon, random)[:, None]
        tangent = random.standard_normal((n, d))
        tangent -= (tangent * vectors).sum(axis=1, keepdims=True) * vectors
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        return (np.cos(theta) * vectors + np.sin(theta) * tangent).astype(np.float32)


def purkayastha_angles(n: int, embed_dim: int, epsilon: float, random: np.random.Generator) -> np.ndarray:
    """n draws in [0, π] from the density ∝ e^(-εθ) sin^(d-2) θ, by inversion of its tabulated distribution.

    Log-concave, it falls on both sides of its peak; beyond 25 of its widths there is less than 1e-9 of it.
    """
    peak = math.atan2(embed_dim - 2, epsilon)
    width = math.sin(peak) / math.sqrt(embed_dim - 2) if embed_dim > 2 else 1 / epsilon
    theta = np.linspace(max(0, peak - 25 * width), min(math.pi, peak + 25 * width), GRID)
    log_density = xlogy(embed_dim - 2, np.sin(theta)) - epsilon * theta
    distribution = cumulative_trapezoid(np.exp(log_density - log_density.max()), initial=0)
    return np.interp(random.uniform(size=n), distribution / distribution[-1], theta)


def moved(vectors: np.ndarray, lengths: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each vector moved by its length [n, 1] in a direction of its own, float32 [n, d]."""
    return (vectors + lengths * directions(*vectors.shape, random)).astype(np.float32)


def directions(n: int, embed_dim: int, random: np.random.Generator) -> np.ndarray:
    """n points uniform on the unit sphere, [n, d]: a Gaussian vector has no preferred direction (Muller 1959)."""
    points = random.standard_normal((n, embed_dim))
    return points / np.linalg.norm(points, axis=1, keepdims=True)
