"""Run: a training run in its folder. Best weights, the state to resume from, a CSV log."""

import csv
import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path

import torch

from invlib import checkpoint
from invlib.config import Config
from invlib.errors import InputError
from invlib.tokenizer import Tokenizer
from invlib.training.trainer import Trainer

LOG_COLUMNS = (
    *("step", "samples", "seconds", "samples_per_second", "lr"),
    *("loss", "length_loss", "token_f1", "exact_match", "length_right"),
)


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
            try:
                state = torch.load(path, weights_only=True)
            except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
                reason = (str(error) or type(error).__name__).splitlines()[0][:100]
                raise InputError(f"{path} is damaged ({reason}); delete it to start again") from None
            _refuse_difference(self.folder, state["identity"], self.identity)
            self.trainer.load_state_dict(state["trainer"])
            self.samples, self.best, self.seconds = state["samples"], state["best"], state["seconds"]
        if self.is_main:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = f"{self.folder} cannot be a run's folder: {error.strerror}"
                raise InputError(f"{reason}; choose another --out") from None
            self.tokenizer.save(self.folder / "tokenizer.json")
            _cut_log(self.folder / "log.csv", self.trainer.step)

    def save(self, scores: dict[str, float]) -> None:
        """The averaged weights when they are the best so far; then the state.

        Best means the highest token F1, or the most right lengths where nothing else is trained.
        """
        if not self.is_main:
            return
        score = scores["length_right" if self.config.training.length_only else "token_f1"]
        if score >= self.best:
            self.best = score
            checkpoint.write(self.folder, self.trainer.ema, self.config)
        state = {
            "identity": self.identity,
            "trainer": self.trainer.state_dict(),
            "samples": self.samples,
            "best": self.best,
            "seconds": self.seconds,
        }
        checkpoint.write_atomically(self.folder / "state.pt", lambda path: torch.save(state, path))

    def log(self, record: dict[str, float]) -> None:
        """Append one row to `log.csv`; scores are empty in rows without a validation."""
        if self.is_main:
            path = self.folder / "log.csv"
            is_new = not path.is_file()
            with open(path, "a", newline="") as file:
                writer = csv.DictWriter(file, LOG_COLUMNS)
                if is_new:
                    writer.writeheader()
                writer.writerow({key: record.get(key, "") for key in LOG_COLUMNS})


def _comparable(config: Config) -> dict:
    """The part of a configuration that must not change between two legs of one run.

    max_steps may: it moves the final decay, which is how a run is prolonged.
    """
    values = dataclasses.asdict(config)
    for name in ("max_steps", "log_every", "eval_every", "num_workers"):
        values["training"].pop(name)
    values["data"].pop("data_dir")
    return values


def _refuse_difference(folder: Path, before: dict, now: dict) -> None:
    def flat(values: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    old, new = dict(flat(before)), dict(flat(now))
    changed = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
    if changed:
        shown = "; ".join(f"{key}: {old.get(key)!r} → {new.get(key)!r}" for key in sorted(changed))
        raise InputError(f"{folder} holds a run with other settings ({shown}); choose another --out")


def _cut_log(path: Path, step: int) -> None:
    """Drop the rows behind the state that is resumed: those steps will be done again."""
    if path.is_file():
        with open(path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, LOG_COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
