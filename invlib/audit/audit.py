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

CHUNK = 1024
TOLD = 20  # broken rows that are named one by one; all are counted
SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "id": pa.string(),
        "text": pa.string(),
        "confidence": pa.float32(),
        "problem": pa.string(),
    }
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
    source = _open_folder(path, collection) if path.is_dir() else _open_file(path)
    if source.count == 0:
        raise InputError(f"{source.name} holds no vector")
    return source


def _open_folder(path: Path, collection: str | None) -> Source:
    if (path / CHROMA_FILE).is_file():
        return ChromaCollection(path, collection)
    if any(path.glob("*.lance")):
        return LanceTable(path, collection)
    raise InputError(f"{path} is neither a Chroma store ({CHROMA_FILE}) nor a LanceDB folder (*.lance)")


def _open_file(path: Path) -> Source:
    if path.suffix not in FILES:
        raise InputError(f"{path.name} is of an unknown kind; expected {', '.join(FILES)} or the folder of a database")
    found = path.stat()
    if found.st_size == 0:
        raise InputError(f"{path} is empty; expected one vector a row")
    source = FILES[path.suffix](path)
    source.state = f"{found.st_size} bytes, written {datetime.fromtimestamp(found.st_mtime, UTC)}"
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
            told = f"got {chunk}, {process}, {processes}"
            raise InputError(f"chunk must be at least 1, and process below processes; {told}")
        self.source, self.inverter, self.out = source, inverter, Path(out)
        self.chunk, self.num_steps, self.verify = chunk, num_steps, verify
        self.process, self.processes = process, processes
        self._check_claim()

    @cached_property
    def origin(self) -> Origin:
        """Where the vectors seem to come from, judged by the first chunk, or as many as it takes to fill the sample."""
        good = np.zeros((0, self.inverter.config.embedding_cond_dim), np.float32)
        for chunk in self.source.chunks(self.chunk):
            good = np.concatenate([good, self._good(chunk)])
            if len(good) >= SAMPLE:
                break
        if len(good) < 2:
            raise InputError(f"{self.source.name} holds {len(good)} usable vectors; an audit needs at least 2")
        return check_origin(self.inverter, good, num_steps=self.num_steps)

    def run(self, tell: Callable[[str], None] = print, *, progress: bool = True) -> Throughput:
        """Do what is left of this process's share. Broken rows are told one by one, and counted at the end."""
        self._claim()
        started, done, broken = time.perf_counter(), 0, 0
        with tqdm(total=self._left(), desc="audit", unit=" vectors", disable=not progress) as bar:
            for chunk in self.source.chunks(self.chunk, self._wanted):
                part = self._recovered(chunk)
                write_atomically(self._path(chunk.number), functools.partial(pq.write_table, part))
                problems = part.filter(pc.is_valid(part["problem"])).to_pylist()
                for found in problems[: max(0, TOLD - broken)]:
                    tell(f"row {found['row']}: {found['problem']}; left out")
                broken, done = broken + len(problems), done + len(part)
                bar.update(len(part))
        if broken:
            tell(f"{broken} of {done} rows could not be inverted; the rest was")
        return Throughput(done, time.perf_counter() - started)

    def parts(self) -> Iterator[pa.Table]:
        """What all processes have written so far, one part at a time, in row order."""
        for path in sorted(self.out.glob("part-*.parquet")):
            yield pq.read_table(path)

    def table(self):
        """All of it as a DataFrame: row, id, text, confidence, problem."""
        return pa.concat_tables(self.parts()).to_pandas()

    def _good(self, chunk: Chunk) -> np.ndarray:
        """The vectors of a chunk that can be inverted, [n, embed_dim]; absent ones have no dimension either."""
        dim, good = self.inverter.config.embedding_cond_dim, chunk.vectors[chunk.finite()]
        if not len(good):
            return np.zeros((0, dim), np.float32)
        check_dimension(good.shape[1], dim)
        return good

    def _recovered(self, chunk: Chunk) -> pa.Table:
        good, vectors = chunk.finite(), self._good(chunk)
        texts = np.full(len(good), None, object)
        confidence = np.full(len(good), np.nan, np.float32)
        if good.any():
            options = {"num_steps": self.num_steps, "keep_trajectories": False, "verify": self.verify}
            result = self.inverter.invert(vectors, **options)
            texts[good] = result.texts
            if self.verify:
                confidence[good] = result.cosines
        kinds = np.where(np.isfinite(chunk.vectors).all(axis=1), "all zeros", "NaN or infinite entries").astype(object)
        rows = np.arange(chunk.start, chunk.start + len(good))
        return pa.table([rows, chunk.ids, texts, confidence, np.where(good, None, kinds)], schema=SCHEMA)

    def _left(self) -> int | None:
        """How many vectors of this process's share are not done yet; None where only reading it all tells."""
        if self.source.count is None:
            return None
        starts = range(0, self.source.count, self.chunk)
        return sum(min(self.chunk, self.source.count - start) for start in starts if self._wanted(start // self.chunk))

    def _wanted(self, number: int) -> bool:
        return number % self.processes == self.process and not self._path(number).is_file()

    def _path(self, number: int) -> Path:
        return self.out / f"part-{number:07d}.parquet"

    @cached_property
    def _about(self) -> dict:
        """What this is the audit of.

        Other vectors under the same name show in a file's size and time; in a database in the number of vectors and
        the digest of the first chunk.
        """
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

    def _claim(self) -> None:
        """Write down what this folder is the audit of, before its first part."""
        path = self.out / "audit.json"
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.out} cannot be made: {error.strerror}; choose another --out") from None
        if self.process == 0 and not path.is_file():
            contents = json.dumps(self._about, indent=1) + "\n"
            write_atomically(path, lambda partial: Path(partial).write_text(contents, encoding="utf-8"))
