"""Code: the imports and the three lines that repeat a run."""

from typing import Any

import torch

from invlib.widgets.lab.run import Run
from invlib.widgets.lab.settings import Settings


def code(run: Run) -> str:
    """What gives the same text in a notebook of one's own."""
    settings, inverter = run.settings, run.inverter
    device, dtype = str(inverter.model.device), next(inverter.model.parameters()).dtype
    device = "" if device == "cpu" else f", device={device!r}"
    dtype = "" if dtype == torch.float32 else f", dtype={dtype}"
    seeded = f"torch.Generator().manual_seed({settings.seed})"
    steering = {name: _spelled(value, inverter.tokenizer) for name, value in run.steering.items() if value}
    options = {name: repr(value) for name, value in (settings.options | steering).items()}
    options |= {"policy": settings.policy, "generator": seeded}
    lines = [
        f"inverter = invlib.Inverter.load({inverter.name!r}{device}{dtype})",
        f"vectors = {_vectors(settings, inverter.config.embedding_cond_dim, seeded)}",
        f"result = inverter.invert(vectors, {', '.join(f'{name}={value}' for name, value in options.items())})",
    ]
    return "\n".join([*_imports(settings), "", *lines])


def _imports(settings: Settings) -> list[str]:
    strategies = ", ".join(type(strategy).__name__ for strategy in settings.search)
    needed = {
        "import numpy as np": settings.vector is not None and not settings.is_clean,
        "import torch\n\nimport invlib": True,
        "from invlib import perturb": not settings.is_clean,
        f"from invlib.policies import {settings.policy}": True,
        f"from invlib.search import {strategies}": settings.max_queries > 0,
    }
    return [line for line, is_needed in needed.items() if is_needed]


def _vectors(settings: Settings, embed_dim: int, seeded: str) -> str:
    is_text = settings.vector is None
    given = f"inverter.encoder.encode([{settings.text!r}])" if is_text else f"[{list(settings.vector)!r}]"
    if settings.is_clean:
        return given
    unit = given if is_text else f"perturb.unit(np.array({given}))"
    return f"perturb.apply(perturb.{settings.disturbance(embed_dim)!r}, {unit}, {seeded}).vectors"


def _spelled(value: Any, tokenizer: Any) -> Any:
    """Tokens by position as pieces where these alone name them, else as ids; numbers as they are."""
    if not isinstance(value, dict):
        return value
    pieces = zip(sorted(value.items()), tokenizer.pieces([value[i] for i in sorted(value)]), strict=True)
    return {i: piece if tokenizer.ids_of(piece) == [token] else token for (i, token), piece in pieces}
