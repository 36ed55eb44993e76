"""Code: the imports and the three lines that repeat a run."""

from typing import Any

import torch

from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.widgets.lab.run import Run
from invlib.widgets.lab.settings import Settings


def code(run: Run) -> str:
    """What gives the same text in a notebook of one's own."""
    settings, inverter = run.settings, run.inverter
    seeded = _Name(f"torch.Generator().manual_seed({settings.seed})")
    named = {"policy": _Name(settings.policy), "generator": seeded}
    options = settings.options | _spelled(run.steering, inverter) | named
    lines = [
        f"inverter = invlib.Inverter.load({_load(inverter)})",
        f"vectors = {_vectors(settings, inverter.config.embedding_cond_dim, seeded)}",
        f"result = inverter.invert(vectors, {', '.join(f'{name}={value!r}' for name, value in options.items())})",
    ]
    return "\n".join([*_imports(settings), "", *lines])


class _Name(str):
    """Code that stands for itself: its repr has no quotation marks."""

    def __repr__(self) -> str:
        return str(self)


def _imports(settings: Settings) -> list[str]:
    needs_numpy = settings.vector is not None and not settings.is_clean
    lines = [*(["import numpy as np"] if needs_numpy else []), "import torch", "", "import invlib"]
    if not settings.is_clean:
        lines.append("from invlib import perturb")
    lines.append(f"from invlib.policies import {settings.policy}")
    if settings.max_queries:
        lines.append(f"from invlib.search import {', '.join(type(s).__name__ for s in settings.search)}")
    return lines


def _load(inverter: Inverter) -> str:
    model, arguments = inverter.model, [repr(inverter.name)]
    if model.device.type != "cpu":
        arguments.append(f"device={str(model.device)!r}")
    dtype = next(model.parameters()).dtype
    return ", ".join(arguments if dtype == torch.float32 else [*arguments, f"dtype={dtype}"])


def _vectors(settings: Settings, embed_dim: int, seeded: str) -> str:
    is_text = settings.vector is None
    given = f"inverter.encoder.encode([{settings.text!r}])" if is_text else f"[{list(settings.vector)!r}]"
    if settings.is_clean:
        return given
    unit = given if is_text else f"perturb.unit(np.array({given}))"
    return f"perturb.apply(perturb.{settings.disturbance(embed_dim)!r}, {unit}, {seeded}).vectors"


def _spelled(steering: dict[str, Any], inverter: Inverter) -> dict[str, Any]:
    """The steering in words, as far as there is any."""
    spelled = {name: value for name, value in steering.items() if value}
    for name in {"pinned", "start"} & set(spelled):
        spelled[name] = {i: _word(token, inverter) for i, token in sorted(spelled[name].items())}
    return spelled


def _word(token: int, inverter: Inverter) -> int | str:
    """The piece, where it alone names the token; else the id."""
    (piece,) = inverter.tokenizer.pieces([token])
    try:
        return piece if inverter.token_id(piece) == token else token
    except InputError:
        return token
