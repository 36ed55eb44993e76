"""mixer(inverter, first, second): whom does each layer listen to, and what does the sentence become?"""

import hashlib
import json
from collections.abc import Sequence
from html import escape
from itertools import product
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets

from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import cosine
from invlib.model import Modulation
from invlib.perturb import interpolate
from invlib.probes import FINAL, PARTS
from invlib.sampler import denoise

SCRIPT = Path(__file__).with_name("mixer.js")
STYLE = Path(__file__).with_name("mixer.css")
CHOICES = ("mix", "first", "second", "off")  # what a layer can hear
WEIGHTS = [round(tenths / 10, 1) for tenths in range(11)]
MAX_CHARACTERS = 1000


class Pair:
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
        with torch.inference_mode():
            own = inverter.model.modulation(torch.from_numpy(self.vectors).to(inverter.model.device))
        self.heard = {"first": own.rows([0]), "second": own.rows([1]), "off": own.rows([0]).zeros()}
        tokens = self._written(own, self.vectors)[0]
        self.sources = [set(inverter.tokenizer.pieces(row)) for row in tokens]

    @property
    def plain(self) -> list[str]:
        """The choices of which nothing is changed: every layer hears the mixed vector."""
        return ["mix"] * len(self.parts)

    def views(self, requests: Sequence[tuple[float, Sequence[str]]]) -> list[dict[str, Any]]:
        """What the model writes for each (weight of the second vector, what each part hears), as the page draws it.

        tokens: [piece, probability when written in thousandths, in the first's text, in the second's text], …
        levels: RMS of gate, scale and shift per part; null where the part has none
        """
        first, second = self.vectors[:, None]
        vectors = np.concatenate([interpolate(first, second, weight) for weight, _ in requests])
        with torch.inference_mode():
            mixed = self.inverter.model.modulation(torch.from_numpy(vectors).to(self.inverter.model.device))
        rows = [self._chosen(mixed.rows([row]), choices) for row, (_, choices) in enumerate(requests)]
        tokens, confidence = self._written(Modulation.cat(rows), vectors)
        texts = [self.inverter.tokenizer.decode(row) for row in tokens]
        cosines = self._cosines(texts)
        return [
            {
                "weight": weight,
                "choices": list(choices),
                "tokens": [self._token(*told) for told in zip(tokens[row], confidence[row], strict=True)],
                "text": texts[row],
                "cosines": cosines[row],
                "levels": _levels(rows[row]),
            }
            for row, (weight, choices) in enumerate(requests)
        ]

    def one_change_each(self) -> list[tuple[float, list[str]]]:
        """Every tenth of the way with all layers in agreement; at its start, each part alone hearing something else."""
        alone = [
            [*self.plain[:part], choice, *self.plain[part + 1 :]]
            for part, choice in product(range(len(self.parts)), ("second", "off"))
        ]
        return [(weight, self.plain) for weight in WEIGHTS] + [(0.0, choices) for choices in alone]

    def _chosen(self, mixed: Modulation, choices: Sequence[str]) -> Modulation:
        for part, choice in enumerate(choices):
            if choice == "mix":
                continue
            heard, final = self.heard[choice], part == len(choices) - 1
            mixed = mixed.with_final(heard) if final else mixed.with_layer(part, heard)
        return mixed

    def _written(self, modulation: Modulation, vectors: np.ndarray) -> tuple[list[list[int]], list[list[float]]]:
        """Token ids and their probabilities when written, each row as long as its vector says."""
        lengths = self.inverter.predict_lengths(vectors)
        model, counts = self.inverter.model, torch.from_numpy(lengths).to(self.inverter.model.device)
        predict, mask = model.predictor(modulation, counts), model.config.mask_token_id
        *_, last = denoise(predict, counts, mask_token_id=mask, num_steps=8, top_k=0)
        cut = [(last.tokens[row, :n].tolist(), last.confidence[row, :n].tolist()) for row, n in enumerate(lengths)]
        return [tokens for tokens, _ in cut], [confidence for _, confidence in cut]

    def _token(self, token: int, probability: float) -> list:
        (piece,) = self.inverter.tokenizer.pieces([token])
        return [piece, round(1000 * probability), *(piece in source for source in self.sources)]

    def _cosines(self, texts: list[str]) -> list[list[float]]:
        """Cosine of each text to the first and the second vector; 0 for an empty text, which has no vector."""
        found = np.zeros((len(texts), 2))
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if rows:
            again = self.inverter.encoder.encode([texts[row] for row in rows])
            for column, vector in enumerate(self.vectors):
                found[rows, column] = cosine(again, np.broadcast_to(vector, again.shape))
        return found.round(3).tolist()


class Mixer(anywidget.AnyWidget):
    """`wanted` is what the person asks for, `view` the answer. The output also carries a page that needs no kernel."""

    _esm = SCRIPT
    _css = STYLE
    wanted = traitlets.Dict().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)

    def __init__(self, pair: Pair, **traits: Any):
        self.pair = pair
        super().__init__(view=self._answer(0.0, pair.plain), **traits)
        self.observe(self._heard, "wanted")

    def _heard(self, change: dict) -> None:
        asked = change["new"]
        try:
            texts = (asked["first"], asked["second"])
            if texts != self.pair.texts:
                self.pair = Pair(self.pair.inverter, *texts)
            answer = self._answer(*_checked(asked, self.pair))
        except InputError as error:
            answer = {**self.view, "error": str(error)}
        self.view = {**answer, "number": asked.get("number")}

    def _answer(self, weight: float, choices: Sequence[str]) -> dict[str, Any]:
        (view,) = self.pair.views([(weight, choices)])
        first, second = self.pair.texts
        return {**view, "first": first, "second": second, "parts": self.pair.parts}

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/html": static_html(self.pair), "text/plain": self.view["text"]}, metadata


def mixer(inverter: Inverter, first: str, second: str) -> Mixer:
    """Mix the vectors of two sentences, let single layers hear one of them or nothing, and see what is written.

    Raises `InputError` for a sentence that is empty or longer than 1,000 characters.
    """
    return Mixer(Pair(inverter, first, second))


def static_html(pair: Pair) -> str:
    """The mixer for a page without a kernel: it knows one change at a time; without scripts, all are listed."""
    views = pair.views(pair.one_change_each())
    first, second = pair.texts
    told = {"first": first, "second": second, "parts": pair.parts, "views": views}
    told = json.dumps({"style": STYLE.read_text(encoding="utf-8"), "told": told}, separators=(",", ":"))
    told = told.replace("<", "\\u003c")  # no token can end the script or open a comment in it
    name = hashlib.sha256(told.encode()).hexdigest()[:12]  # by content: executed again, the output stays the same
    lines = [f"A  {first}", f"B  {second}", "", *(f"{_said(view, pair.parts):28} {view['text']}" for view in views)]
    return (
        f'<div data-invlib-mixer="{name}"><pre>{escape(chr(10).join(lines))}</pre></div>\n'
        f'<script type="module">\n{SCRIPT.read_text(encoding="utf-8")}\nmount("{name}", {told});\n</script>'
    )


def _checked(asked: dict, pair: Pair) -> tuple[float, list[str]]:
    weight, choices = asked["weight"], asked["choices"]
    if not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise InputError(f"the weight of the second vector lies between 0 and 1, got {weight!r}")
    if len(choices) != len(pair.parts) or not set(choices) <= set(CHOICES):
        raise InputError(f"each of {len(pair.parts)} parts hears one of {', '.join(CHOICES)}; got {choices!r}")
    return float(weight), list(choices)


def _levels(modulation: Modulation) -> list[list[float | None]]:
    """RMS of gate, scale and shift for every layer and the final norm."""
    layers = [None if (v := getattr(modulation, name)) is None else _rms(v[0].flatten(1)) for name in PARTS]
    table = [[None if part is None else part[layer] for part in layers] for layer in range(modulation.scale.shape[1])]
    return [*table, [None, *_rms(modulation.final_scale), *_rms(modulation.final_shift)]]


def _rms(values: torch.Tensor) -> list[float]:
    return [round(value, 3) for value in values.float().square().mean(dim=1).sqrt().tolist()]


def _said(view: dict, parts: Sequence[str]) -> str:
    """A request in words, for the page that runs no script."""
    for part, choice in zip(parts, view["choices"], strict=True):
        if choice != "mix":
            where = part if part == FINAL else f"layer {part}"
            return f"{where} {'off' if choice == 'off' else 'hears B'}"
    return f"{view['weight']:.0%} B"
