"""The encoder in the loop: drafts are re-encoded, compared with the vector and mended."""

from invlib.search.strategies import (
    BestOf,
    Encode,
    Found,
    Remask,
    Strategy,
    SwapBeam,
    Target,
    Tokens,
    Watch,
    improve,
)

__all__ = ["BestOf", "Encode", "Found", "Remask", "Strategy", "SwapBeam", "Target", "Tokens", "Watch", "improve"]
