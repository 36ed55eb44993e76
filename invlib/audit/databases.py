"""Vector databases in a folder: Chroma and LanceDB. Only ids and vectors are asked for, never documents or metadata.

Qdrant's local mode is left out on purpose: it keeps its points pickled, and opening a stranger's store would run code.
"""

import sqlite3
from contextlib import closing
from urllib.parse import quote

import numpy as np

from invlib.audit.files import arrow_rows, vector_columns
from invlib.audit.source import Source
from invlib.errors import InputError

CHROMA_FILE = "chroma.sqlite3"
LOCK_SECONDS = 2.0  # waited for another program's write to end


class ChromaCollection(Source):
    """A collection of an embedded, persistent Chroma store; read page by page, with its telemetry off."""

    def look(self) -> None:
        import chromadb
        from chromadb.config import Settings

        # Fail at once for a locked or damaged file: Chroma would wait for the lock for many minutes.
        file = f"file:{quote(str(self.path / CHROMA_FILE))}?mode=ro"
        with closing(sqlite3.connect(file, uri=True, timeout=LOCK_SECONDS)) as connection:
            connection.execute("SELECT count(*) FROM collections").fetchone()
        client = chromadb.PersistentClient(str(self.path), settings=Settings(anonymized_telemetry=False))
        names = [found.name for found in client.list_collections()]
        name = _chosen(self.collection, names, f"{self.path}, its collections")
        # Without an embedding function Chroma has no reason to fetch its own model from the network.
        self._collection = client.get_collection(name, embedding_function=None)
        self.name, self.count = f"{self.path}, Chroma collection {name!r}", self._collection.count()

    def read(self, page: range) -> tuple[list[str], np.ndarray]:
        found = self._collection.get(limit=len(page), offset=page.start, include=["embeddings"])
        return found["ids"], found["embeddings"]


class LanceTable(Source):
    """A table of a LanceDB folder, with a column of lists `vector` (or embedding, …); a column `id` names the rows."""

    def look(self) -> None:
        import lancedb

        names = sorted(path.stem for path in self.path.glob("*.lance"))
        name = _chosen(self.collection, names, f"{self.path}, its tables")
        self.name, self._table = f"{self.path}, LanceDB table {name!r}", lancedb.connect(self.path).open_table(name)
        self.count, self._columns = self._table.count_rows(), vector_columns(self._table.schema, self.name)

    def read(self, page: range) -> tuple[list | None, np.ndarray]:
        query = self._table.search().select(self._columns)
        return arrow_rows(query.limit(len(page)).offset(page.start).to_arrow())


def _chosen(wanted: str | None, names: list[str], where: str) -> str:
    """The wanted name, or the only one. Raises `InputError`, with the names that exist."""
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    what = f"there is no {wanted!r}" if wanted is not None else "choose one with --collection"
    raise InputError(f"{where}: {', '.join(names) or 'none'}; {what}")
