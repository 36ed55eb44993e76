"""Audit: every vector of a source → its recovered text, chunk by chunk, into a folder of parquet parts.

Memory holds one chunk. A part that is written is never done again, so a stopped audit goes on where it stopped; chunk k
belongs to process k mod processes, so several can share the work.
"""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from invlib.audit.databases import CHROMA_FILE, ChromaCollection, LanceTable
from invlib.audit.files import FILES
from invlib.audit.origin import SAMPLE, Origin, check_dimension, check_origin
from invlib.audit.source import Chunk, Source
from invlib.checkpoint import fingerprint, write_atomically
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.training.run import make_folder

CHUNK = 1024
TOLD = 20  # broken rows that are named one by one; all are counted
SCHEMA = pa.schema(
    {"row": pa.int64(), "id": pa.string(), "text": pa.string(), "confidence": pa.float32(), "problem": pa.string()}
)


@dataclass(frozen=True)
class Throughput:
    """What one run of one process did."""

    vectors: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.vectors} vectors in {self.seconds:.1f} s, {self.vectors / max(self.seconds, 1e-9):.1f} a second"


def open_source(path: str | Path, collection: str | None = None) -> Source:
    """The vectors in a file (.npy, .npz, .parquet, .jsonl, .csv), or in the folder of a Chroma or LanceDB store.

    collection: which collection or table, where the store has several.
    Raises `InputError` for what is missing, empty, unreadable or of another kind.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"there is nothing at {path}; expected a file of vectors or the folder of a database")
    if (path / CHROMA_FILE).is_file():
        kind = ChromaCollection
    elif any(path.glob("*.lance")):
        kind = LanceTable
    elif path.is_dir():
        raise InputError(f"{path} is neither a Chroma store ({CHROMA_FILE}) nor a LanceDB folder (*.lance)")
    elif path.suffix not in FILES:
        raise InputError(f"{path.name} is of an unknown kind; expected {', '.join(FILES)} or a database's folder")
    elif path.stat().st_size == 0:
        raise InputError(f"{path} is empty; expected one vector a row")
    else:
        kind = FILES[path.suffix]
    source = kind(path, collection)
    if path.is_file():
        source.state = f"{path.stat().st_size} bytes, written {datetime.fromtimestamp(path.stat().st_mtime, UTC)}"
    if source.count == 0:
        raise InputError(f"{source.name} holds no vector")
    return source


class Audit:
    """The audit of one source into one folder. `run`, then `parts` or `table`."""

    def __init__(
        self, source: Source, inverter: Inverter, out: str | Path, *,
        chunk: int = CHUNK, num_steps: int = 4, verify: bool = True, process: int = 0, processes: int = 1,
    ):  # fmt: skip
        """verify: encode every recovered text again; its cosine to the vector is the confidence (NaN without).

        Raises `InputError` for a folder that holds the audit of something else.
        """
        if chunk < 1 or not 0 <= process < processes:
            raise InputError(f"chunk must be 1 or more, process below processes; got {chunk}, {process}, {processes}")
        self.source, self.inverter, self.out = source, inverter, Path(out)
        self.chunk, self.num_steps, self.verify = chunk, num_steps, verify
        self.process, self.processes = process, processes
        self._check_claim()

    @cached_property
    def origin(self) -> Origin:
        """Where the vectors seem to come from, judged by the first chunk, or as many as it takes to fill the sample."""
        good = []
        for chunk in self.source.chunks(self.chunk):
            good.extend(self._good(chunk))
            if len(good) >= SAMPLE:
                break
        if len(good) < 2:
            raise InputError(f"{self.source.name} holds {len(good)} usable vectors; an audit needs at least 2")
        return check_origin(self.inverter, np.stack(good), num_steps=self.num_steps)

    def run(self, tell: Callable[[str], None] = print, *, progress: bool = True) -> Throughput:
        """Do what is left of this process's share. Broken rows are told one by one, and counted at the end."""
        make_folder(self.out)
        if self.process == 0 and not (self.out / "audit.json").is_file():  # what the folder is the audit of
            contents = json.dumps(self._about, indent=1) + "\n"
            write_atomically(self.out / "audit.json", lambda path: path.write_text(contents, encoding="utf-8"))
        started, done, broken = time.perf_counter(), 0, 0
        left = self.source.count and sum(map(self._wanted, range(-(-self.source.count // self.chunk))))
        bar = {"desc": "audit", "unit": " vectors", "unit_scale": self.chunk, "total": left, "disable": not progress}
        for chunk in tqdm(self.source.chunks(self.chunk, self._wanted), **bar):
            part = self._recovered(chunk)
            write_atomically(self._path(chunk.number), functools.partial(pq.write_table, part))
            problems = part.filter(pc.is_valid(part["problem"])).to_pylist()
            for found in problems[: max(0, TOLD - broken)]:
                tell(f"row {found['row']}: {found['problem']}; left out")
            broken, done = broken + len(problems), done + len(part)
        if broken:
            tell(f"{broken} of {done} rows could not be inverted; the rest was")
        return Throughput(done, time.perf_counter() - started)

    def parts(self) -> Iterator[pa.Table]:
        """What all processes have written so far, one part at a time, in row order."""
        return map(pq.read_table, sorted(self.out.glob("part-*.parquet")))

    def table(self) -> pd.DataFrame:
        """All of it: row, id, text, confidence, problem."""
        return pa.concat_tables(self.parts()).to_pandas()

    def _good(self, chunk: Chunk) -> np.ndarray:
        """The vectors of a chunk that can be inverted, [n, embed_dim]."""
        good = chunk.vectors[chunk.finite()]
        if len(good):  # absent ones have no dimension either
            check_dimension(good.shape[1], self.inverter.config.embedding_cond_dim)
        return good

    def _recovered(self, chunk: Chunk) -> pa.Table:
        good, vectors = chunk.finite(), self._good(chunk)
        texts, confidence = np.full(len(good), None, object), np.full(len(good), np.nan, np.float32)
        if good.any():
            options = {"num_steps": self.num_steps, "keep_trajectories": False, "verify": self.verify}
            result = self.inverter.invert(vectors, **options)
            texts[good] = result.texts
            if self.verify:
                confidence[good] = result.cosines
        kinds = np.where(np.isfinite(chunk.vectors).all(axis=1), "all zeros", "NaN or infinite entries").astype(object)
        rows = np.arange(chunk.start, chunk.start + len(good))
        return pa.table([rows, chunk.ids, texts, confidence, np.where(good, None, kinds)], schema=SCHEMA)

    def _wanted(self, number: int) -> bool:
        return number % self.processes == self.process and not self._path(number).is_file()

    def _path(self, number: int) -> Path:
        return self.out / f"part-{number:07d}.parquet"

    @cached_property
    def _about(self) -> dict:
        """What this is the audit of. Other vectors under the same name show in `state`, `count` or the first chunk."""
        first = next((chunk.vectors.tobytes() for chunk in self.source.chunks(self.chunk, lambda n: n == 0)), b"")
        about = {"source": self.source.name, "count": self.source.count, "state": self.source.state}
        about |= {"first": hashlib.sha256(first).hexdigest(), "weights": fingerprint(self.inverter.model)}
        return about | {"chunk": self.chunk, "num_steps": self.num_steps, "verify": self.verify}

    def _check_claim(self) -> None:
        """Refuse a folder that holds the audit of something else."""
        path, otherwise = self.out / "audit.json", "choose another --out, or delete the folder"
        if not path.is_file():
            if any(self.out.glob("part-*.parquet")):
                raise InputError(f"{self.out} holds parts but no audit.json; choose another --out")
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{path} is damaged; {otherwise}") from None
        for key, value in self._about.items():
            if found.get(key) != value:
                told = f"{self.out} holds an audit with {key} = {found.get(key)!r}, this one has {value!r}"
                raise InputError(f"{told}; {otherwise}")
