"""mixer(inverter, first, second): whom does each layer listen to, and what does the sentence become?"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
import traitlets

from invlib import metrics
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.model import Modulation
from invlib.perturb import interpolate
from invlib.probes import FINAL, PARTS
from invlib.sampler import denoise
from invlib.widgets import page

CHOICES = ("mix", "first", "second", "off")  # what a layer can hear
WEIGHTS = [round(tenths / 10, 1) for tenths in range(11)]
MAX_CHARACTERS = 1000
Request = tuple[float, Sequence[str]]  # weight of the second vector, what each part hears


class Mixture:
    """Two sentences before one denoiser, and every text that their vectors give in between."""

    def __init__(self, inverter: Inverter, first: str, second: str):
        """Raises `InputError` for an empty or an overlong sentence."""
        for which, text in (("first", first), ("second", second)):
            if not text.strip():
                raise InputError(f"the {which} sentence is empty; write one")
            if len(text) > MAX_CHARACTERS:
                raise InputError(f"the {which} sentence has {len(text)} characters; at most {MAX_CHARACTERS} are read")
        self.inverter, self.texts = inverter, (first, second)
        self.vectors = inverter.encoder.encode([first, second])
        self.parts = [*map(str, range(inverter.config.num_layers)), FINAL]
        self.plain = ["mix"] * len(self.parts)  # nothing is changed: every layer hears the mixed vector
        self.told = {"first": first, "second": second, "parts": self.parts}
        own = self._modulation(self.vectors)
        self.instead = {"first": own.rows([0]), "second": own.rows([1]), "off": own.rows([0]).zeros()}
        self.sources = [{token for token, _ in row} for row in self._written(own, self.vectors)]

    def views(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        """What the model writes for each request, as the page draws it.

        tokens: [piece, probability when written in thousandths, in the first's text, in the second's text], …
        cosines: of the text, encoded again, to the first and the second vector; 0 for an empty text
        levels: RMS of gate, scale and shift per part; null where the part has none
        """
        vectors = np.concatenate([interpolate(*self.vectors[:, None], weight) for weight, _ in requests])
        mixed = self._modulation(vectors)
        chosen = [self._chosen(mixed.rows([row]), choices) for row, (_, choices) in enumerate(requests)]
        written = self._written(Modulation.cat(chosen), vectors)
        texts = [self.inverter.tokenizer.decode([token for token, _ in row]) for row in written]
        again = metrics.reencoded(texts, self.inverter.encoder.encode, vectors.shape[1])
        return [
            {
                "weight": weight,
                "choices": list(choices),
                "tokens": [
                    [*self.inverter.tokenizer.pieces([token]), round(1000 * p), *(token in a for a in self.sources)]
                    for token, p in written[row]
                ],
                "text": texts[row],
                "cosines": (self.vectors @ again[row]).round(3).tolist(),
                "levels": _levels(chosen[row]),
            }
            for row, (weight, choices) in enumerate(requests)
        ]

    def one_change_each(self) -> list[Request]:
        """Every tenth of the way with all layers in agreement; at its start, each part alone hearing something else."""
        changes = product(range(len(self.parts)), ("second", "off"))
        alone = [(0.0, [*self.plain[:part], choice, *self.plain[part + 1 :]]) for part, choice in changes]
        return [*((weight, self.plain) for weight in WEIGHTS), *alone]

    def request(self, weight: Any, choices: Sequence[str]) -> Request:
        """What a page asks for. Raises `InputError` for what cannot be mixed."""
        if not isinstance(weight, int | float) or not 0 <= weight <= 1:
            raise InputError(f"the weight of the second vector lies between 0 and 1, got {weight!r}")
        if len(choices) != len(self.parts) or not set(choices) <= set(CHOICES):
            raise InputError(f"each of {len(self.parts)} parts hears one of {', '.join(CHOICES)}; got {choices!r}")
        return float(weight), list(choices)

    @torch.inference_mode()
    def _modulation(self, vectors: np.ndarray) -> Modulation:
        return self.inverter.model.modulation(torch.from_numpy(vectors).to(self.inverter.model.device))

    def _chosen(self, modulation: Modulation, choices: Sequence[str]) -> Modulation:
        for part, choice in enumerate(choices):
            if choice != "mix":
                other, is_final = self.instead[choice], part == len(choices) - 1
                modulation = modulation.with_final(other) if is_final else modulation.with_layer(part, other)
        return modulation

    def _written(self, modulation: Modulation, vectors: np.ndarray) -> list[list[tuple[int, float]]]:
        """Tokens with their probabilities when written, each row as long as its vector says."""
        model, mask = self.inverter.model, self.inverter.config.mask_token_id
        lengths = torch.from_numpy(self.inverter.predict_lengths(vectors)).to(model.device)
        *_, last = denoise(model.predictor(modulation, lengths), lengths, mask_token_id=mask, num_steps=8, top_k=0)
        rows = zip(last.tokens.tolist(), last.confidence.tolist(), lengths.tolist(), strict=True)
        return [list(zip(tokens[:n], confidence[:n], strict=True)) for tokens, confidence, n in rows]


class Mixer(page.Pane):
    """`wanted` is what the person asks for, `view` the answer."""

    _esm = page.script("mixer")
    _css = page.style("mixer")
    wanted = traitlets.Dict().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)

    def __init__(self, mixture: Mixture):
        self.mixture = mixture
        super().__init__(view=self._answer(0.0, mixture.plain))
        self.observe(self._asked, "wanted")

    def _asked(self, change: dict) -> None:
        asked = change["new"]
        try:
            texts = (asked["first"], asked["second"])
            if texts != self.mixture.texts:
                self.mixture = Mixture(self.mixture.inverter, *texts)
            answer = self._answer(*self.mixture.request(asked["weight"], asked["choices"]))
        except InputError as error:
            answer = {**self.view, "error": str(error)}
        self.view = {**answer, "number": asked.get("number")}

    def _answer(self, weight: float, choices: Sequence[str]) -> dict[str, Any]:
        (view,) = self.mixture.views([(weight, choices)])
        return view | self.mixture.told

    def static(self) -> tuple[str, str]:
        return static_html(self.mixture), self.view["text"]


def mixer(inverter: Inverter, first: str, second: str) -> Mixer:
    """Mix the vectors of two sentences, let single layers hear one of them or nothing, and see what is written.

    Raises `InputError` for a sentence that is empty or longer than 1,000 characters.
    """
    return Mixer(Mixture(inverter, first, second))


def static_html(mixture: Mixture) -> str:
    """The mixer for a page without a kernel: it knows one change at a time; without scripts, all are listed."""
    views = mixture.views(mixture.one_change_each())
    first, second = mixture.texts
    lines = [f"A  {first}", f"B  {second}", "", *(f"{_said(view, mixture.parts):28} {view['text']}" for view in views)]
    return page.static_html("mixer", mixture.told | {"views": views}, lines)


def _levels(modulation: Modulation) -> list[list[float | None]]:
    """RMS of gate, scale and shift for every layer and the final norm."""
    nothing = [None] * modulation.scale.shape[1]
    parts = [nothing if (v := getattr(modulation, name)) is None else _rms(v[0].flatten(1)) for name in PARTS]
    return [*map(list, zip(*parts, strict=True)), [None, *_rms(modulation.final_scale), *_rms(modulation.final_shift)]]


def _rms(values: torch.Tensor) -> list[float]:
    return [round(value, 3) for value in values.float().square().mean(dim=1).sqrt().tolist()]


def _said(view: dict, parts: Sequence[str]) -> str:
    """A request in words, for the page that runs no script."""
    for part, choice in zip(parts, view["choices"], strict=True):
        if choice != "mix":
            where = part if part == FINAL else f"layer {part}"
            return f"{where} {'off' if choice == 'off' else 'hears B'}"
    return f"{view['weight']:.0%} B"
