"""First pass: what is asked of every vector without decoding one. Watch-words, and texts that may be in the store."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from invlib.audit.audit import Audit
from invlib.audit.membership import Membership
from invlib.audit.origin import unit, unused
from invlib.audit.precision import PLAIN
from invlib.audit.watch import Watch
from invlib.checkpoint import SENTENCES
from invlib.studies.results import write_table
from invlib.training.pairs import read_texts
from invlib.words import WordMap

CHUNK = 8192  # vectors at a time
KNOWN = 3  # every so manieth of the project's own sentences is held against the store


def first_pass(audit: Audit, watch: Sequence[str] = (), contains: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """The tables of `Watch` and `Membership` by name, also written into the audit's folder: watch, contains.

    A store that keeps only the first coordinates can be asked for texts, not for words.
    Raises `InputError` for another dimension, and where the encoder has no word map.
    """
    sample, encoder, questions = audit.survey.sample, audit.inverter.encoder, {}
    is_cut = sample.shape[1] < audit.inverter.config.embedding_cond_dim and not watch
    precision = PLAIN if is_cut and not audit.survey.is_whole else audit.precision
    if watch:
        questions["watch"] = Watch(watch, WordMap.load(encoder))
    if contains:
        never, random = unused(audit.inverter)[: sample.shape[1]], np.random.default_rng(0)
        noise = np.sqrt((unit(sample)[:, never] ** 2).mean()) if precision is PLAIN and never.any() else 0.0
        keep = lambda clean: unit(precision.keep(clean) + noise * random.standard_normal(clean.shape))  # noqa: E731
        known, sure = read_texts(SENTENCES)[::KNOWN], not precision.estimated
        questions["contains"] = Membership(contains, encoder.encode, known, keep, is_sure=sure)
    for chunk in audit.source.chunks(CHUNK):
        good = np.flatnonzero(chunk.finite())
        if len(good):
            vectors, ids = unit(precision.read(chunk.vectors[good])), [chunk.ids[row] for row in good]
            for question in questions.values():
                question.see(ids, vectors)
    tables = {name: question.table() for name, question in questions.items()}
    for name, table in tables.items():
        write_table(audit.out / f"{name}.csv", table)
    return tables
