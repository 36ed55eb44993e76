"""lab(inverter): type a sentence, or hand over a vector, and watch it come back; pin a word and see what changes."""

from collections.abc import Callable
from dataclasses import asdict, replace
from html import escape
from typing import Any

import numpy as np
import traitlets

from invlib.errors import InputError
from invlib.inverter import Inverter, check_vectors
from invlib.widgets import page
from invlib.widgets.lab.session import Busy, Session, said
from invlib.widgets.lab.settings import KINDS, POLICY_BY_NAME, Limits, Settings, View
from invlib.widgets.lab.upload import read_vector
from invlib.widgets.player import frames, static_html


class Lab(page.Pane):
    """The view of one `Session`. What a person types stays in the page; what came back travels in these traits."""

    _esm = page.script("player", "lab/steering", "lab/outcome", "lab/lab")
    _css = page.style("player", "lab/lab")
    options = traitlets.Dict().tag(sync=True)  # what there is to choose from, and its limits
    frames = traitlets.Dict().tag(sync=True)  # those of the player; empty before the first inversion
    steering = traitlets.Dict().tag(sync=True)  # what is pinned or to be masked: position → word, positions
    outcome = traitlets.Dict().tag(sync=True)
    vector = traitlets.Dict().tag(sync=True)
    uploaded = traitlets.Dict().tag(sync=True)
    notice = traitlets.Dict().tag(sync=True)  # the one line that says what went wrong
    progress = traitlets.Dict().tag(sync=True)  # last: a page that sees "idle" has seen all the rest
    answered = traitlets.Dict().tag(sync=True)  # which message of which page was answered by all that stands above

    def __init__(self, inverter: Inverter, text: str, limits: Limits):
        self.session = Session(inverter, limits, changed=self._tell)
        kinds = {name: {key: value for key, value in vars(of).items() if key != "make"} for name, of in KINDS.items()}
        options = {
            "text": text,
            "encoder": inverter.config.encoder_model,
            "embed_dim": inverter.config.embedding_cond_dim,
            "policies": {name: policy.__doc__.strip().splitlines()[0] for name, policy in POLICY_BY_NAME.items()},
            "kinds": kinds,
            "limits": asdict(limits),
            "defaults": asdict(Settings(max_queries=200)),
        }
        super().__init__(options=options, progress={"state": self.session.state})
        self.on_msg(self._on_message)

    def _on_message(self, _: Any, content: dict, buffers: list) -> None:
        try:
            self.notice = {}
            if content["do"] == "upload":
                numbers = read_vector(bytes(buffers[0]), str(content["name"]))
                check_vectors(numbers, self.session.inverter.config.embedding_cond_dim)
                # Into the page's own field, so that there is one way in. str: what reads back to the same float.
                self.uploaded = {"numbers": ", ".join(map(str, numbers))}
            else:
                ACTIONS[content["do"]](self.session, content)
        except Exception as error:  # a callback's error goes to a log that nobody at the page reads
            self.notice = {"kind": "note" if isinstance(error, Busy) else "error", "text": _sentence(said(error))}
        self.answered = {name: content.get(name) for name in ("page", "number")}

    def _tell(self) -> None:
        session = self.session
        if session.view is not None:
            self.vector = _vector(session.view)
        if session.trajectory is not None:
            self.frames = _frames(session)
        pinned = sorted(session.pinned)
        words = session.inverter.tokenizer.pieces([session.pinned[position] for position in pinned])
        # Only what differs from what stands in the frames' last step: the rest is marked there.
        self.steering = {"pinned": dict(zip(map(str, pinned), words, strict=True)), "masked": sorted(session.masked)}
        outcome = {} if session.outcome is None else asdict(session.outcome)
        self.outcome = {name: value for name, value in outcome.items() if name != "settings"}
        if session.error:
            self.notice = {"kind": "error", "text": _sentence(session.error)}
        found = session.found and {"text": session.found.text, "cosine": round(session.found.cosine, 4)}
        self.progress = {"state": session.state, "found": found}

    def static(self) -> tuple[str, str]:
        """The player of what has come back by now."""
        hint = "<p><em>The inversion lab needs a kernel: open this notebook in JupyterLab to use it.</em></p>"
        outcome, text = self.session.outcome, "Inversion lab: nothing inverted yet"
        if outcome is not None:
            asked = outcome.settings.text if outcome.settings.vector is None else "a vector"
            text = f"{asked} → {outcome.text}"
        return f"<p>{escape(text)}</p>\n{static_html(self.frames)}\n{hint}" if self.frames else hint, text


def lab(inverter: Any, text: str = "Meet me at the station at nine.", *, limits: Limits | None = None) -> Lab:
    """The inversion lab: a sentence or a vector in, what comes back out, and every step in between to touch.

    text: what stands in the field at first. limits: what one person may ask for.
    `lab(inverter).session` does the same without a page. Raises `InputError` for what is no `Inverter`.
    """
    if not isinstance(inverter, Inverter):
        raise InputError(f"a lab needs an Inverter, got {type(inverter).__name__}; pass invlib.Inverter.load('minilm')")
    return Lab(inverter, text, limits or Limits())


def _settings(content: dict) -> Settings:
    """The settings of a message; its vector, if any, still as it was typed or pasted."""
    values = dict(content["settings"])
    typed = values.pop("vector", None)
    settings = Settings.read(values)
    return settings if typed is None else replace(settings, vector=tuple(read_vector(str(typed)).tolist()))


ACTIONS: dict[str, Callable[[Session, dict], Any]] = {
    "invert": lambda session, told: session.invert(_settings(told)),
    "run on": lambda session, told: session.run_on(_settings(told), told.get("step")),
    "step": lambda session, told: session.step_once(_settings(told), told.get("step")),
    "stop": lambda session, told: session.stop(),
    "pin": lambda session, told: session.pin(told["position"], told.get("token"), told.get("step")),
    "remask": lambda session, told: session.remask(told["position"]),
    "release": lambda session, told: session.release(told["position"]),
    "look": lambda session, told: session.look(_settings(told)),
}


def _frames(session: Session) -> dict:
    """Those of the player, and from which step on each pinned position was. A pinned token has no probability."""
    trajectory, since = session.trajectory, dict(sorted(session.pinned_since.items()))
    confidence = trajectory.confidence.copy()
    for position, step in since.items():
        confidence[step:, position] = np.nan
    steered = {"pinned": list(since), "pinned_since": list(since.values())}
    return frames(replace(trajectory, confidence=confidence)) | steered


def _vector(view: View) -> dict:
    top = float(np.abs(view.vector).max())
    sizes = {"top": top, "norm": view.norm, "stored": view.stored, "cosine": view.cosine}
    bars = np.rint(view.vector / top * 100).astype(int).tolist()
    return {name: round(value, 4) for name, value in sizes.items()} | {"bars": bars}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
