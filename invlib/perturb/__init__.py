"""What happens to a vector: a perturbation is a frozen value that says what a store would hold, and the way back.

>>> import numpy as np, torch
>>> from invlib import perturb
>>> clean = perturb.unit(np.array([[3.0, 4.0], [1.0, 0.0]]))
>>> seen = perturb.apply(perturb.GaussianNoise(0.05), clean, torch.Generator().manual_seed(0))
>>> seen.stored.shape, seen.vectors.shape, seen.cosines.shape
((2, 2), (2, 2), (2,))
"""

from invlib.perturb.mix import Averaging, Interpolation, interpolate
from invlib.perturb.noise import AnalyticGaussian, BoundedNoise, GaussianNoise, LaplaceNoise, PurMech
from invlib.perturb.perturbation import Perturbation, Perturbed, Unchanged, apply, check_unit, distortion, unit
from invlib.perturb.quantise import (
    AbsmaxQuantisation,
    Binary,
    HalfPrecision,
    ProductQuantisation,
    ZeroPointQuantisation,
)
from invlib.perturb.reduce import CoordinateDropout, PrincipalComponents, RandomProjection, Truncation
from invlib.perturb.secret import (
    KnownPairs,
    SecretPermutation,
    SecretRotation,
    least_squares,
    match_columns,
    procrustes,
)
from invlib.perturb.unpaired import match_distributions, turn_back

__all__ = ["Perturbation", "Perturbed", "Unchanged", "apply", "check_unit", "distortion", "unit"]
__all__ += ["AnalyticGaussian", "BoundedNoise", "GaussianNoise", "LaplaceNoise", "PurMech"]
__all__ += ["AbsmaxQuantisation", "Binary", "HalfPrecision", "ProductQuantisation", "ZeroPointQuantisation"]
__all__ += ["CoordinateDropout", "PrincipalComponents", "RandomProjection", "Truncation"]
__all__ += ["Averaging", "Interpolation", "interpolate"]
__all__ += ["KnownPairs", "SecretPermutation", "SecretRotation", "least_squares", "match_columns", "procrustes"]
__all__ += ["match_distributions", "turn_back"]
