"""Audit: every vector of a source → its recovered text, chunk by chunk, into a folder of parquet parts.

Memory holds one chunk. A part that is written is never done again, so a stopped audit goes on where it stopped; chunk k
belongs to process k mod processes, so several can share the work.
"""

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
    if path.is_dir():
        if (path / CHROMA_FILE).is_file():
            return _not_empty(ChromaCollection(path, collection))
        if any(path.glob("*.lance")):
            return _not_empty(LanceTable(path, collection))
        raise InputError(f"{path} is neither a Chroma store ({CHROMA_FILE}) nor a LanceDB folder (*.lance)")
    if not path.is_file():
        raise InputError(f"there is nothing at {path}; expected a file of vectors or the folder of a database")
    if path.suffix not in FILES:
        raise InputError(f"{path.name} is of an unknown kind; expected {', '.join(FILES)} or the folder of a database")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; expected one vector a row")
    source = FILES[path.suffix](path)
    source.state = f"{path.stat().st_size} bytes, written {datetime.fromtimestamp(path.stat().st_mtime, UTC)}"
    return _not_empty(source)


class Audit:
    """The audit of one source into one folder. `run`, then `parts` or `table`."""

    def __init__(
        self,
        source: Source,
        inverter: Inverter,
        out: str | Path,
        *,
        chunk: int = CHUNK,
        num_steps: int = 4,
        verify: bool = True,
        process: int = 0,
        processes: int = 1,
    ):
        """verify: encode every recovered text again; its cosine to the vector is the confidence (NaN without).

        Raises `InputError` for a folder that holds the audit of something else.
        """
        if chunk < 1 or not 0 <= process < processes:
            raise InputError(
                f"chunk must be at least 1, and process below processes; got {chunk}, {process}, {processes}"
            )
        self.source, self.inverter, self.out = source, inverter, Path(out)
        self.chunk, self.num_steps, self.verify = chunk, num_steps, verify
        self.process, self.processes = process, processes
        self._check_claim()

    @cached_property
    def origin(self) -> Origin:
        """Where the vectors seem to come from, judged by the first chunk, or as many as it takes to fill the sample."""
        good = np.zeros((0, self.inverter.config.embedding_cond_dim), np.float32)
        for chunk in self.source.chunks(self.chunk):
            if not chunk.finite().any():
                continue  # absent vectors have no dimension either
            check_dimension(chunk.vectors.shape[1], self.inverter.config.embedding_cond_dim)
            good = np.concatenate([good, chunk.vectors[chunk.finite()]])
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
                check_dimension(chunk.vectors.shape[1], self.inverter.config.embedding_cond_dim)
                part = self._recovered(chunk)
                write_atomically(self._path(chunk.number), lambda path, part=part: pq.write_table(part, path))
                for row, problem in _problems(part)[: max(0, TOLD - broken)]:
                    tell(f"row {row}: {problem}; left out")
                broken += len(_problems(part))
                done += len(part)
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

    def _recovered(self, chunk: Chunk) -> pa.Table:
        good = chunk.finite()
        texts = np.full(len(good), None, object)
        confidence = np.full(len(good), np.nan, np.float32)
        if good.any():
            options = {"num_steps": self.num_steps, "keep_trajectories": False, "verify": self.verify}
            result = self.inverter.invert(chunk.vectors[good], **options)
            texts[good] = result.texts
            if self.verify:
                confidence[good] = result.cosines
        problems = [None if ok else _problem(vector) for ok, vector in zip(good, chunk.vectors, strict=True)]
        rows = range(chunk.start, chunk.start + len(good))
        return pa.table([list(rows), chunk.ids, texts.tolist(), confidence, problems], schema=SCHEMA)

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
        first = next(iter(self.source.chunks(self.chunk, lambda number: number == 0)), None)
        vectors = np.zeros(0, np.float32) if first is None else first.vectors
        return {
            "source": self.source.name,
            "count": self.source.count,
            "state": self.source.state,
            "first": hashlib.sha256(np.ascontiguousarray(vectors).tobytes()).hexdigest(),
            "weights": fingerprint(self.inverter.model),
            "chunk": self.chunk,
            "num_steps": self.num_steps,
            "verify": self.verify,
        }

    def _check_claim(self) -> None:
        """Refuse a folder that holds the audit of something else."""
        path = self.out / "audit.json"
        if not path.is_file():
            if any(self.out.glob("part-*.parquet")):
                raise InputError(f"{self.out} holds parts but no audit.json; choose another --out")
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{path} is damaged; choose another --out, or delete the folder") from None
        for key, value in self._about.items():
            if found.get(key) != value:
                raise InputError(
                    f"{self.out} holds an audit with {key} = {found.get(key)!r}, this one has {value!r}; "
                    "choose another --out, or delete the folder"
                )

    def _claim(self) -> None:
        """Write down what this folder is the audit of, before its first part."""
        path = self.out / "audit.json"
        if path.is_file():
            return
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.out} cannot be made: {error.strerror}; choose another --out") from None
        if self.process == 0:
            contents = json.dumps(self._about, indent=1) + "\n"
            write_atomically(path, lambda partial: Path(partial).write_text(contents, encoding="utf-8"))


def _problem(vector: np.ndarray) -> str:
    return "all zeros" if np.isfinite(vector).all() else "NaN or infinite entries"


def _problems(part: pa.Table) -> list[tuple[int, str]]:
    found = zip(part.column("row").to_pylist(), part.column("problem").to_pylist(), strict=True)
    return [(row, problem) for row, problem in found if problem is not None]


def _not_empty(source: Source) -> Source:
    if source.count == 0:
        raise InputError(f"{source.name} holds no vector")
    return source
