"""The commands and arguments of any kind: each ends with one line and status 2, or does what it was asked.

`python -m tests.hostile.commands` prints how many command lines had which end.
"""

import contextlib
import functools
import gzip
import io
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from invlib import Encoder, Inverter
from invlib.__main__ import main as invert
from invlib.audit.__main__ import main as audit
from invlib.studies.__main__ import main as studies
from invlib.training.__main__ import main as training
from tests.hostile.counts import end

NUMBERS = ("0", "-1", "1.5", "x", "", "nan", "inf", "1e9", "99999999999999999999999", "\0", "\ud800", "\x1b[31m")
COUNTS = {
    "invert": ("--steps", "--search"),
    "training": ("--cooldown",),
    "score": ("--limit", "--pool-size", "--steps"),
    "search": ("--limit", "--queries", "--width"),
    "attackers": ("--sentences", "--steps"),
    "ablations": ("--limit", "--tflop"),
    "tables": ("--limit",),
}
NEEDED = {
    "invert": ["a text"],
    "training": ["--config", "none.yaml", "--text", "none.txt"],
    "ablations": ["--valid", "none.txt"],
}
MAINS = {"invert": invert, "training": training, "audit": audit}


def damaged(folder: Path) -> dict[str, Path]:
    """Files in the place of texts, configurations, records and stores, each of another damage."""
    made = {
        "empty.txt": b"",
        "latin.txt": b"caf\xe9\n",
        "nul.txt": b"\0\0\0\n",
        "half.jsonl": b'{"text": "\\ud800"}\n',
        "blank.jsonl": b'{"text": "\\u200b"}\n',
        "deep.jsonl": b"[" * 100_000 + b"\n",
        "number.jsonl": b'{"text": 1e999}\n' + b"9" * 9999 + b"\n",
        "cut.txt.gz": gzip.compress(b"a cat sat on the mat\n" * 999)[:40],
        "long.txt.gz": gzip.compress(b"x" * 5_000_000),
        "binary.yaml": bytes(range(256)),
        "laughs.yaml": b"a: &a [x]\nb: [*a]\n",
        "records.jsonl": b'{"text": "a", "secrets": [{"kind": "name"}]}\n',
        "model.pt": b"PK\x03\x04" + b"\0" * 99,
        "vectors.npy": b"\x93NUMPY\x01\0\xff\xff",
        "vectors.parquet": b"PAR1PAR1",
    }
    for name, data in made.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.txt")
    return {path.name: path for path in folder.iterdir()} | {
        "none": folder / "none",
        "folder": folder,
        "device": Path("/dev/null"),
    }


# Opened once: what a command line says about them is told before and after.
Inverter.load, Encoder.load = functools.cache(Inverter.load), functools.cache(Encoder.load)


def lines(folder: Path) -> Iterator[list[str]]:
    """Command lines, the name of the command first."""
    for name, options in COUNTS.items():
        yield from (
            [name, *NEEDED.get(name, ["--text", "none.txt"] * (name != "tables")), o, v]
            for o in options
            for v in NUMBERS
        )
    for path in map(str, damaged(folder).values()):
        out = ["--out", str(folder / "made")]  # not beside the weights, where a study writes by itself
        yield from ([name, "--text", path, *out] for name in ("score", "search", "attackers"))
        yield ["training", "--config", path, "--text", "none.txt"]
        yield ["training", "--config", "configs/tiny.yaml", "--text", path, "--out", str(folder / "run")]
        yield ["ablations", "--text", path, "--valid", path, "--config", "configs/tiny.yaml", *out]
        yield ["ablations", "--text", "none.txt", "--valid", "none.txt", "--out", path]
        yield ["invert", "a text", "--checkpoint", path]
        yield ["score", "--checkpoint", path, "--text", path, *out]
        yield ["audit", path, "--out", str(folder / "audit")]
        yield ["audit", str(folder / "vectors.npy"), "--records", path, "--out", str(folder / "audit")]
    yield from (
        [name, *NUMBERS[k : k + 2]] for name in ("invert", "training", "audit", "score", "none") for k in range(11)
    )


def ended(line: list[str]) -> str:
    """How a command line ended: "done", "one line", or what else it said."""
    name, *arguments = line
    main, said = MAINS.get(name, studies), io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main(arguments if name in MAINS else line)
    except SystemExit as ending:
        return "done" if ending.code == 0 else f"SystemExit {ending.code}: {said.getvalue()[-200:]}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:200]
    told = [part for part in said.getvalue().splitlines() if part.startswith("error: ")]
    if code == 2 and len(told) == 1 and len(told[0]) < 320 and said.getvalue().splitlines()[-1] == told[0]:
        return "one line"
    return "done" if code == 0 else f"status {code}: {said.getvalue()[-200:]}"


def run(every: int = 1) -> tuple[Counter, list[str]]:
    """How command lines ended, and those that ended otherwise; only every `every`-th."""
    counts, wrong = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for line in [*lines(Path(folder))][::every]:
            told = ended(line)
            counts[told if told in ("done", "one line") else "traceback"] += 1
            if told not in ("done", "one line"):
                wrong.append(ascii(f"{line}: {told}"))
    return counts, wrong


if __name__ == "__main__":
    end(run)
