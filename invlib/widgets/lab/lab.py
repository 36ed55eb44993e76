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
from invlib.widgets.lab import sentences
from invlib.widgets.lab.comparison import VARIATIONS, Comparison, Lane
from invlib.widgets.lab.session import RUNNING, Busy, Session, said
from invlib.widgets.lab.settings import KINDS, POLICY_BY_NAME, Limits, Settings, View
from invlib.widgets.lab.take import taken
from invlib.widgets.lab.upload import MAX_BYTES, read_vector
from invlib.widgets.player import PARTS, frames, static_html

LAB = ("lanes", "lab/fields", "lab/steering", "lab/address", "lab/outcome", "lab/take", "lab/compare", "lab/lab")


class Lab(page.Pane):
    """The view of one `Session`. What a person types stays in the page; what came back travels in these traits."""

    _esm = page.script(*PARTS, *LAB)
    _css = page.style("player", "lanes", "lab/lab")
    options = traitlets.Dict().tag(sync=True)  # what there is to choose from, and its limits
    frames = traitlets.Dict().tag(sync=True)  # those of the player; empty before the first inversion
    steering = traitlets.Dict().tag(sync=True)  # what is pinned or to be masked: position → word, positions
    outcome = traitlets.Dict().tag(sync=True)
    vector = traitlets.Dict().tag(sync=True)
    uploaded = traitlets.Dict().tag(sync=True)
    lanes = traitlets.List().tag(sync=True)  # what is seen side by side
    notice = traitlets.Dict().tag(sync=True)  # the one line that says what went wrong
    progress = traitlets.Dict().tag(sync=True)  # last: a page that sees "idle" has seen all the rest
    answered = traitlets.Dict().tag(sync=True)  # which message of which page was answered by all that stands above

    def __init__(self, inverter: Inverter, text: str, limits: Limits):
        self.session = Session(inverter, limits, changed=self._tell)
        self.comparison = Comparison(self.session)
        self._beside = self.comparison.lanes  # the lanes that the page knows
        kinds = {name: {key: value for key, value in vars(of).items() if key != "make"} for name, of in KINDS.items()}
        options = {
            "text": text,
            "sentences": sentences.by_kind(),
            "encoder": inverter.config.encoder_model,
            "embed_dim": inverter.config.embedding_cond_dim,
            "policies": {name: policy.__doc__.strip().splitlines()[0] for name, policy in POLICY_BY_NAME.items()},
            "kinds": kinds,
            "comparisons": list(VARIATIONS),
            "limits": asdict(limits) | {"bytes": MAX_BYTES, "pieces": inverter.config.max_seq_len},
            "defaults": asdict(Settings(max_queries=limits.max_queries)),
        }
        super().__init__(options=options, progress={"state": self.session.state})
        self.on_msg(self._on_message)

    def _on_message(self, _: Any, content: dict, buffers: list) -> None:
        try:
            self.notice = {}
            ACTIONS[content["do"]](self, content, buffers)
        except Exception as error:  # a callback's error goes to a log that nobody at the page reads
            is_over = isinstance(error, Busy) and self.session.state != RUNNING  # whoever was to wait has waited
            told = {"kind": "note" if isinstance(error, Busy) else "error", "text": _sentence(said(error))}
            self.notice = {} if is_over else told
        self.answered = {name: content.get(name) for name in ("page", "number")}

    def _upload(self, content: dict, buffers: list) -> None:
        """Into the page's own field, so that there is one way in."""
        numbers = read_vector(bytes(buffers[0]), f"the file {str(content['name'])[:60]}")
        check_vectors(numbers, self.session.inverter.config.embedding_cond_dim)
        self.uploaded = {"numbers": ", ".join(map(str, numbers))}  # str: what reads back to the same float

    def _save(self, content: dict, _: list) -> None:
        """Send what is shown, or what is compared, as a file to the page that asked."""
        session, beside, what = self.session, self.comparison.lanes, content["what"]
        if content.get("of") == "lanes" and beside:
            what = "zip" if what == "npz" and len(beside) > 1 else what
            of = {"sentence": beside[0].outcome.settings.text, "vector": None}
            name, file = "side-by-side", taken(what, self.lanes, [lane.trajectory for lane in beside], **of)
        elif session.trajectory is not None:
            of = {"sentence": session.shown.settings.text, "vector": session.shown.vector}
            name, file = "inversion", taken(what, [{"label": "", "frames": self.frames}], [session.trajectory], **of)
        else:
            raise InputError("there is nothing to save yet; press Invert first")
        self.send({"file": f"{name}.{what}", "page": content.get("page")}, [file])

    def _compared(self, act: Callable[[], None]) -> None:
        act()
        self._tell()

    def _tell(self) -> None:
        session, run = self.session, self.session.run
        if session.view is not None:
            self.vector = _vector(session.view)
        if session.trajectory is not None:
            self.frames = frames_of(session)
        pinned = sorted(session.pinned)
        words = session.inverter.tokenizer.pieces([session.pinned[position] for position in pinned])
        # Only what differs from what stands in the frames' last step: the rest is marked there.
        self.steering = {"pinned": dict(zip(map(str, pinned), words, strict=True)), "masked": sorted(session.masked)}
        self.outcome = {} if session.outcome is None else _outcome(session.outcome)
        if self._beside is not self.comparison.lanes:
            self._beside = self.comparison.lanes
            self.lanes = list(map(_lane, self._beside))
        if session.error:
            self.notice = {"kind": "error", "text": _sentence(session.error)}
        elif session.state != RUNNING and self.notice.get("kind") == "note":
            self.notice = {}
        progress = {"state": session.state, "compares": self.comparison.is_running}
        self.progress = progress | ({} if run is None else run.progress)

    def static(self) -> tuple[str, str]:
        """The player of what has come back by now."""
        hint = "<p><em>Run this cell to use the inversion lab.</em></p>"
        outcome, text = self.session.outcome, "Inversion lab: nothing inverted yet"
        if outcome is not None:
            asked = outcome.settings.text if outcome.settings.vector is None else "a vector"
            text = f"{asked} → {outcome.text}"
        return f"<p>{escape(text)}</p>\n{static_html(self.frames)}\n{hint}" if self.frames else hint, text


def lab(
    inverter: Any,
    text: str = "The clinic called back about the blood test this morning.",
    *,
    limits: Limits | None = None,
) -> Lab:
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


def _plain(content: dict) -> Settings:
    """The same without a search: the budget is that of a button beside."""
    return replace(_settings(content), max_queries=0)


ACTIONS: dict[str, Callable[[Lab, dict, list], Any]] = {
    "invert": lambda lab, told, _: lab.session.invert(_plain(told)),
    "search": lambda lab, told, _: lab.session.search(_settings(told)),
    "run on": lambda lab, told, _: lab.session.run_on(_plain(told), told.get("step")),
    "step": lambda lab, told, _: lab.session.step_once(_plain(told), told.get("step")),
    "stop": lambda lab, told, _: lab.session.stop(),
    "pin": lambda lab, told, _: lab.session.pin(told["position"], told.get("token"), told.get("step")),
    "remask": lambda lab, told, _: lab.session.remask(told["position"]),
    "release": lambda lab, told, _: lab.session.release(told["position"]),
    "look": lambda lab, told, _: lab.session.look(_plain(told)),
    "compare": lambda lab, told, _: lab.comparison.compare(told["what"], _settings(told)),
    "keep": lambda lab, told, _: lab._compared(lab.comparison.keep),
    "clear": lambda lab, told, _: lab._compared(lab.comparison.clear),
    "upload": Lab._upload,
    "save": Lab._save,
}


def frames_of(session: Session) -> dict:
    """Those of the player, and from which step on each pinned position was. A pinned token has no probability."""
    trajectory, since = session.trajectory, dict(sorted(session.pinned_since.items()))
    confidence = trajectory.confidence.copy()
    for position, step in since.items():
        confidence[step:, position] = np.nan
    steered = {"pinned": list(since), "pinned_since": list(since.values())}
    shown = replace(trajectory, confidence=confidence)
    return frames(shown, open_until=session.open_until, asked=session.asked) | steered


def _outcome(outcome: Any) -> dict:
    told = asdict(outcome)
    settings = told.pop("settings")
    return told | {"original": settings["text"] if settings["vector"] is None else None}


def _lane(lane: Lane) -> dict:
    shown = frames(lane.trajectory, open_until=lane.open_until, asked=lane.asked)
    outcome = lane.outcome
    told = {"text": outcome.text, "verdict": outcome.verdict, "model_calls": outcome.model_calls}
    return {"label": lane.label, "frames": shown, "encoder_queries": outcome.encoder_queries, **told}


def _vector(view: View) -> dict:
    top = float(np.abs(view.vector).max())
    sizes = {"top": top, "norm": view.norm, "stored": view.stored, "cosine": view.cosine}
    bars = np.rint(view.vector / top * 100).astype(int).tolist()
    told = {"bars": bars, "pieces": view.pieces, "advice": view.advice}
    return {name: round(value, 4) for name, value in sizes.items()} | told


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
