"""Audit: every vector of a source → its recovered text, chunk by chunk, into a folder of parquet parts.

Memory holds one chunk. A part that is written is never done again, so a stopped audit goes on where it stopped; chunk k
belongs to process k mod processes, so several can share the work.
"""

import functools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from invlib.audit.confidence import Chances
from invlib.audit.decoding import STEPS, decoded, ways_back
from invlib.audit.origin import Origin, check_origin, judged, unit
from invlib.audit.precision import Precision, readings
from invlib.audit.survey import Survey
from invlib.checkpoint import fingerprint as weights_of
from invlib.checkpoint import locate, write_atomically
from invlib.door.files import make_folder
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.sources import Chunk, Source, fingerprint
from invlib.studies.attackers import load_attacker

CHUNK = 1024
TOLD = 20  # broken rows that are named one by one; all are counted
CHANCES = ("exact_low", "exact_high", "words_low", "words_high")
SCHEMA = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("text", pa.string()), ("confidence", pa.float32())]
    + [("verdict", pa.string()), *((name, pa.float32()) for name in CHANCES)]
    + [("problem", pa.string()), ("metadata", pa.string())]
)


@dataclass(frozen=True)
class Throughput:
    """What one run of one process did."""

    vectors: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.vectors} vectors in {self.seconds:.1f} s, {self.vectors / max(self.seconds, 1e-9):.1f} a second"


class Audit:
    """The audit of one source into one folder. `run`, then `parts` or `table`."""

    def __init__(
        self, source: Source, inverter: Inverter, out: str | Path, *,
        chunk: int = CHUNK, num_steps: int = STEPS, verify: bool = True, process: int = 0, processes: int = 1,
    ):  # fmt: skip
        """verify: encode every recovered text again; its cosine to the vector is the confidence (NaN without).

        Raises `InputError` for a folder that holds the audit of something else.
        """
        if chunk < 1 or not 0 <= process < processes:
            raise InputError(f"chunk must be 1 or more, process below processes; got {chunk}, {process}, {processes}")
        self.source, self.inverter, self.out = source, inverter, Path(out)
        self.chunk, self.num_steps, self.verify = chunk, num_steps, verify
        self.process, self.processes = process, processes
        self.sha256 = fingerprint(source.evidence)
        self._check_claim()

    @cached_property
    def survey(self) -> Survey:
        """One look through the whole source. Raises `InputError` where nothing in it can be used."""
        found, expected = Survey.of(self.source, self.chunk), self.inverter.config.embedding_cond_dim
        if self.source.dim != expected and expected in found.lengths:
            self.source.dim = expected
            found = Survey.of(self.source, self.chunk)
        return found

    @cached_property
    def _judged(self) -> tuple[Precision, Inverter, Origin]:
        """The reading whose texts lead back the furthest, who reads, and where the vectors seem to come from."""
        found = []
        for precision in readings(self.survey, self.inverter):
            vectors, inverter = precision.read(self.survey.sample), self._attacker(precision)
            vectors = vectors[vectors.any(axis=1)]
            origin = check_origin(inverter, vectors, num_steps=self.num_steps, is_exact=precision.is_exact)
            found.append((precision, inverter, origin))
        return max(found, key=lambda own: float(np.median(own[2].rows.loop)))

    @property
    def precision(self) -> Precision:
        """How the stored numbers are read."""
        return self._judged[0]

    @property
    def origin(self) -> Origin:
        """Where the vectors seem to come from, by a sample across the whole source."""
        return self._judged[2]

    @cached_property
    def chances(self) -> Chances | None:
        """What a confidence is worth; None where nobody measured it for this checkpoint."""
        return Chances.near(self.inverter, self.out)

    def run(self, tell: Callable[[str], None] = print, *, progress: bool = True) -> Throughput:
        """Do what is left of this process's share. Broken rows are told one by one, and counted at the end."""
        make_folder(self.out)
        if self.process == 0 and not (self.out / "audit.json").is_file():  # what the folder is the audit of
            contents = json.dumps(self._about, indent=1) + "\n"
            write_atomically(self.out / "audit.json", lambda path: path.write_text(contents, encoding="utf-8"))
        started, done, broken = time.perf_counter(), 0, 0
        bar = {
            "desc": "audit",
            "unit": " vectors",
            "total": self.survey.rows // self.processes,
            "disable": not progress,
        }
        with tqdm(**bar) as shown:
            for chunk in self.source.chunks(self.chunk, self._wanted):
                part = self._recovered(chunk)
                write_atomically(self._path(chunk.number), functools.partial(pq.write_table, part))
                problems = part.filter(pc.is_valid(part["problem"])).to_pylist()
                for found in problems[: max(0, TOLD - broken)]:
                    tell(f"row {found['row']}: {found['problem']}; left out")
                broken, done = broken + len(problems), done + len(part)
                shown.update(len(part))
        if broken:
            tell(f"{broken} of {done} rows could not be inverted; the rest was")
        return Throughput(done, time.perf_counter() - started)

    def parts(self) -> Iterator[pa.Table]:
        """What all processes have written so far, one part at a time, in row order."""
        return map(pq.read_table, sorted(self.out.glob("part-*.parquet")))

    def table(self) -> pd.DataFrame:
        """All of it, one row a row of the source: the columns of SCHEMA."""
        return pa.concat_tables(self.parts()).to_pandas()

    def _recovered(self, chunk: Chunk) -> pa.Table:
        precision, inverter, origin = self._judged
        columns = {name: np.full(len(chunk.ids), np.nan, np.float32) for name in ("confidence", *CHANCES)}
        columns |= {name: np.full(len(chunk.ids), None, object) for name in ("text", "verdict")}
        good = np.flatnonzero(chunk.finite())
        if len(good):
            vectors = unit(precision.read(chunk.vectors[good]))
            columns["text"][good] = texts = decoded(inverter, vectors, self.num_steps)
            if self.verify:
                others = replace(origin.others, includes=origin.n == self.survey.usable)
                rows = judged(inverter, vectors, ways_back(inverter, vectors, texts), others, precision.is_exact)
                columns["confidence"][good], columns["verdict"][good] = rows.loop, rows.verdicts
                for name, values in (self.chances.of(rows.loop) if self.chances else {}).items():
                    columns[name][good] = values
        columns |= {"row": np.arange(chunk.start, chunk.start + len(chunk.ids)), "id": chunk.ids}
        columns |= {"problem": chunk.problems, "metadata": [json.dumps(own, default=str) for own in chunk.metadata] or
                    [None] * len(chunk.ids)}  # fmt: skip
        return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)

    def _attacker(self, precision: Precision) -> Inverter:
        """The inverter that adapted to a precision, where the checkpoint has one."""
        if precision.attacker is None or self.inverter.name is None:
            return self.inverter
        path = locate(self.inverter.name) / "attackers" / f"{precision.attacker}.safetensors"
        return load_attacker(self.inverter, path) if path.is_file() else self.inverter

    def _wanted(self, number: int) -> bool:
        return number % self.processes == self.process and not self._path(number).is_file()

    def _path(self, number: int) -> Path:
        return self.out / f"part-{number:07d}.parquet"

    @cached_property
    def _about(self) -> dict:
        """What this is the audit of; other vectors under the same name have another hash."""
        about = {"source": self.source.name, "sha256": self.sha256, "weights": weights_of(self.inverter.model)}
        about |= {"products": self.inverter.model.precision, "column": self.source.note}
        about |= {"chunk": self.chunk, "num_steps": self.num_steps, "verify": self.verify}
        return about

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
