"""Run: a training run in its folder. Best weights, the state to resume from, a CSV log."""

import dataclasses
from pathlib import Path

import pandas as pd
import torch

from invlib import checkpoint
from invlib.config import Config
from invlib.door import torchfile
from invlib.door.files import make_folder, reading, write_atomically, write_text
from invlib.errors import InputError
from invlib.tokenizer import Tokenizer
from invlib.training.trainer import Trainer

LOG_COLUMNS = ["step", "samples", "seconds", "samples_per_second", "lr", "loss", "length_loss"]
LOG_COLUMNS += ["token_f1", "exact_match", "length_right"]
DAMAGED = ("is damaged", "delete it to start again")


class Run:
    """A training run in a folder: weights, state to resume from, log. Only the main process writes."""

    def __init__(self, folder: Path, config: Config, trainer: Trainer, tokenizer: Tokenizer, data: dict):
        self.folder, self.config, self.trainer, self.tokenizer = folder, config, trainer, tokenizer
        self.identity = {"config": _comparable(config), "data": data}
        self.samples, self.best, self.seconds = 0, -1.0, 0.0

    @property
    def is_main(self) -> bool:
        return self.trainer.accelerator.is_main_process

    def resume(self) -> None:
        """Go on from `state.pt`, if there is one. Raises `InputError` when it is of another config or corpus."""
        path = self.folder / "state.pt"
        if path.is_file():
            state = read_state(path)
            with reading(path, *DAMAGED):
                _refuse_other(self.folder, state["identity"], self.identity)
                self.trainer.load_state_dict(state["trainer"])
                self.samples, self.best, self.seconds = state["samples"], state["best"], state["seconds"]
        if self.is_main:
            make_folder(self.folder)
            self.tokenizer.save(self.folder / "tokenizer.json")
            _cut_log(self.folder / "log.csv", self.trainer.step)

    def save(self, scores: dict[str, float]) -> None:
        """The averaged weights when they are the best so far; then the state.

        Best means the highest token F1, or the most right lengths where nothing else is trained.
        """
        if not self.is_main:
            return
        score = scores["token_f1" if self.trainer.trains_text else "length_right"]
        if score >= self.best:
            self.best = score
            checkpoint.write(self.folder, self.trainer.ema, self.config, self.tokenizer)
        state = {
            "identity": self.identity,
            "trainer": self.trainer.state_dict(),
            "samples": self.samples,
            "best": self.best,
            "seconds": self.seconds,
            "end": self.config.training.max_steps,
            "cooldown": round(self.config.training.decay_share * self.config.training.max_steps),
        }
        write_atomically(self.folder / "state.pt", lambda path: torch.save(state, path))

    def log(self, record: dict[str, float]) -> None:
        """Append one row to `log.csv`; scores are empty in rows without a validation."""
        if self.is_main:
            path = self.folder / "log.csv"
            before = path.read_text() if path.is_file() else ""
            row = pd.DataFrame([record], columns=LOG_COLUMNS)
            write_text(path, before + row.to_csv(header=not before, index=False))


def read_state(path: Path) -> dict:
    """What `Run.save` wrote. Raises `InputError` for a file that is missing or damaged."""
    if not path.exists():
        raise InputError(f"no run to go on from at {path.parent}; train first")
    with reading(path, *DAMAGED):
        state = torchfile.read(path)
        if state["trainer"]["step"] < 0 or not state["identity"]["data"]["training"]:
            raise ValueError("it is no state of a run")
        return state


def branch(folder: Path, steps: int, config: Config) -> tuple[Path, Config]:
    """Folder and configuration of a cool-down: `steps` more from where the run stands, the rate falling to its end.

    The run itself stays where it is and goes on later. A cool-down that was stopped is finished first.
    """
    own = folder / "cooldown" / "state.pt"
    state = read_state(own) if own.is_file() else None
    if state is None or state["trainer"]["step"] >= state["end"]:
        state = read_state(folder / "state.pt")
        state |= {"best": -1.0, "cooldown": steps, "end": state["trainer"]["step"] + steps}
        make_folder(own.parent)
        write_atomically(own, lambda path: torch.save(state, path))
    share = state["cooldown"] / state["end"]
    training = dataclasses.replace(config.training, max_steps=state["end"], decay_share=share)
    return own.parent, dataclasses.replace(config, training=training)


def _comparable(config: Config) -> dict:
    """The part of a configuration that must not change between two legs of one run.

    max_steps and decay_share may: they move the final decay, which is how a run is prolonged or cooled down.
    """
    values = dataclasses.asdict(config)
    for name in ("max_steps", "decay_share", "log_every", "eval_every"):
        values["training"].pop(name)
    values["data"].pop("data_dir")
    return values


def _refuse_other(folder: Path, before: dict, now: dict) -> None:
    """Another configuration or another text is another run; more text behind the text it had is not."""
    old, new = (_flat(told, len(before["data"]["training"])) for told in (before, now))
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    if changed:
        shown = "; ".join(f"{key}: {old.get(key)!r} → {new.get(key)!r}" for key in changed)
        raise InputError(f"{folder} holds a run with other settings ({shown}); choose another --out")


def _flat(identity: dict, texts: int) -> dict:
    """What two legs have to agree on, by name; of the training's texts the first ones. An empty mix is none."""
    flat = {"validation": identity["data"]["validation"], "training text": identity["data"]["training"][:texts]}
    for part, values in identity["config"].items():
        flat |= {f"config.{part}.{key}": value for key, value in values.items() if value != {}}
    return flat


def _cut_log(path: Path, step: int) -> None:
    """Drop the rows behind the state that is resumed, whose steps will be done again, and those that are not whole."""
    if path.is_file():
        with reading(path, "is damaged", "delete it to go on without"):
            head, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
            whole = [row for row in rows if row.endswith("\n") and row.count(",") == head.count(",")]
            kept = [row for row in whole if row.partition(",")[0].isdigit() and int(row.partition(",")[0]) <= step]
        write_text(path, "".join([head, *kept]) if head.endswith("\n") else "")
