"""Sweep: perturbation × strength × decoding × seed → one tidy DataFrame, with intervals and controls.

Every cell is kept on disk under a key made of all that it depends on, so a finished cell is never computed twice and
an interrupted sweep goes on where it stopped.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from invlib.checkpoint import fingerprint, write_atomically
from invlib.encoder import check_texts
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import cosine, interval, ranks, score
from invlib.perturb import Perturbation, Unchanged, apply
from invlib.studies.controls import CONTROLS, INVERTED, nearest, somebody_else
from invlib.studies.independent import LatentSemantic
from invlib.studies.leaks import Record, scorecard

VERSION = 1  # of what a cell holds; raise it when a metric or a control changes
CACHE = Path("data/runs/sweep")
NO_VECTOR = "no vector"
DECODINGS = {"8 steps": {"num_steps": 8}}
Decoding = Mapping[str, Any] | Callable[[Perturbation], Mapping[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One point of the grid. Without a perturbation it is the prior: the model does not hear the vector at all."""

    perturbation: Perturbation | None
    decoding: str
    options: Mapping[str, Any]
    seed: int

    def labels(self) -> dict:
        """The columns by which its rows are found."""
        p = self.perturbation
        name, strength, measure = (NO_VECTOR, 0, "nothing") if p is None else (p.name, p.strength, p.measure)
        return {
            "perturbation": name,
            "strength": float(strength),
            "measure": measure,
            "decoding": self.decoding,
            "seed": self.seed,
        }


def sweep(
    inverter: Inverter,
    texts: Sequence[str] | Sequence[Record],
    perturbations: Sequence[Perturbation],
    *,
    decodings: Mapping[str, Decoding] | None = None,
    seeds: Sequence[int] = (0,),
    reference: bool = True,
    cache: str | Path = CACHE,
    progress: bool = True,
) -> pd.DataFrame:
    """How much of each text comes back from its perturbed vector, beside the controls.

    texts: at least three; with `Record`s, whose secrets are counted too, as metrics `leaked name`, …, `leaked all`.
    decodings: label → options of `Inverter.invert`, or a function of the perturbation that returns them.
    seeds: of the noise and of the decoding.
    reference: with the clean vector (perturbation "none") and the unconditional prior, for every decoding and seed.
    cache: folder of the finished cells. A cell's key is made of the weights, the encoder, the texts, the perturbation
      with all its parameters, the decoding and the seed; a file there is read instead of computed.

    Columns: perturbation, strength, measure, decoding, seed, attacker, metric, value, low, high, n. Attackers:
      inverted: from the perturbed vector, as its `recover` maps it back.
      shuffled embeddings: the same texts beside another text's reference: what any fluent text would score.
      nearest sentence: the other text whose clean vector is closest to the perturbed one; needs no model.
      unconditional prior: in rows of perturbation "no vector"; its lengths are those read from the clean vectors.
    Metrics: those of `metrics.score`; cosine (attacked encoder) and independent_cosine (`LatentSemantic`, fitted on the
      texts) of the recovered text to the true one; top_1 and rank of the true text among all the texts for the
      recovered one; vector_cosine of the perturbed vector to the clean one. 95 % intervals over the n texts.
    Raises `InputError` for texts or options that do not fit, and for a cell that cannot be read or written.
    """
    bench = Bench(inverter, texts)
    cells = list(_grid(perturbations, decodings or DECODINGS, seeds, reference))
    if not cells:
        raise InputError("a sweep needs at least one perturbation (or the reference), one decoding and one seed")
    bar = tqdm(cells, desc="sweep", unit=" cells", disable=not progress)
    tables = list(_tables(bench, bar, Path(cache).expanduser()))
    return pd.concat(tables, ignore_index=True)[[*cells[0].labels(), *tables[0].columns[:6]]]


def _tables(bench: "Bench", cells: Iterable[Cell], folder: Path) -> Iterator[pd.DataFrame]:
    """The rows of each cell with its labels, read where it is finished, else computed and kept."""
    identity = bench.identity
    for cell in cells:
        inputs = {**identity, **cell_inputs(cell)}
        rows = _kept(folder, inputs) or _keep(folder, inputs, measure(bench, cell))
        yield pd.DataFrame(rows).assign(**cell.labels())


class Bench:
    """What a sweep measures against: the texts, their clean vectors, and the two embedders. Computed when asked for."""

    def __init__(self, inverter: Inverter, items: Sequence[str] | Sequence[Record]):
        self.inverter = inverter
        self.records = list(items) if len(items) and isinstance(items[0], Record) else None
        self.texts = check_texts([record.text for record in self.records] if self.records else items)
        if len(self.texts) < 3:
            raise InputError(f"a sweep needs at least 3 texts, got {len(self.texts)}")

    @cached_property
    def vectors(self) -> np.ndarray:
        """Clean vectors, [n, d]."""
        return self.inverter.encoder.encode(self.texts)

    @cached_property
    def independent(self) -> LatentSemantic:
        return LatentSemantic(self.texts)

    @property
    def identity(self) -> dict:
        """What every cell of this sweep depends on."""
        secrets = [[(s.kind, s.value) for s in record.secrets] for record in self.records or ()]
        weight = next(self.inverter.model.parameters())
        return {
            "version": VERSION,
            "weights": fingerprint(self.inverter.model),
            "precision": str(weight.dtype),
            "encoder": self._encoder(),
            "texts": _digest(json.dumps([self.texts, secrets]).encode()),
        }

    def _encoder(self) -> dict:
        encoder = self.inverter.encoder
        precision = str(next(encoder.model.parameters()).dtype)
        return {"name": encoder.name, "prompt": encoder.prompt, "dim": encoder.dim, "precision": precision}

    def score(self, texts: Sequence[str], vectors: np.ndarray, of: np.ndarray | None = None) -> list[dict]:
        """Every metric of what was written. vectors: of these texts, zero for an empty one; of: row → its reference."""
        of = np.arange(len(texts)) if of is None else of
        references, clean = [self.texts[i] for i in of], self.vectors[of]
        table = score(references, texts)
        places = ranks(vectors, self.vectors, of)
        empty = ~vectors.any(axis=1)
        cosines = np.where(empty, 0, cosine(np.where(empty[:, None], clean, vectors), clean))
        more = {
            "cosine": interval(cosines),
            "independent_cosine": interval(self.independent.cosines(references, texts)),
            "top_1": interval(places == 1, "exact_match"),  # that name has Wilson's interval
            "rank": interval(places),
        }
        rows = table.to_dict("records")
        rows += [_row(metric, found, len(texts)) for metric, found in more.items()]
        if self.records:
            leaks = scorecard([self.records[i] for i in of], texts).query("metric == 'exact'")
            rows += [_row(f"leaked {r.kind}", (r.value, r.low, r.high), r.n) for r in leaks.itertuples()]
        return rows


def measure(bench: Bench, cell: Cell) -> list[dict]:
    """The rows of one cell, without the cell's own labels: attacker, metric, value, low, high, n."""
    generator = torch.Generator().manual_seed(cell.seed)
    options = {"keep_trajectories": False, "generator": generator, **cell.options}
    if cell.perturbation is None:
        texts = bench.inverter.invert(bench.vectors, conditional=False, **options).texts
        return _labelled(CONTROLS[0], bench.score(texts, _encoded(bench, texts)))
    seen = apply(cell.perturbation, bench.vectors, generator)
    texts = bench.inverter.invert(seen.vectors, **options).texts
    vectors = _encoded(bench, texts)
    close = nearest(seen.vectors, bench.vectors, own_excluded=True)
    other = somebody_else(len(texts), generator)
    inverted = bench.score(texts, vectors)
    inverted.append(_row("vector_cosine", interval(seen.cosines), len(texts)))
    return [
        *_labelled(INVERTED, inverted),
        *_labelled(CONTROLS[1], bench.score(texts, vectors, other)),
        *_labelled(CONTROLS[2], bench.score([bench.texts[i] for i in close], bench.vectors[close])),
    ]


def cell_inputs(cell: Cell) -> dict:
    """What a cell depends on besides its sweep, in plain values."""
    return {
        "perturbation": None if cell.perturbation is None else describe(cell.perturbation),
        "options": {name: _plain(value) for name, value in cell.options.items()},
        "seed": cell.seed,
    }


def describe(perturbation: Perturbation) -> dict:
    """The class, the formulas and every parameter of a perturbation; arrays by their SHA-256.

    The formulas, because one that is being written in a notebook changes under the same name.
    Raises `InputError` for one whose parameters cannot be told: it is no dataclass.
    """
    kind = type(perturbation)
    if not isinstance(perturbation, Perturbation) or not dataclasses.is_dataclass(perturbation):
        raise InputError(
            f"a sweep takes perturbations (dataclasses derived from invlib.perturb.Perturbation), got {kind.__name__}"
        )
    return {**_fields(perturbation), "formulas": _digest((_source(kind._store) + _source(kind._recover)).encode())}


def _fields(value: Any) -> dict:
    names = [field.name for field in dataclasses.fields(value)]
    return {"class": _name(type(value)), **{name: _plain(getattr(value, name)) for name in names}}


def _plain(value: Any) -> Any:
    """A parameter in plain values: another parameter has others."""
    if isinstance(value, Perturbation):
        return describe(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, np.ndarray):
        return _digest(str(value.shape).encode() + np.ascontiguousarray(value, np.float64).tobytes())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, functools.partial):
        return {"function": _plain(value.func), "arguments": _plain(value.args), "named": _plain(value.keywords)}
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return _written(value) if callable(value) else value


def _written(function: Any) -> dict:
    """How a function is written, and the values that were bound when it was made; not what it calls."""
    function = inspect.unwrap(function)
    told = {"function": _name(function), "source": _digest(_source(function).encode())}
    if not inspect.isfunction(function):
        return told
    bound = inspect.getclosurevars(function).nonlocals
    return {**told, "bound": _plain(bound), "defaults": _plain([function.__defaults__, function.__kwdefaults__])}


def _name(thing: Any) -> str:
    module = getattr(thing, "__module__", type(thing).__module__)
    return f"{module}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def _source(function: Any) -> str:
    """How a function is written, or its bytecode where nobody kept the text."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return function.__code__.co_code.hex() if hasattr(function, "__code__") else _name(function)


def _grid(
    perturbations: Sequence[Perturbation], decodings: Mapping[str, Decoding], seeds: Sequence[int], reference: bool
) -> Iterator[Cell]:
    changed = [p for p in perturbations if not isinstance(p, Unchanged)]
    for label, options in decodings.items():
        for seed in seeds:
            for perturbation in ([None, Unchanged()] if reference else []) + changed:
                chosen = options(perturbation or Unchanged()) if callable(options) else options
                if not isinstance(chosen, Mapping):
                    raise InputError(
                        f"the decoding {label!r} is {chosen!r}; expected options of Inverter.invert, such as "
                        "{'num_steps': 8}"
                    )
                yield Cell(perturbation, label, chosen, seed)


def _encoded(bench: Bench, texts: Sequence[str]) -> np.ndarray:
    """Vectors of what was written, [n, d]; zero for an empty text."""
    vectors = np.zeros_like(bench.vectors)
    rows = [row for row, text in enumerate(texts) if text.strip()]
    if rows:
        vectors[rows] = bench.inverter.encoder.encode([texts[row] for row in rows])
    return vectors


def _kept(folder: Path, inputs: dict) -> list[dict] | None:
    """The rows of a finished cell, or None."""
    path = _path(folder, inputs)
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept["rows"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not a finished cell of a sweep; delete it and run the sweep again") from None


def _keep(folder: Path, inputs: dict, rows: list[dict]) -> list[dict]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot hold the cells of a sweep: {error.strerror}; choose another cache") from None
    contents = json.dumps({"inputs": inputs, "rows": rows}, indent=1) + "\n"
    write_atomically(_path(folder, inputs), lambda path: Path(path).write_text(contents, encoding="utf-8"))
    return rows


def _path(folder: Path, inputs: dict) -> Path:
    try:
        plain = json.dumps(inputs, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(
            f"{inputs['perturbation']} with the decoding {inputs['options']} holds values that cannot name a cell; "
            "use numbers, texts, functions and dataclasses"
        ) from None
    return folder / f"{_digest(plain.encode())[:32]}.json"


def _digest(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def _labelled(attacker: str, rows: list[dict]) -> list[dict]:
    return [{"attacker": attacker, **row} for row in rows]


def _row(metric: str, found: tuple[float, float, float], n: int) -> dict:
    value, low, high = found
    return {"metric": metric, "value": value, "low": low, "high": high, "n": n}
