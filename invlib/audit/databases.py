"""Vector databases in a folder: Chroma and LanceDB. Only ids and vectors are asked for, never documents or metadata.

Qdrant's local mode is left out on purpose: it keeps its points pickled, and opening a stranger's store would run code.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from invlib.audit.files import arrow_rows, vector_columns
from invlib.audit.source import Source
from invlib.errors import InputError, first_line

CHROMA_FILE = "chroma.sqlite3"
LOCK_SECONDS = 2.0  # waited for another program's write to end


class ChromaCollection(Source):
    """A collection of an embedded, persistent Chroma store; read page by page, with its telemetry off."""

    def __init__(self, folder: Path, collection: str | None = None):
        chromadb = _needs("chromadb")
        from chromadb.config import Settings

        with _told(folder):
            _check_sqlite(folder / CHROMA_FILE)
            client = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
            names = [found.name for found in client.list_collections()]
            name = _chosen(collection, names, f"{folder}, its collections")
            # Without an embedding function Chroma has no reason to fetch its own model from the network.
            self._collection = client.get_collection(name, embedding_function=None)
            self.count = self._collection.count()
        self.name = f"{folder}, Chroma collection {name!r}"

    def read(self, page: range, start: int) -> tuple[list[str], np.ndarray]:
        with _told(self.name):
            found = self._collection.get(limit=len(page), offset=start, include=["embeddings"])
        return found["ids"], found["embeddings"]


class LanceTable(Source):
    """A table of a LanceDB folder, with a column of lists `vector` (or embedding, …); a column `id` names the rows."""

    def __init__(self, folder: Path, table: str | None = None):
        lancedb = _needs("lancedb")
        name = _chosen(table, sorted(path.stem for path in folder.glob("*.lance")), f"{folder}, its tables")
        with _told(folder):
            self._table = lancedb.connect(folder).open_table(name)
            self.count = self._table.count_rows()
        self.name = f"{folder}, LanceDB table {name!r}"
        self._columns = vector_columns(self._table.schema, self.name)

    def read(self, page: range, start: int) -> tuple[list | None, np.ndarray]:
        with _told(self.name):
            found = self._table.search().select(self._columns).limit(len(page)).offset(start).to_arrow()
        return arrow_rows(found)


def _chosen(wanted: str | None, names: list[str], where: str) -> str:
    """The wanted name, or the only one. Raises `InputError`, with the names that exist."""
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return wanted
    what = f"there is no {wanted!r}" if wanted is not None else "choose one with --collection"
    raise InputError(f"{where}: {', '.join(map(str, names)) or 'none'}; {what}")


def _check_sqlite(path: Path) -> None:
    """Fail at once for a locked or damaged file: Chroma would wait for the lock for many minutes."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=LOCK_SECONDS)) as connection:
        connection.execute("SELECT count(*) FROM collections").fetchone()


def _needs(package: str) -> Any:
    try:
        return __import__(package)
    except ImportError:
        raise InputError(f"reading this store needs {package}; run: pip install {package}") from None


@contextmanager
def _told(where: Any) -> Iterator[None]:
    """Whatever a database raises, in one line; the Rust halves raise classes of their own, and bare ones."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = first_line(error)
        is_held = "locked" in said
        hint = "another program holds it: close that first" if is_held else "is it damaged, or of another version?"
        raise InputError(f"{where} cannot be read ({said}); {hint}") from None
