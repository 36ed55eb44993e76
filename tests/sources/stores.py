"""Stores as people's tools write them: each kind by its proper library, from vectors [n, 384] and their texts."""

import base64
import gzip
import json
import pickle
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save_file


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def document(path, value, **options):
    path.write_text(json.dumps(value, **options))


def frame(a, texts, **columns):
    return pd.DataFrame({"id": names(a), "text": texts, "embedding": a.tolist(), **columns})


def names(a):
    return [f"n{row}" for row in range(len(a))]


def text(row):
    """As pgvector prints a vector."""
    return "[" + ",".join(f"{value:.9g}" for value in row) + "]"


def numbers(a):
    return {f"d{column}": a[:, column] for column in range(a.shape[1])}


def fixed(a):
    return pa.FixedSizeListArray.from_arrays(pa.array(a.ravel()), a.shape[1])


def listed(a, kind=None):
    return pa.array(a.tolist(), pa.list_(kind) if kind else None)


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)


def feather(path, **columns):
    import pyarrow.feather

    pyarrow.feather.write_feather(pa.table(columns), str(path))


def stream(path, **columns):
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def sqlite(path, a, texts):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE docs (id TEXT, content TEXT, embedding BLOB)")
        connection.execute("CREATE TABLE settings (name TEXT, value TEXT)")
        rows = zip(names(a), texts, map(bytes, a.astype("<f4")), strict=True)
        connection.executemany("INSERT INTO docs VALUES (?, ?, ?)", rows)
        connection.commit()


def duckdb(path, a, texts):
    import duckdb

    with duckdb.connect(str(path)) as connection:
        found = pa.table({"id": names(a), "content": texts, "embedding": fixed(a)})
        connection.register("found", found)
        connection.execute(f"CREATE TABLE docs AS SELECT id, content, embedding::FLOAT[{a.shape[1]}] AS e FROM found")


def faiss(path, a):
    import faiss

    index = faiss.IndexFlatIP(a.shape[1])
    index.add(a)
    faiss.write_index(index, str(path))


def chroma(path, a, texts):
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))
    collection = client.create_collection("notes", embedding_function=None)
    collection.add(ids=names(a), embeddings=a, documents=list(texts), metadatas=[{"page": 7}] * len(a))
    client._system.stop()


def lance(path, a, texts, **columns):
    import lancedb

    table = pa.table({"id": names(a), "vector": fixed(a), "text": list(texts), **columns})
    lancedb.connect(path).create_table("notes", table)


def shards(path, a):
    path.mkdir()
    parquet(path / "part-00000.snappy.parquet", vector=listed(a[:5].astype(float)))
    parquet(path / "part-00001.snappy.parquet", vector=listed(a[5:].astype(float)))
    (path / "_SUCCESS").touch()


def word2vec(path, a):
    rows = [f"n{row} " + " ".join(map(repr, values)) for row, values in enumerate(a.tolist())]
    path.write_text("\n".join([f"{a.shape[0]} {a.shape[1]}", *rows]) + "\n")


def savetxt(delimiter):
    return lambda path, a, t: np.savetxt(path, a, delimiter=delimiter)


def fvecs(path, a):
    sized = np.concatenate([np.full((len(a), 1), a.shape[1], "<i4").view("<f4"), a.astype("<f4")], axis=1)
    sized.tofile(path)


def elastic(path, a, t):
    pairs = [
        ({"index": {"_id": f"n{row}"}}, {"text": t[row], "text_embedding": a[row].tolist()}) for row in range(len(a))
    ]
    lines(path, [one for pair in pairs for one in pair])


def objects(a, key="embedding", **more):
    return [{"id": name, **more, key: row.tolist()} for name, row in zip(names(a), a, strict=True)]


def encoded(row):
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def rows_of(a):
    held = np.empty(len(a), object)
    held[:] = list(a)
    return held


def structured(path, a):
    held = np.zeros(len(a), [("id", "i8"), ("vec", "f4", a.shape[1])])
    held["id"], held["vec"] = np.arange(len(a)) + 100, a
    np.save(path, held)


NAMED = {  # whose ids are n0, n1, …
    "objects.jsonl": lambda p, a, t: lines(p, objects(a)),
    "UPPER.JSONL": lambda p, a, t: lines(p, objects(a, "Embedding")),
    "emb.ndjson": lambda p, a, t: lines(p, objects(a, "emb")),
    "any_name.jsonl": lambda p, a, t: lines(p, objects(a, "features_of_text")),
    "base64.jsonl": lambda p, a, t: lines(
        p, [{"id": n, "embedding": encoded(r)} for n, r in zip(names(a), a, strict=True)]
    ),
    "text.jsonl": lambda p, a, t: lines(p, [{"id": n, "embedding": text(r)} for n, r in zip(names(a), a, strict=True)]),
    "null_beside.jsonl": lambda p, a, t: lines(p, objects(a, "vector", embedding=None)),
    "named.jsonl": lambda p, a, t: lines(
        p, [{"id": n, "payload": {"t": 1}, "vector": {"text": r.tolist()}} for n, r in zip(names(a), a, strict=True)]
    ),
    "source.jsonl": lambda p, a, t: lines(
        p,
        [
            {"_id": n, "_index": "x", "_source": {"text": "y", "dense": r.tolist()}}
            for n, r in zip(names(a), a, strict=True)
        ],
    ),
    "bulk.jsonl": elastic,
    "milvus.json": lambda p, a, t: document(
        p, {"rows": [{"pk": n, "vector": r.tolist()} for n, r in zip(names(a), a, strict=True)]}
    ),
    "batch.jsonl": lambda p, a, t: lines(
        p,
        [
            {"id": f"b{k}", "custom_id": n, "response": {"body": {"data": [{"embedding": r.tolist(), "index": 0}]}}}
            for k, (n, r) in enumerate(zip(names(a), a, strict=True))
        ],
    ),
    "list.json": lambda p, a, t: document(p, objects(a)),
    "pretty.jsonl": lambda p, a, t: document(p, objects(a), indent=1),
    "chroma.json": lambda p, a, t: document(
        p, {"ids": names(a), "embeddings": a.tolist(), "documents": list(t), "metadatas": [None] * len(a)}
    ),
    "pinecone.json": lambda p, a, t: document(
        p, {"namespace": "", "vectors": {n: {"id": n, "values": r.tolist()} for n, r in zip(names(a), a, strict=True)}}
    ),
    "mapping.json": lambda p, a, t: document(p, dict(zip(names(a), a.tolist(), strict=True))),
    "split.json": lambda p, a, t: frame(a, t).to_json(p, orient="split"),
    "packed.jsonl.gz": lambda p, a, t: p.write_bytes(
        gzip.compress("".join(json.dumps(o) + "\n" for o in objects(a)).encode())
    ),
    "lists.csv": lambda p, a, t: frame(a, t).to_csv(p, index=False),
    "long.csv": lambda p, a, t: frame(a, ["word " * 40_000, *t[1:]]).to_csv(p, index=False),
    "text_and_numbers.csv": lambda p, a, t: pd.DataFrame(
        {"id": names(a), "text": t, "year": 2031, **numbers(a)}
    ).to_csv(p, index=False),
    "words.vec": lambda p, a, t: word2vec(p, a),
    "lists.parquet": lambda p, a, t: parquet(p, id=names(a), tags=[["a", "b"]] * len(a), emb=listed(a)),
    "large.parquet": lambda p, a, t: parquet(p, id=names(a), v=listed(a).cast(pa.large_list(pa.float64()))),
    "half.parquet": lambda p, a, t: parquet(p, id=names(a), v=listed(a.astype(np.float16), pa.float16())),
    "blob.parquet": lambda p, a, t: parquet(p, id=names(a), v=[r.astype("<f4").tobytes() for r in a]),
    "text.parquet": lambda p, a, t: parquet(p, id=names(a), v=[text(r) for r in a]),
    "nested.parquet": lambda p, a, t: parquet(p, id=names(a), v=[[r.tolist()] for r in a]),
    "struct.parquet": lambda p, a, t: parquet(p, id=names(a), v=[{"default": r.tolist()} for r in a]),
    "array.parquet": lambda p, a, t: parquet(p, id=names(a), v=[[{"array": x} for x in r.tolist()] for r in a]),
    "tensor.parquet": lambda p, a, t: parquet(p, id=names(a), v=pa.FixedShapeTensorArray.from_numpy_ndarray(a)),
    "twice.parquet": lambda p, a, t: pq.write_table(
        pa.Table.from_arrays([pa.array(names(a)), listed(a), pa.array(t)], ["id", "vector", "id"]), p
    ),
    "models.parquet": lambda p, a, t: parquet(
        p, id=names(a), **{"bge-small-en-v1.5": listed(-a), "all-MiniLM-L6-v2": listed(a)}
    ),
    "numbers.parquet": lambda p, a, t: pd.DataFrame(numbers(a), index=names(a)).assign(year=2031).to_parquet(p),
    "v.feather": lambda p, a, t: feather(p, id=names(a), embedding=listed(a)),
    "v.arrow": lambda p, a, t: stream(p, id=names(a), embedding=fixed(a)),
    "v.sqlite": sqlite,
    "v.duckdb": duckdb,
    "chroma_store": chroma,
    "lance_store": lance,
}
NUMBERED = {  # whose rows have no names
    "v.npy": lambda p, a, t: np.save(p, a),
    "double.npy": lambda p, a, t: np.save(p, a.astype(np.float64)),
    "fortran.npy": lambda p, a, t: np.save(p, np.asfortranarray(a)),
    "middle.npy": lambda p, a, t: np.save(p, a[:, None]),
    "flat.npy": lambda p, a, t: np.save(p, a.ravel()),
    "columns.npy": lambda p, a, t: np.save(p, a.T),
    "rows.npy": lambda p, a, t: np.save(p, rows_of(a), allow_pickle=True),
    "one.npz": lambda p, a, t: np.savez(p, a),
    "packed.npz": lambda p, a, t: np.savez_compressed(p, other=np.arange(3), vectors=np.asfortranarray(a)),
    "split.npz": lambda p, a, t: np.savez(p, train=a, test=a[:3]),
    "v.safetensors": lambda p, a, t: save_file({"embeddings": a, "bias": a[0].copy()}, p),
    "v.pt": lambda p, a, t: torch.save({"embeddings": torch.from_numpy(a)}, p),
    "v.pkl": lambda p, a, t: p.write_bytes(pickle.dumps(list(a))),
    "v.bin": lambda p, a, t: a.tofile(p),
    "v.fbin": lambda p, a, t: p.write_bytes(np.array(a.shape, "<u4").tobytes() + a.tobytes()),
    "v.fvecs": lambda p, a, t: fvecs(p, a),
    "v.faiss": lambda p, a, t: faiss(p, a),
    "spark.parquet": lambda p, a, t: shards(p, a),
    "array.json": lambda p, a, t: document(p, a.tolist()),
    "array.jsonl": lambda p, a, t: document(p, a.tolist()),
    "nested.jsonl": lambda p, a, t: lines(p, [[row] for row in a.tolist()]),
    "bare.jsonl": lambda p, a, t: lines(p, a.tolist()),
    "openai.json": lambda p, a, t: document(
        p,
        {
            "object": "list",
            "model": "m",
            "data": [{"object": "embedding", "index": k, "embedding": r.tolist()} for k, r in enumerate(a)],
        },
    ),  # fmt: skip
    "ollama.json": lambda p, a, t: document(p, {"model": "all-minilm", "embeddings": a.tolist()}),
    "cohere.json": lambda p, a, t: document(p, {"texts": list(t), "embeddings": {"float": a.tolist()}}),
    "printed.csv": lambda p, a, t: pd.DataFrame({"text": t, "embedding": list(a)}).to_csv(p, index=False),
    "copy.tsv": lambda p, a, t: p.write_text(
        "".join(f"{n}\t{s}\t{text(r)}\n" for n, s, r in zip(range(len(a)), t, a, strict=True))
    ),
    "blanks.csv": savetxt(" "),
    "tabs.csv": savetxt("\t"),
    "semicolons.csv": savetxt(";"),
    "commas.csv.gz": savetxt(","),
    "excel.csv": lambda p, a, t: pd.DataFrame(a).to_csv(p, sep=";", decimal=",", index=False),
    "counted.csv": lambda p, a, t: pd.DataFrame(a).to_csv(p, header=False),
    "pandas.csv": lambda p, a, t: pd.DataFrame(a).to_csv(p),
    "decimal.parquet": lambda p, a, t: parquet(p, v=listed(a.astype(float)).cast(pa.list_(pa.float64()))),
}
WRITERS = NAMED | NUMBERED
