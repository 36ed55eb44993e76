"""A process with limits that opens one file after the other; who starts it sees crashes and hangs from outside.

`python -m tests.hostile.worker FOLDER` reads "kind seed" lines and answers each with a line of JSON.
"""

import json
import os
import queue
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SECONDS, BYTES = 5.0, 10**9  # of a file, above what the process has before it
HANG = 90.0  # seconds on the wall, on a machine that has other work
ROOM = 3 * 2**30  # of address space above what torch has taken


@dataclass(frozen=True)
class Outcome:
    """What came of one file: "valid", "error", or what must never be: "traceback", "crash", "hang", "cost", "harm"."""

    kind: str
    seed: int
    name: str
    told: str = ""
    seconds: float = 0.0
    bytes: int = 0


def outcomes(cases: Iterable[tuple[str, int]], place: Path) -> Iterator[Outcome]:
    """The outcome of every case; a worker that dies or hangs is one outcome, and the next takes over."""
    worker = None
    for kind, seed in cases:
        worker = worker or Worker(place)
        found = worker.ask(kind, seed)
        if found.name in ("crash", "hang"):
            worker.end()
            worker = None
        yield found
    if worker:
        worker.end()


class Worker:
    """The process, seen from outside."""

    def __init__(self, place: Path):
        command = [sys.executable, "-m", "tests.hostile.worker", str(place)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        offline = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=offline, **pipes)
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        assert self.lines.get(timeout=HANG) == "ready\n"

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def ask(self, kind: str, seed: int) -> Outcome:
        """What became of one file."""
        self.process.stdin.write(f"{kind} {seed}\n")
        self.process.stdin.flush()
        try:
            line = self.lines.get(timeout=HANG)
        except queue.Empty:
            return Outcome(kind, seed, "hang", f"more than {HANG:.0f} s")
        if not line:
            return Outcome(kind, seed, "crash", f"ended with {self.process.wait()}")
        return Outcome(kind, seed, **json.loads(line))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


# ── inside the process ──


def judged(path: Path, harm: Path) -> dict:
    """Open a checkpoint and invert a vector with it."""
    import numpy as np

    from invlib import InputError, Inverter

    _reset_peak()
    before, start = _memory("VmRSS"), time.process_time()
    try:
        inverter = Inverter.load(path)
        (text,) = inverter.invert(np.linspace(-1, 1, inverter.config.embedding_cond_dim), num_steps=2).texts
        name, told = ("valid", text[:80]) if isinstance(text, str) else ("traceback", f"{type(text)} for a text")
    except InputError as error:
        told = str(error)
        right = 0 < len(told) <= 300 and told.isprintable()
        name = "error" if right else "traceback"
    except BaseException as error:
        name, told = "traceback", f"{type(error).__name__}: {error}"[:300]
    seconds, taken = time.process_time() - start, _memory("VmHWM") - before
    if harm.exists():
        name = "harm"
    elif name in ("valid", "error") and (seconds > SECONDS or taken > BYTES):
        name, told = "cost", f"{seconds:.1f} s, {taken / 1e6:.0f} MB: {told}"
    return {"name": name, "told": told, "seconds": seconds, "bytes": taken}


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory(what: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(what))


def main(place: Path) -> None:
    """Answer until there is no line left."""
    from tests.hostile import files

    files.weights()
    judged(files.write("sound_folder", 0, place / "first"), place / "harm")  # loads what is loaded once
    limit = _memory("VmSize") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(place)
    print("ready", flush=True)
    for line in sys.stdin:
        kind, seed = line.split()
        path = files.write(kind, int(seed), place / "case")
        print(json.dumps(judged(path, place / "harm")), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
