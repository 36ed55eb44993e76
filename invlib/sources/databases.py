"""Vector databases: folders of Chroma and LanceDB, and servers through their own clients. None is ever written to.

Qdrant's local mode keeps its points pickled, and opening a stranger's store would run code: it is read only where the
source is written as `qdrant:FOLDER`.
"""

import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from invlib.errors import InputError
from invlib.sources.source import Page, Source
from invlib.sources.tables import ArrowTable, Named, Table

CHROMA_FILE = "chroma.sqlite3"
LOCK_SECONDS = 2.0  # waited for another program's write to end


class ChromaCollection(Source):
    """A collection of an embedded, persistent Chroma store, read from a temporary copy: Chroma writes when it opens."""

    def look(self) -> None:
        _refuse_locked(self.path / CHROMA_FILE)
        copy = tempfile.mkdtemp(prefix="audit-")
        weakref.finalize(self, shutil.rmtree, copy, ignore_errors=True)
        store = Path(copy) / "store"
        shutil.copytree(self.path, store, copy_function=shutil.copyfile)
        for place in (store, *store.rglob("*")):
            place.chmod(0o755)  # copied from a read-only folder
        with closing(sqlite3.connect(store / CHROMA_FILE)) as connection:
            found = dict(connection.execute("SELECT name, id FROM collections").fetchall())
            name = chosen(self.collection, list(found), f"{self.path}, its collections")
            queue = "SELECT id, vector FROM embeddings_queue WHERE topic LIKE ? AND vector IS NOT NULL"
            self._queued = dict(connection.execute(queue, (f"%{found[name]}",)).fetchall())
            ids = "SELECT embedding_id FROM embeddings JOIN segments ON segment_id = segments.id WHERE collection = ?"
            ids += " ORDER BY embeddings.id"
            self._names = [own for (own,) in connection.execute(ids, (found[name],)).fetchall()]
        self.name, self._collection = f"{self.path}, Chroma collection {name!r}", self._opened(store, name)
        self.count = len(self._names)

    def _opened(self, store: Path, name: str) -> Any:
        """The collection, or None where its index is lost and only the database can be read."""
        import chromadb
        from chromadb.config import Settings

        client = chromadb.PersistentClient(str(store), settings=Settings(anonymized_telemetry=False))
        # Without an embedding function Chroma has no reason to fetch its own model from the network.
        collection = client.get_collection(name, embedding_function=None)
        try:
            collection.get(ids=self._names[:1], include=["embeddings"])
        except Exception:
            self.note = f"the index of {name!r} is lost; read are the {len(self._queued)} vectors in its database"
            return None
        return collection

    def read(self, page: range) -> Page:
        ids = self._names[page.start : page.stop]
        if self._collection is None:
            return Page([self._queued.get(one) for one in ids], ids)
        found = self._collection.get(ids=ids, include=["embeddings", "documents", "metadatas"])
        place = {one: at for at, one in enumerate(found["ids"])}
        at = [place[one] for one in ids]
        beside = [{"document": found["documents"][k], **(found["metadatas"][k] or {})} for k in at]
        return Page([found["embeddings"][k] for k in at], ids, beside)


class LanceTable(ArrowTable):
    """A table of a LanceDB folder."""

    @property
    def evidence(self) -> Path:
        return self.path / f"{self._table.name}.lance"

    def look(self) -> None:
        import lancedb

        names = sorted(path.stem for path in self.path.glob("*.lance"))
        name = chosen(self.collection, names, f"{self.path}, its tables")
        self.name, self._table = f"{self.path}, LanceDB table {name!r}", lancedb.connect(self.path).open_table(name)
        self.count = self._table.count_rows()
        super().look()

    def pages(self, size: int) -> Iterator[pa.RecordBatch]:
        for start in range(0, self.count, size):
            found = self._table.search().limit(size).offset(start).to_arrow()
            yield found.combine_chunks().to_batches()[0]


class QdrantCollection(Table):
    """A collection of a Qdrant server (qdrant:http://localhost:6333) or of its local mode (qdrant:FOLDER)."""

    def look(self) -> None:
        import qdrant_client

        where = {"url": self.path} if "://" in self.path else {"path": _existing(self.path)}
        self._client = qdrant_client.QdrantClient(**where)
        names = [found.name for found in self._client.get_collections().collections]
        self._name = chosen(self.collection, names, f"{self.name}, its collections")
        self.name = f"{self.name}, Qdrant collection {self._name!r}"
        super().look()

    def pages(self, size: int) -> Iterator[list[dict]]:
        offset = None
        while True:
            options = {"limit": size, "offset": offset, "with_vectors": True, "with_payload": True}
            points, offset = self._client.scroll(self._name, **options)
            if points:
                yield [self._row(point) for point in points]
            if offset is None:
                return

    def _row(self, point: Any) -> dict:
        named = point.vector if isinstance(point.vector, dict) else {"vector": point.vector}
        return {"id": point.id, **(point.payload or {}), **named}


class MilvusCollection(Table):
    """A collection of a Milvus server (milvus:http://localhost:19530) or of a file of Milvus Lite (milvus:FILE.db)."""

    def look(self) -> None:
        import pymilvus

        self._client = pymilvus.MilvusClient(self.path if "://" in self.path else _existing(self.path))
        self._name = chosen(self.collection, self._client.list_collections(), f"{self.name}, its collections")
        self.name = f"{self.name}, Milvus collection {self._name!r}"
        self._client.load_collection(self._name)
        super().look()

    def pages(self, size: int) -> Iterator[list[dict]]:
        found = self._client.query_iterator(self._name, batch_size=size, output_fields=["*"])
        try:
            while rows := found.next():
                yield [dict(row) for row in rows]
        finally:
            found.close()


class PostgresTable(Named):
    """A table of a PostgreSQL database, with pgvector or arrays (postgresql://user@host/database)."""

    def pages(self, size: int) -> Iterator[list[dict]]:
        from psycopg import sql
        from psycopg.rows import dict_row

        schema, _, table = self.table.rpartition(".")
        with self._connected() as connection, connection.cursor("audit", row_factory=dict_row) as cursor:
            cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table)))
            while rows := cursor.fetchmany(size):
                yield rows

    def tables(self) -> list[str]:
        asked = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname != 'information_schema'"
        asked += " AND schemaname != 'pg_catalog'"
        with self._connected() as connection:
            return [name for (name,) in connection.execute(asked).fetchall()]

    def _connected(self) -> Any:
        import psycopg

        connection = psycopg.connect(self.path)
        connection.read_only = True
        return connection


SERVERS = {
    "qdrant": QdrantCollection,
    "milvus": MilvusCollection,
    "postgresql": PostgresTable,
    "postgres": PostgresTable,
}


def chosen(wanted: str | None, names: list[str], where: str) -> str:
    """The wanted name, or the only one. Raises `InputError`, with the names that exist."""
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    what = f"there is no {wanted!r}" if wanted is not None else "choose one with --collection"
    raise InputError(f"{where}: {', '.join(sorted(names)) or 'none'}; {what}")


def _existing(path: str) -> str:
    if not Path(path).exists():
        raise InputError(f"there is nothing at {path}")
    return path


def _refuse_locked(file: Path) -> None:
    """Fail for a store that another program writes to, or that is damaged: a copy of it would be neither's."""
    with open(file, "rb") as opened:
        is_journalled = opened.read(20)[18:19] == b"\x02"  # looking into one would leave files behind
    if not is_journalled:
        address = f"file:{quote(str(file.absolute()))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=LOCK_SECONDS)) as connection:
            connection.execute("SELECT count(*) FROM collections").fetchone()
