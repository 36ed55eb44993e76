"""Every kind of store gives the same rows, and none of them is touched."""

import numpy as np
import pytest

from invlib.sources import fingerprint, open_source
from tests.sources.stores import NAMED, WRITERS, names

ROWS, D = 11, 384
ARRAY = np.random.default_rng(0).normal(size=(ROWS, D)).astype(np.float32) / D**0.5
TEXTS = [f"An invented text, number {row}." for row in range(ROWS)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Each kind is written once."""
    folder, written = tmp_path_factory.mktemp("stores"), set()

    def store(name):
        if name not in written:
            WRITERS[name](folder / name, ARRAY, TEXTS)
            written.add(name)
        return folder / name

    return store


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_the_same_rows_and_stays_as_it_was(stores, name):
    path = stores(name)
    before = fingerprint(path)
    source = open_source(path, dim=D)
    for size in (4, 100):
        chunks = list(source.chunks(size))
        found = np.concatenate([chunk.vectors for chunk in chunks])
        np.testing.assert_allclose(found, ARRAY, rtol=2e-3 if "half" in name else 1e-5, atol=1e-6)
        expected = names(ARRAY) if name in NAMED else [str(row) for row in range(ROWS)]
        assert [own for chunk in chunks for own in chunk.ids] == expected
        assert [chunk.start for chunk in chunks] == np.cumsum([0, *(len(c.ids) for c in chunks)])[:-1].tolist()
    assert source.count in (ROWS, None)
    assert fingerprint(path) == before


@pytest.mark.parametrize("name", WRITERS)
def test_only_the_wanted_chunks_are_given(stores, name):
    wanted = list(open_source(stores(name), dim=D).chunks(2, lambda number: number == 1))
    assert [(chunk.number, chunk.start) for chunk in wanted] == [(1, 2)]
    np.testing.assert_allclose(wanted[0].vectors, ARRAY[2:4], rtol=2e-3, atol=1e-6)
