"""Sweep: perturbation × strength × decoding × seed → one tidy DataFrame, with intervals and controls.

Every finished cell is kept on disk (`results`), so none is computed twice and an interrupted sweep goes on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import normalize
from tqdm.auto import tqdm

from invlib.checkpoint import fingerprint
from invlib.encoder import check_texts
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import mean_interval, ranks, reencoded, score, share_interval, words
from invlib.perturb import Perturbation, Unchanged, apply
from invlib.studies.leaks import Record, leaked
from invlib.studies.results import cell_path, kept
from invlib.studies.score import CONTROLS, INVERTED, nearest, somebody_else
from invlib.words import WordMap

VERSION = 2  # of what a cell holds; raise it when a metric or a control changes
CACHE = Path("data/runs/sweep")
DECODINGS = {"8 steps": {"num_steps": 8}}
LATENT_DIM = 128
COLUMNS = ("metric", "value", "low", "high", "n")
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
        name, strength, measure = ("no vector", 0, "nothing") if p is None else (p.name, p.strength, p.measure)
        where = {"perturbation": name, "strength": float(strength), "measure": measure}
        return {**where, "decoding": self.decoding, "seed": self.seed}


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
    cache: folder of the finished cells, which are read instead of computed (`results.cell_path`): the weights, encoder,
      texts, perturbation with all its parameters, decoding and seed are the key.

    Columns: perturbation, strength, measure, decoding, seed, attacker, metric, value, low, high, n. Attackers:
      inverted: from the perturbed vector, as its `recover` maps it back.
      shuffled embeddings: the same texts beside another text's reference: what any fluent text would score.
      nearest sentence: the other text whose clean vector is closest to the perturbed one; needs no model.
      word map: the most probable words of the linear map, where the encoder has one.
      unconditional prior: in rows of perturbation "no vector"; its lengths are those read from the clean vectors.
    Metrics: those of `metrics.score`; cosine (attacked encoder) and independent_cosine (`Bench.independent`) of the
      recovered text to the true one; top_1 and rank of the true text among all the texts for the recovered one;
      vector_cosine of the perturbed vector to the clean one. 95 % intervals over the n texts.
    Raises `InputError` for texts or options that do not fit, and for a cell that cannot be read or written.
    """
    bench = Bench(inverter, texts)
    cells = list(_grid(perturbations, decodings or DECODINGS, seeds, reference))
    if not cells:
        raise InputError("a sweep needs at least one perturbation (or the reference), one decoding and one seed")
    tables, identity = [], bench.identity
    for cell in tqdm(cells, desc="sweep", unit=" cells", disable=not progress):
        path = cell_path(cache, identity, cell.perturbation, dict(cell.options), cell.seed)
        tables.append(pd.DataFrame(kept(path, partial(measure, bench, cell))).assign(**cell.labels()))
    return pd.concat(tables, ignore_index=True)[[*cells[0].labels(), "attacker", *COLUMNS]]


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
    def independent(self) -> Pipeline:
        """A second embedder, so that texts made to please the attacked encoder are found out, fitted on the texts.

        TF-IDF of words and a truncated SVD (latent semantic analysis, Deerwester et al. 1990): it shares nothing with a
        neural encoder, sees shared and co-occurring words and nothing else, and scores a paraphrase low.
        """
        tfidf = TfidfVectorizer(analyzer=words, sublinear_tf=True)
        size = min(tfidf.fit_transform(self.texts).shape) - 1
        return make_pipeline(tfidf, TruncatedSVD(max(1, min(LATENT_DIM, size)), random_state=0)).fit(self.texts)

    @property
    def identity(self) -> dict:
        """What every cell of this sweep depends on."""
        model, encoder = self.inverter.model, self.inverter.encoder
        told = (encoder.name, encoder.prompt, encoder.dim, str(next(encoder.model.parameters()).dtype))
        weights = (fingerprint(model), model.precision)
        return {"version": VERSION, "weights": weights, "encoder": told, "texts": self.records or self.texts}

    def score(self, texts: Sequence[str], vectors: np.ndarray, rows: np.ndarray | None = None) -> list[dict]:
        """Every metric of what was written: metric, value, low, high, n.

        vectors: of these texts, zero for an empty one; rows: which of the true texts each is compared with.
        """
        rows = np.arange(len(texts)) if rows is None else rows
        references, n = [self.texts[row] for row in rows], len(texts)
        encode, places = self.independent.transform, ranks(vectors, self.vectors, rows)
        found = [
            ("cosine", *mean_interval(_cosines(vectors, self.vectors[rows])), n),
            ("independent_cosine", *mean_interval(_cosines(encode(texts), encode(references))), n),
            ("top_1", *share_interval(places == 1), n),
            ("rank", *mean_interval(places), n),
        ]
        if self.records:
            shares = leaked([self.records[row] for row in rows], texts).query("metric == 'exact'")
            found += [(f"leaked {r.kind}", r.value, r.low, r.high, r.n) for r in shares.itertuples()]
        return score(references, texts).to_dict("records") + [_row(*own) for own in found]


def measure(bench: Bench, cell: Cell) -> list[dict]:
    """The rows of one cell, without the cell's own labels: attacker, metric, value, low, high, n."""
    inverter, generator = bench.inverter, torch.Generator().manual_seed(cell.seed)
    options = {"keep_trajectories": False, "generator": generator, **cell.options}
    if cell.perturbation is None:
        texts = inverter.invert(bench.vectors, conditional=False, **options).texts
        written = {CONTROLS[0]: bench.score(texts, _encoded(bench, texts))}
    else:
        seen = apply(cell.perturbation, bench.vectors, generator)
        texts = inverter.invert(seen.vectors, **options).texts
        vectors = _encoded(bench, texts)
        close = nearest(seen.vectors, bench.vectors, own_excluded=True)
        moved = _row("vector_cosine", *mean_interval(seen.cosines), len(texts))
        written = {
            INVERTED: [*bench.score(texts, vectors), moved],
            CONTROLS[1]: bench.score(texts, vectors, somebody_else(len(texts), generator)),
            CONTROLS[2]: bench.score([bench.texts[i] for i in close], bench.vectors[close]),
        }
        if (known := WordMap.near(inverter.encoder)) is not None:
            texts = list(map(" ".join, known.bags(seen.vectors)))
            written[CONTROLS[3]] = bench.score(texts, _encoded(bench, texts))
    return [{"attacker": attacker, **row} for attacker, rows in written.items() for row in rows]


def _grid(
    perturbations: Sequence, decodings: Mapping[str, Decoding], seeds: Sequence[int], reference: bool
) -> Iterator[Cell]:
    for other in (p for p in perturbations if not isinstance(p, Perturbation)):
        raise InputError(f"a sweep takes perturbations (derived from invlib.perturb.Perturbation), got {other!r}")
    changed = [p for p in perturbations if not isinstance(p, Unchanged)]
    for label, options in decodings.items():
        for seed in seeds:
            for p in ([None, Unchanged()] if reference else []) + changed:
                yield Cell(p, label, options(p or Unchanged()) if callable(options) else options, seed)


def _encoded(bench: Bench, texts: Sequence[str]) -> np.ndarray:
    return reencoded(texts, bench.inverter.encoder.encode, bench.vectors.shape[1])


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of matching rows, [n]; 0 where one of them is zero."""
    return (normalize(a) * normalize(b)).sum(axis=1)


def _row(*values) -> dict:
    return dict(zip(COLUMNS, values, strict=True))
