"""Outcome: what came back of a run, word by word beside the original, what it cost, and the code that repeats it."""

from dataclasses import dataclass
from typing import Any

from invlib import metrics
from invlib.widgets.lab import verdict
from invlib.widgets.lab.alignment import AlignedPair, aligned
from invlib.widgets.lab.run import Run
from invlib.widgets.lab.settings import Settings


@dataclass(frozen=True)
class Outcome:
    """What came back. Where a run was stopped, what there was by then."""

    settings: Settings
    text: str
    cosine: float | None  # of the re-encoded text to the vector; None where it was not encoded
    verdict: tuple[str, str]  # its kind, and the line that a person reads
    scores: dict[str, float]  # of `metrics.PER_TEXT`; empty where a vector was the input
    pairs: list[AlignedPair]  # original and text, word by word
    changes: list[AlignedPair]  # the text before and this one; empty where they belong to other inputs
    model_calls: int
    encoder_queries: int
    seconds: float
    code: str | None  # repeats it; None for a run that was stopped
    note: str  # how it ended, where that was before its time

    @classmethod
    def of(cls, run: Run, before: "Outcome | None") -> "Outcome":
        """What a run gave. before: the outcome before it."""
        settings, text, last = run.settings, run.text, run.steps[-1]
        note = "" if run.is_whole else f"stopped at step {last.index} of {last.num_steps}"
        if run.error or (run.found and not run.is_whole):
            note = f"{run.error or 'the search was stopped'}; this is the best text by then"
        is_scored = settings.vector is None and metrics.words(settings.text)
        is_compared = before and before.text not in ("", text) and before.settings.is_same_input(settings)
        scores = {name: of(settings.text, text) for name, of in metrics.PER_TEXT.items()} if is_scored else {}
        pairs = aligned(settings.text, text) if is_scored else []
        changes = aligned(before.text, text) if is_compared else []
        told = verdict.of_text(pairs, settings.text, text) if is_scored else _of_vector(run)
        costs = (run.model_calls, run.encoder_queries, run.seconds)
        return cls(settings, text, run.cosine, told, scores, pairs, changes, *costs, None if note else code(run), note)


def _of_vector(run: Run) -> tuple[str, str]:
    return verdict.of_vector(run.cosine, run.draft_cosine)


def code(run: Run) -> str:
    """What gives the same text in a notebook of one's own."""
    settings, inverter = run.settings, run.inverter
    device, precision = str(inverter.model.device), inverter.model.precision
    device = "" if device == "cpu" else f", device={device!r}"
    dtype = "" if precision == "float32" else f", dtype=torch.{precision}"
    seeded = f"torch.Generator().manual_seed({settings.seed})"
    steering = {name: _spelled(value, inverter.tokenizer) for name, value in run.steering.items() if value}
    options = {name: repr(value) for name, value in (settings.options(inverter.corrects) | steering).items()}
    options |= {"policy": settings.policy, "generator": seeded}
    lines = [
        f"inverter = invlib.Inverter.load({inverter.name!r}{device}{dtype})",
        f"vectors = {_vectors(settings, inverter.config.embedding_cond_dim, seeded)}",
        f"result = inverter.invert(vectors, {', '.join(f'{name}={value}' for name, value in options.items())})",
    ]
    return "\n".join([*_imports(settings, inverter.corrects), "", *lines])


def _imports(settings: Settings, corrects: bool) -> list[str]:
    strategies = ", ".join(type(strategy).__name__ for strategy in settings.search(corrects))
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
