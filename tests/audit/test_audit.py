"""The audit: every kind of source, what is told of broken input, and that a stopped audit goes on."""

import json
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from invlib import audit, perturb
from invlib.audit import Audit, open_source
from invlib.audit.__main__ import main
from invlib.errors import InputError

ROWS, D = 11, 6
ARRAY = np.random.default_rng(0).normal(size=(ROWS, D)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors(inverter, sentences):
    return inverter.encoder.encode(sentences)


def csv_text(array, header=None):
    lines = [",".join(map(repr, row)) for row in array.tolist()]
    return "\n".join([*([header] if header else []), *lines]) + "\n"


def lists(array):
    return pa.array(array.tolist())


def fixed(array):
    return pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])


WRITERS = {
    "plain.npy": lambda path, a: np.save(path, a),
    "double.npy": lambda path, a: np.save(path, a.astype(np.float64)),
    "one.npz": lambda path, a: np.savez(path, a),
    "packed.npz": lambda path, a: np.savez_compressed(path, other=np.arange(3), vectors=a),
    "lists.parquet": lambda path, a: pq.write_table(pa.table({"text": ["x"] * len(a), "emb": lists(a)}), path),
    "fixed.parquet": lambda path, a: pq.write_table(pa.table({"vector": fixed(a)}), path, row_group_size=3),
    "columns.parquet": lambda path, a: pq.write_table(pa.table({f"d{i}": a[:, i] for i in range(a.shape[1])}), path),
    "lists.jsonl": lambda path, a: path.write_text("".join(json.dumps(row) + "\n" for row in a.tolist())),
    "objects.jsonl": lambda path, a: path.write_text(
        "".join(json.dumps({"embedding": row, "text": "x"}) + "\n" for row in a.tolist())
    ),
    "bare.csv": lambda path, a: path.write_text(csv_text(a)),
    "headed.csv": lambda path, a: path.write_text(csv_text(a, ",".join(f"d{i}" for i in range(a.shape[1])))),
}
every_kind = pytest.mark.parametrize("name", WRITERS)


@every_kind
@pytest.mark.parametrize("size", [1, 4, ROWS, 100])
def test_every_kind_of_file_gives_the_same_chunks(tmp_path, name, size):
    WRITERS[name](tmp_path / name, ARRAY)
    source = open_source(tmp_path / name)
    chunks = list(source.chunks(size))
    assert [chunk.number for chunk in chunks] == list(range(-(-ROWS // size)))
    assert [chunk.start for chunk in chunks] == list(range(0, ROWS, size))
    np.testing.assert_array_equal(np.concatenate([chunk.vectors for chunk in chunks]), ARRAY)
    assert [name for chunk in chunks for name in chunk.ids] == [str(row) for row in range(ROWS)]
    assert source.count in (ROWS, None) and all(chunk.vectors.dtype == np.float32 for chunk in chunks)


@every_kind
def test_only_the_wanted_chunks_are_given(tmp_path, name):
    WRITERS[name](tmp_path / name, ARRAY)
    wanted = list(open_source(tmp_path / name).chunks(2, lambda number: number % 3 == 1))
    assert [chunk.number for chunk in wanted] == [1, 4]
    np.testing.assert_array_equal(wanted[1].vectors, ARRAY[8:10])
    assert wanted[1].ids == ["8", "9"]


def test_rows_keep_the_names_that_the_store_gave_them(tmp_path):
    pq.write_table(pa.table({"id": ["a", "b"], "vector": lists(ARRAY[:2])}), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"id": i, "vector": [1.0, 2.0]}) + "\n" for i in "ab"))
    (tmp_path / "t.csv").write_text("x,id,y\n1,a,2\n3,b,4\n")
    for kind in ("parquet", "jsonl", "csv"):
        (chunk,) = open_source(tmp_path / f"t.{kind}").chunks(5)
        assert chunk.ids == ["a", "b"], kind
    np.testing.assert_array_equal(chunk.vectors, [[1, 2], [3, 4]])


@pytest.fixture
def chroma(tmp_path):
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(tmp_path / "store"), settings=Settings(anonymized_telemetry=False))
    collection = client.create_collection("notes", embedding_function=None)
    names = [f"note {row}" for row in range(ROWS)]
    collection.add(ids=names, embeddings=ARRAY, documents=["secret"] * ROWS)
    return tmp_path / "store"


@pytest.fixture
def lance(tmp_path):
    import lancedb

    database = lancedb.connect(tmp_path / "lance")
    names = [f"note {row}" for row in range(ROWS)]
    database.create_table("notes", pa.table({"id": names, "vector": fixed(ARRAY), "text": ["secret"] * ROWS}))
    return tmp_path / "lance"


@pytest.mark.parametrize("store", ["chroma", "lance"])
def test_a_database_gives_ids_and_vectors_page_by_page(store, request):
    source = open_source(request.getfixturevalue(store))
    assert source.count == ROWS and "notes" in source.name
    chunks = list(source.chunks(4, lambda number: number != 1))
    assert [chunk.number for chunk in chunks] == [0, 2]
    found = {name: row for chunk in chunks for name, row in zip(chunk.ids, chunk.vectors, strict=True)}
    assert len(found) == 7
    for name, row in found.items():
        np.testing.assert_allclose(row, ARRAY[int(name.split()[1])], rtol=1e-6)


@pytest.mark.parametrize("store", ["chroma", "lance"])
def test_a_collection_that_is_not_there_is_told_with_those_that_are(store, request):
    with pytest.raises(InputError, match="notes; there is no 'letters'"):
        open_source(request.getfixturevalue(store), "letters")


def test_several_collections_ask_for_a_choice(lance):
    import lancedb

    lancedb.connect(lance).create_table("more", pa.table({"vector": fixed(ARRAY)}))
    with pytest.raises(InputError, match="more, notes; choose one with --collection"):
        open_source(lance)
    assert open_source(lance, "more").count == ROWS


def test_a_missing_store_is_not_created(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither a Chroma store .* nor a LanceDB folder"):
        open_source(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_locked_or_damaged_store_is_one_line(chroma):
    holder = sqlite3.connect(chroma / "chroma.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(
        InputError, match=r"cannot be read \(database is locked\); another program holds it: close that"
    ):
        open_source(chroma)
    holder.close()
    assert open_source(chroma).count == ROWS
    (chroma / "chroma.sqlite3").write_bytes(b"not a database at all" * 99)
    with pytest.raises(InputError, match="cannot be read .*; is it damaged, or of another version"):
        open_source(chroma)


def written(path, contents):
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return path


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("v.txt", "1 2", r"v\.txt is of an unknown kind; expected \.npy, \.npz, \.parquet, \.jsonl, \.csv"),
        ("v.npy", "", r"is empty; expected one vector a row"),
        ("v.npy", "nonsense", "cannot be read as .npy"),
        ("v.npz", "nonsense", "cannot be read as .npz"),
        ("v.parquet", "nonsense", "cannot be read as .parquet"),
        ("v.csv", "1,2\n3,4,5\n", "row 1 has 3 numbers, those before it 2"),
        ("v.csv", "1,2\n3,four\n", "row 1 holds 'four' in place of a number"),
        ("v.jsonl", "[1, 2]\n[3]\n", "row 1 has 1 numbers, those before it 2"),
        ("v.jsonl", '[1, "two"]\n', "row 0 holds 'two' in place of a number"),
        ("v.jsonl", '{"text": "a"}\n', "row 0 has no list of numbers"),
        ("v.jsonl", "1, 2\n", "row 0 is not JSON"),
        ("v.csv", "1,2\n\n3,4\n5\n", "row 2 has 1 numbers, those before it 2"),
    ],
)
def test_a_file_that_is_no_table_of_numbers_is_one_line(tmp_path, name, contents, message):
    with pytest.raises(InputError, match=message):
        list(open_source(written(tmp_path / name, contents)).chunks(10))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), r"shape \[5\]; expected numbers of shape"),
        (np.array([["a"]]), "expected numbers of shape"),
        (np.zeros((0, 4)), "holds no vector"),
        (np.array([[1], [None]], object), "cannot be read as .npy"),
    ],
)
def test_an_array_of_another_kind_is_one_line(tmp_path, array, message):
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / "v.npy")


def test_ragged_lists_in_parquet_are_named_and_absent_ones_become_nan(tmp_path):
    path = tmp_path / "v.parquet"
    pq.write_table(pa.table({"vector": pa.array([[1.0, 2.0], None, [3.0, 4.0]])}), path)
    (chunk,) = open_source(path).chunks(9)
    assert chunk.finite().tolist() == [True, False, True] and chunk.vectors[2].tolist() == [3, 4]
    pq.write_table(pa.table({"vector": pa.array([[1.0, 2.0], [3.0]])}), path)
    with pytest.raises(InputError, match="row 1 has 1 numbers, those before it 2"):
        list(open_source(path).chunks(9))


def test_a_truncated_archive_is_told(tmp_path):
    np.savez(tmp_path / "v.npz", ARRAY)
    source = open_source(tmp_path / "v.npz")
    np.savez(tmp_path / "v.npz", ARRAY[:0].reshape(0, D))
    assert list(source.chunks(4)) == []


# --- the audit itself


@pytest.fixture
def stored(tmp_path, vectors):
    array = vectors.copy()
    array[3], array[5] = np.nan, 0
    np.save(tmp_path / "stored.npy", array)
    return tmp_path / "stored.npy"


def test_broken_rows_are_told_by_number_and_the_rest_goes_on(stored, tmp_path, inverter, vectors, sentences):
    told = []
    done = Audit(open_source(stored), inverter, tmp_path / "out", chunk=4, num_steps=2).run(told.append, progress=False)
    table = Audit(open_source(stored), inverter, tmp_path / "out", chunk=4, num_steps=2).table()
    assert told[:2] == ["row 3: NaN or infinite entries; left out", "row 5: all zeros; left out"]
    assert told[2] == f"2 of {len(sentences)} rows could not be inverted; the rest was" and done.vectors == 12
    assert table["row"].tolist() == list(range(12)) and table["problem"].notna().sum() == 2
    good = [row for row in range(12) if row not in (3, 5)]
    expected = inverter.invert(vectors[good], num_steps=2, verify=True)
    assert table["text"][good].tolist() == expected.texts
    np.testing.assert_allclose(table["confidence"][good], expected.cosines, atol=1e-5)
    assert table["text"][[3, 5]].isna().all() and table["confidence"][[3, 5]].isna().all()


def test_a_stopped_audit_goes_on_and_does_nothing_twice(stored, tmp_path, inverter, monkeypatch):
    invert, calls = inverter.invert, []

    def stopping(vectors, **options):
        calls.append(len(vectors))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return invert(vectors, **options)

    monkeypatch.setattr(inverter, "invert", stopping)
    job = Audit(open_source(stored), inverter, tmp_path / "out", chunk=4, num_steps=1)
    with pytest.raises(KeyboardInterrupt):
        job.run(progress=False)
    assert Audit(open_source(stored), inverter, tmp_path / "out", chunk=4, num_steps=1).run(progress=False).vectors == 8
    assert calls == [3, 3, 3, 4]
    assert job.run(progress=False).vectors == 0 and len(job.table()) == 12


def test_processes_share_the_chunks(stored, tmp_path, inverter):
    for process in range(2):
        options = {"chunk": 2, "num_steps": 1, "process": process, "processes": 2}
        done = Audit(open_source(stored), inverter, tmp_path / "out", **options).run(progress=False)
        assert done.vectors == 6
    whole = Audit(open_source(stored), inverter, tmp_path / "whole", chunk=2, num_steps=1)
    whole.run(progress=False)
    shared = Audit(open_source(stored), inverter, tmp_path / "out", chunk=2, num_steps=1)
    pd.testing.assert_frame_equal(shared.table(), whole.table(), rtol=1e-4)


def test_the_folder_of_another_audit_is_refused(stored, tmp_path, inverter):
    Audit(open_source(stored), inverter, tmp_path / "out").run(progress=False)
    with pytest.raises(InputError, match="holds an audit with num_steps = 4, this one has 2"):
        Audit(open_source(stored), inverter, tmp_path / "out", num_steps=2)
    with pytest.raises(InputError, match="process below processes"):
        Audit(open_source(stored), inverter, tmp_path / "out", process=2, processes=2)


def test_another_dimension_names_the_encoders_that_exist(tmp_path, inverter):
    np.save(tmp_path / "v.npy", ARRAY)
    with pytest.raises(InputError, match=r"6 dimensions, this checkpoint inverts 384; no encoder here .* 1024: Qwen"):
        _ = Audit(open_source(tmp_path / "v.npy"), inverter, tmp_path / "out").origin
    with pytest.raises(InputError, match="open a checkpoint for Qwen"):
        audit.check_dimension(1024, 384)


@pytest.fixture(scope="module")
def own(inverter, sentences):
    texts = pd.read_json("data/sentences/sentences.jsonl", lines=True)["text"][::15].tolist()
    return texts, inverter.encoder.encode(texts)


def test_vectors_of_the_encoder_are_recognised_also_scaled(inverter, own):
    assert audit.check_origin(inverter, own[1]).plausible
    scaled = audit.check_origin(inverter, 3 * own[1])
    assert scaled.plausible and scaled.unit_share == 0
    quantised = perturb.apply(perturb.AbsmaxQuantisation(8), own[1]).vectors
    assert audit.check_origin(inverter, quantised).plausible


@pytest.mark.parametrize("kind", ["random", "rotated", "noisy", "other pooling"])
def test_vectors_that_the_encoder_does_not_make_are_doubted(inverter, own, kind):
    texts, clean = own
    generator = torch.Generator().manual_seed(0)
    strange = {
        "random": lambda: perturb.unit(np.random.default_rng(0).normal(size=clean.shape)),
        "rotated": lambda: perturb.SecretRotation.draw(384, generator).store(clean),
        "noisy": lambda: perturb.GaussianNoise(0.1).store(clean, generator),
        "other pooling": lambda: perturb.unit(
            SentenceTransformer(modules=[inverter.encoder.model[0], Pooling(384, "max")], device="cpu").encode(texts)
        ),
    }[kind]()
    origin = audit.check_origin(inverter, strange)
    assert not origin.plausible and "do not look like those of minilm" in str(origin)
    summary = audit.Summary(50, 0, np.full(50, 0.9), {}, pd.DataFrame())
    assert "no proof that nobody can" in audit.verdict(summary, origin)


def test_patterns_count_what_looks_like_a_secret():
    texts = ["write to ana @ example . com", "call 555 - 0114 200", "on march 3", "next friday", "room 12", "nothing"]
    found = audit.patterns(texts)
    assert found == {"e-mail-like": 1, "phone-like": 1, "date-like": 2, "number": 3}


def test_the_summary_goes_part_by_part(stored, tmp_path, inverter):
    job = Audit(open_source(stored), inverter, tmp_path / "out", chunk=5, num_steps=2)
    job.run(lambda line: None, progress=False)
    summary = audit.summarise(job.parts())
    table = job.table()
    assert (summary.vectors, summary.broken, len(summary.confidences)) == (12, 2, 10)
    assert summary.examples["confidence"].is_monotonic_decreasing and summary.examples["confidence"][
        0
    ] == pytest.approx(table["confidence"].max())
    card = audit.pattern_shares(summary).set_index("kind")
    assert card["n"].eq(10).all() and card.loc["number", "value"] == table["text"].dropna().str.contains(r"\d").mean()
    said = audit.verdict(summary, job.origin)
    assert said.startswith("These vectors can come from minilm") and "Of 10 recovered texts" in said


def test_the_command_audits_and_says_what_is_wrong(stored, tmp_path, capsys):
    command = [str(stored), "--out", str(tmp_path / "out"), "--steps", "1", "--chunk", "6"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "These vectors can come from minilm" in out and "a second" in out and "2 of 12 rows" in out
    assert "row 3: NaN or infinite entries; left out" in err
    assert main([str(tmp_path / "absent.npy"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: there is nothing at")


@pytest.mark.skipif(os.name != "posix", reason="launches processes")
def test_two_launched_processes_share_one_audit(stored, tmp_path):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "invlib.audit"]
    options = [str(stored), "--out", str(tmp_path / "out"), "--steps", "1", "--chunk", "4"]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command, *options], capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "process 1 of 2" in done.stdout and "process 2 of 2" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").glob("part-*")) == [
        f"part-000000{number}.parquet" for number in range(3)
    ]


@pytest.mark.parametrize("options", [{}, {"index": False}, {"index_label": "id"}])
def test_a_csv_as_pandas_writes_it_keeps_its_rows_and_names(tmp_path, options):
    pd.DataFrame(ARRAY, index=[f"t{row}" for row in range(ROWS)]).to_csv(tmp_path / "v.csv", **options)
    chunks = list(open_source(tmp_path / "v.csv").chunks(4))
    np.testing.assert_allclose(np.concatenate([chunk.vectors for chunk in chunks]), ARRAY, rtol=1e-5)
    ids = [name for chunk in chunks for name in chunk.ids]
    assert ids == [str(row) if options.get("index") is False else f"t{row}" for row in range(ROWS)]


def test_large_lists_are_lists(tmp_path):
    column = lists(ARRAY).cast(pa.large_list(pa.float64()))
    pq.write_table(pa.table({"vector": column}), tmp_path / "v.parquet")
    (chunk,) = open_source(tmp_path / "v.parquet").chunks(ROWS)
    np.testing.assert_allclose(chunk.vectors, ARRAY, rtol=1e-6)


@pytest.mark.parametrize("name", ["v.csv", "v.jsonl"])
def test_text_in_another_encoding_and_blank_lines(tmp_path, name):
    rows = [json.dumps(row) if name.endswith("jsonl") else ",".join(map(str, row)) for row in ARRAY.tolist()]
    (tmp_path / name).write_bytes("\n".join([*rows, "", ""]).encode())
    assert sum(len(chunk.ids) for chunk in open_source(tmp_path / name).chunks(4)) == ROWS
    (tmp_path / name).write_bytes("\n".join(rows).encode("utf-16"))
    with pytest.raises(InputError, match="is not UTF-8 text; save it again as UTF-8"):
        list(open_source(tmp_path / name).chunks(4))


def test_an_absent_embedding_is_a_broken_row(tmp_path):
    lines = [{"embedding": None}, *({"embedding": row} for row in ARRAY[:2].tolist()), {"embedding": None}]
    (tmp_path / "v.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = [chunk.finite().tolist() for chunk in open_source(tmp_path / "v.jsonl").chunks(3)]
    assert found == [[False, True, True], [False]]


def test_an_absent_number_is_a_broken_row(tmp_path):
    pq.write_table(pa.table({"id": [7, 8], "x": pa.array([1.0, None]), "y": pa.array([1, 2])}), tmp_path / "v.parquet")
    (tmp_path / "v.csv").write_text("id,x,y\n7,1,1\n8,,2\n")
    (tmp_path / "v.jsonl").write_text('{"id": 7, "vector": [1, 1]}\n{"id": 8, "vector": [null, 2]}\n')
    for kind in ("parquet", "csv", "jsonl"):
        (chunk,) = open_source(tmp_path / f"v.{kind}").chunks(3)
        assert chunk.ids == ["7", "8"] and chunk.finite().tolist() == [True, False], kind


def test_a_chunk_without_any_vector_does_not_stop_the_audit(inverter, vectors, tmp_path):
    pq.write_table(pa.table({"vector": pa.array([None] * 4 + vectors[:4].tolist())}), tmp_path / "v.parquet")
    job = Audit(open_source(tmp_path / "v.parquet"), inverter, tmp_path / "out", chunk=4, num_steps=1)
    assert job.run(lambda line: None, progress=False).vectors == 8
    assert job.table()["problem"].notna().tolist() == [True] * 4 + [False] * 4


def test_broken_rows_at_the_front_do_not_stop_the_audit(inverter, vectors, tmp_path):
    np.save(tmp_path / "v.npy", np.concatenate([np.full_like(vectors, np.nan), vectors]))
    found = Audit(open_source(tmp_path / "v.npy"), inverter, tmp_path / "out", chunk=len(vectors))
    assert found.origin.n == len(vectors)
    np.save(tmp_path / "w.npy", np.full_like(vectors, np.nan))
    with pytest.raises(InputError, match="holds 0 usable vectors"):
        _ = Audit(open_source(tmp_path / "w.npy"), inverter, tmp_path / "other").origin
    assert not (tmp_path / "other").exists(), "what was refused claims no folder"


def test_other_vectors_under_the_same_name_are_another_audit(inverter, vectors, tmp_path):
    np.save(tmp_path / "v.npy", vectors)
    Audit(open_source(tmp_path / "v.npy"), inverter, tmp_path / "out").run(progress=False)
    np.save(tmp_path / "v.npy", vectors[::-1])
    with pytest.raises(InputError, match="holds an audit with (state|first) = "):
        Audit(open_source(tmp_path / "v.npy"), inverter, tmp_path / "out")


def test_a_file_that_has_grown_is_another_audit(inverter, vectors, tmp_path):
    """The last part of before was shorter than a chunk: what follows in its chunk would never be read."""
    lines = [json.dumps(row) for row in vectors.tolist()]
    (tmp_path / "v.jsonl").write_text("\n".join(lines[:6]))
    Audit(open_source(tmp_path / "v.jsonl"), inverter, tmp_path / "out", chunk=4).run(progress=False)
    (tmp_path / "v.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="holds an audit with state = "):
        Audit(open_source(tmp_path / "v.jsonl"), inverter, tmp_path / "out", chunk=4)
    (tmp_path / "out" / "audit.json").write_text("{")
    with pytest.raises(InputError, match="audit.json is damaged"):
        Audit(open_source(tmp_path / "v.jsonl"), inverter, tmp_path / "out", chunk=4)


def test_too_few_records_are_told_before_the_work(stored, tmp_path, capsys):
    records = tmp_path / "records.jsonl"
    records.write_text(json.dumps({"text": "a b", "secrets": []}))
    assert main([str(stored), "--out", str(tmp_path / "out"), "--records", str(records)]) == 2
    assert "holds 1 records" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_slightly_noisy_vectors_are_changed_and_not_doubted(inverter, own):
    noisy = perturb.GaussianNoise(0.005).store(own[1], torch.Generator().manual_seed(0))
    origin = audit.check_origin(inverter, noisy)
    assert origin.plausible and origin.changed and "changed afterwards, as by noise" in str(origin)
    assert not audit.check_origin(inverter, own[1]).changed


def test_a_damaged_lance_table_is_told(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    rows = [{"id": str(row), "vector": vector} for row, vector in enumerate(ARRAY.tolist())]
    lancedb.connect(tmp_path).create_table("t", rows)
    source = open_source(tmp_path)
    for path in (tmp_path / "t.lance" / "data").iterdir():
        path.write_bytes(b"x" * 64)
    with pytest.raises(InputError, match="is it damaged, or of another version"):
        list(source.chunks(4))


def test_no_text_has_no_patterns():
    nothing = audit.Summary(3, 3, np.zeros(0, np.float32), {"number": 0}, pd.DataFrame())
    with pytest.raises(InputError, match="no vector of this audit could be inverted"):
        audit.pattern_shares(nothing)
