"""Work that is killed, or meets a full disk, at every write and at random moments: gone on with, it ends the same.

Every piece of work runs in a fork of a process that has loaded what it needs. `Moments` counts what a file goes
through: torn (half of it on disk), written, flushed, replaced.
"""

import contextlib
import dataclasses
import errno
import io
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads do not survive a fork

import numpy as np
import pandas as pd
import torch
import yaml

from invlib import Encoder, Inverter, perturb
from invlib.audit import Audit, open_source
from invlib.config import load_config
from invlib.errors import command
from invlib.model import ConditionalMDLM
from invlib.studies.sweep import sweep
from invlib.training import __main__ as training
from invlib.training import loop, pairs
from invlib.training.start import initial_tokenizer

ROOT = Path(__file__).parents[2]
TIMES = ["seconds", "samples_per_second"]  # of a log; no two runs take as long
FULL = ("the disk is full", "MB left")
Work = Callable[[Path], object]


def small_inverter(encoder: Encoder) -> Inverter:
    """The bundled checkpoint's shape and pieces with few weights: what is written is tried here, not what is read."""
    bundled = Inverter.load("minilm", encoder=encoder)
    few = {"hidden_dim": 32, "num_heads": 2, "num_layers": 1, "ff_dim": 32, "length_dim": 0, "corrector_dim": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ConditionalMDLM(dataclasses.replace(bundled.config, **few)).requires_grad_(False).eval()
    small = Inverter(model, bundled.tokenizer, encoder)
    small.name = bundled.name
    return small


class Works:
    """The four kinds of work, each a function of the folder it writes into."""

    def __init__(self, place: Path):
        torch.set_num_threads(1)
        self.encoder, self.place = Encoder.load(), place
        self.inverter = small_inverter(self.encoder)
        subjects, verbs, things = (
            ("dog", "cat", "child", "baker"),
            ("sees", "finds", "draws"),
            ("river", "garden", "lamp"),
        )
        self.texts = [f"the {s} {v} the {t}." for s, v, t in itertools.product(subjects, verbs, things)]
        (place / "corpus.txt").write_text("\n".join(self.texts))
        np.save(place / "vectors.npy", self.encoder.encode(self.texts))
        loop.Encoder.load = lambda *name, **options: self.encoder  # loaded once, before the forks
        loop.matmul_peak = lambda *device, **options: 1e9
        pairs.CHUNK = 12

    @property
    def all(self) -> dict[str, Work]:
        return {"pairs": self.pairs, "training": self.training, "sweep": self.sweep, "audit": self.audit}

    def pairs(self, folder: Path) -> None:
        config = load_config(ROOT / "configs" / "tiny.yaml")
        tokenizer = initial_tokenizer(config, self.encoder, self.place / "corpus.txt", folder)
        pairs.Pairs.build(folder / "train", self.place / "corpus.txt", self.encoder, tokenizer, 16)

    def training(self, folder: Path) -> None:
        values = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text())
        values["data"] = {"data_dir": str(folder / "pairs"), "val_split": 0.1}
        values["model"]["corrector_dim"], values["training"]["drafts"] = 8, 12
        config = self.place / "tiny.yaml"
        config.write_text(yaml.safe_dump(values))
        arguments = ["--config", str(config), "--text", str(self.place / "corpus.txt"), "--out", str(folder / "run")]
        training.main.__wrapped__(arguments)  # an error is told, and ends it, where every other work's does

    def sweep(self, folder: Path) -> None:
        noises = [perturb.GaussianNoise(0.02), perturb.AbsmaxQuantisation(8)]
        sweep(self.inverter, self.texts[:4], noises, cache=folder, progress=False, decodings={"2": {"num_steps": 2}})

    def audit(self, folder: Path) -> None:
        source = open_source(self.place / "vectors.npy")
        Audit(source, self.inverter, folder / "audit", chunk=9, num_steps=2, verify=False).run(lambda line: None)


# ── what happens to a process ──


class Moments:
    """Counts the moments of every written file, and does something at the n-th."""

    def __init__(self, at: int | None = None, then: Callable[[], None] = lambda: None, only_torn: bool = False):
        self.at, self.then, self.count, self.only_torn = at, then, 0, only_torn
        self.fsync, self.replace = os.fsync, os.replace
        os.fsync, os.replace = self._flushed, self._replaced

    def _moment(self) -> None:
        self.count += 1
        if self.count == self.at:
            self.then()

    def _flushed(self, number: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        if self.count + 1 == self.at:
            tear(path)
        self._moment()
        if not self.only_torn:
            self._moment()
        self.fsync(number)

    def _replaced(self, *paths: object) -> None:
        if self.only_torn:
            return self.replace(*paths)
        self._moment()
        self.replace(*paths)
        return self._moment()


def tear(path: Path) -> None:
    """Half of a file, as a process leaves it that ends within a write."""
    with open(path, "r+b") as file:
        if path.suffix == ".partial":
            file.truncate(path.stat().st_size // 2)
        else:  # rows that are filled in place: the last ones are of no use yet
            file.seek(-7, os.SEEK_END)
            file.write(b"\xff" * 7)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def forked(work: Work, folder: Path, moments: partial | None = None) -> int:
    """The process number of a fork that does the work; it leaves what it says in `said`, its moments in `count`."""
    number = os.fork()
    if number:
        return number
    said, code = io.StringIO(), 1
    with (
        contextlib.suppress(BaseException),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        watched = moments() if moments else None
        code = command(lambda arguments: work(folder))([])
        (folder.parent / "count").write_text(str(watched.count if watched else 0))
    with contextlib.suppress(OSError):
        (folder.parent / "said").write_text(said.getvalue())
    os._exit(code)


def done(number: int) -> int:
    """How a process ended: its status, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


# ── what is left ──


def kept(folder: Path) -> dict[str, object]:
    """Every file of a folder, in a form that is equal for two runs that did the same."""
    return {str(path.relative_to(folder)): told(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def told(path: Path) -> object:
    if path.name == "log.csv":
        return pd.read_csv(path).drop(columns=TIMES).round(6).to_csv()
    if path.name == "state.pt":
        state = torch.load(path, weights_only=True)
        state.pop("seconds")
        return str({**state, "trainer": {**state["trainer"], "model": flat(state["trainer"]["model"])}})
    return path.read_bytes()


def flat(weights: dict) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in weights.items()}


@dataclass
class Trial:
    """One kind of work, what it leaves when nothing happens, and how many moments and seconds it takes."""

    name: str
    work: Work
    place: Path

    def __post_init__(self) -> None:
        self.folder = self._fresh()
        start = time.perf_counter()
        assert done(forked(self.work, self.folder, partial(Moments))) == 0, (self.name, self._said())
        self.seconds, self.moments = time.perf_counter() - start, int((self.place / "count").read_text())
        self.expected = kept(self.folder)

    def _fresh(self) -> Path:
        shutil.rmtree(self.place / "work", ignore_errors=True)
        (self.place / "work").mkdir(parents=True)
        return self.place / "work"

    def _said(self) -> str:
        return (self.place / "said").read_text()

    def ends_the_same(self) -> str:
        """Go on; "" where all is as if nothing had happened, else what differs."""
        if done(forked(self.work, self.folder)) != 0:
            return f"does not go on: {self._said()[-300:]}"
        found = kept(self.folder)
        return str(
            [name for name in found.keys() | self.expected.keys() if found.get(name) != self.expected.get(name)] or ""
        )

    def killed_at(self, moment: int) -> str:
        """Killed at a moment of a write, then gone on with."""
        self.folder = self._fresh()
        assert done(forked(self.work, self.folder, partial(Moments, moment, die))) == -signal.SIGKILL
        return self.ends_the_same()

    def killed_after(self, seconds: float) -> str:
        """Killed after a time, then gone on with."""
        self.folder = self._fresh()
        number = forked(self.work, self.folder)
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
        done(number)
        return self.ends_the_same()

    def full_at(self, write: int) -> str:
        """The disk is full at a write: one line that says so; then there is room again."""
        self.folder = self._fresh()
        code = done(forked(self.work, self.folder, partial(Moments, write, fill, only_torn=True)))
        said = self._said()
        if code != 2 or not any(words in said for words in FULL) or "Traceback" in said:
            return f"ends with {code} and says {said[-200:]!r}"
        return self.ends_the_same()

    def on_a_small_disk(self, kilobytes: int) -> str:
        """On a real file system that is too small; then it grows. Raises `OSError` where none can be mounted."""
        self.folder = self._fresh()
        with disk(self.folder, kilobytes):
            code, said = done(forked(self.work, self.folder)), self._said()
            if code != 0 and (code != 2 or not any(words in said for words in FULL)):
                return f"ends with {code} and says {said[-200:]!r}"
            subprocess.run(["mount", "-o", "remount,size=200m", str(self.folder)], check=True)
            return self.ends_the_same()


@contextlib.contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file system in memory of that size."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise OSError("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def cases(trial: Trial, every: int, random_kills: int) -> Iterator[tuple[str, Callable[[], str]]]:
    """Kills at random moments and at every `every`-th moment of a write, full disks likewise."""
    rng = random.Random(0)
    yield from (
        ("kill at random", partial(trial.killed_after, rng.uniform(0, trial.seconds))) for _ in range(random_kills)
    )
    yield from (("kill at a write", partial(trial.killed_at, n)) for n in range(1, trial.moments + 1, every))
    yield from (("full disk", partial(trial.full_at, n)) for n in range(1, trial.moments // 4 + 1, every))
    yield from (("small disk", partial(trial.on_a_small_disk, size)) for size in (16, 64, 256, 1024, 4096)[::every])


def run(trial: Trial, every: int, random_kills: int) -> tuple[Counter, list[str]]:
    """What was survived, and what was not."""
    counts, wrong = Counter(), []
    for what, case in cases(trial, every, random_kills):
        try:
            problem = case()
        except OSError as error:
            counts[f"{what}: {error}"] += 1
            continue
        counts[f"{what}, survived" if not problem else f"{what}, NOT survived"] += 1
        if problem:
            wrong.append(f"{trial.name}, {case.func.__name__}{case.args}: {problem}"[:600])
    return counts, wrong


def main() -> None:
    """Print what came of each kind of work: `python -m tests.hostile.kills EVERY RANDOM [NAME …]`."""
    every, random_kills, *names = sys.argv[1:]
    names, failed = names or ["pairs", "training", "sweep", "audit"], False
    with tempfile.TemporaryDirectory() as place:
        works = Works(Path(place))
        for name in names:
            trial = Trial(name, works.all[name], Path(place) / name)
            counts, wrong = run(trial, int(every), int(random_kills) // len(names))
            print(name, dict(counts), *wrong, sep="\n", flush=True)
            failed |= bool(wrong)
    sys.exit(failed)


if __name__ == "__main__":
    main()
