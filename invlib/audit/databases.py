"""Vector databases in a folder: Chroma and LanceDB. Only ids and vectors are asked for, never documents or metadata.

Qdrant's local mode is left out on purpose: it keeps its points pickled, and opening a stranger's store would run code.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from invlib.audit.files import VECTOR_NAMES, list_column
from invlib.audit.source import Chunk, Source, Wanted, as_vectors
from invlib.errors import InputError

CHROMA_FILE = "chroma.sqlite3"
LOCK_SECONDS = 2.0  # waited for another program's write to end


class ChromaCollection(Source):
    """A collection of an embedded, persistent Chroma store; read page by page, with its telemetry off."""

    def __init__(self, folder: Path, collection: str | None = None):
        chromadb = _needs("chromadb")
        from chromadb.config import Settings

        if not (folder / CHROMA_FILE).is_file():  # Chroma itself would make an empty store here
            raise InputError(f"{folder} holds no {CHROMA_FILE}; expected the folder of a persistent Chroma store")
        _check_sqlite(folder / CHROMA_FILE)
        try:
            client = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
            names = [found.name for found in client.list_collections()]
            name = choose(collection, names, f"{folder}, its collections")
            # Without an embedding function Chroma has no reason to fetch its own model from the network.
            self._collection = client.get_collection(name, embedding_function=None)
            self.count = self._collection.count()
        except InputError:
            raise
        except Exception as error:  # chromadb and its Rust half raise classes of their own, and bare ones
            raise InputError(_unreadable(folder, error)) from None
        self.name = f"{folder}, Chroma collection {name!r}"

    def chunks(self, size: int, wanted: Wanted = lambda number: True) -> Iterator[Chunk]:
        for number in range(-(-self.count // size)):
            if wanted(number):
                start = number * size
                page = self._page(size, start)
                yield Chunk(number, start, page["ids"], as_vectors(page["embeddings"], self.name))

    def _page(self, size: int, start: int) -> dict[str, Any]:
        try:
            return self._collection.get(limit=size, offset=start, include=["embeddings"])
        except Exception as error:  # as above
            raise InputError(_unreadable(self.name, error)) from None


class LanceTable(Source):
    """A table of a LanceDB folder, with a column `vector` (or embedding, …); a column `id` names the rows."""

    def __init__(self, folder: Path, table: str | None = None):
        lancedb = _needs("lancedb")
        name = choose(table, sorted(path.stem for path in folder.glob("*.lance")), f"{folder}, its tables")
        try:
            self._table = lancedb.connect(folder).open_table(name)
            self.count, columns = self._table.count_rows(), self._table.schema.names
        except Exception as error:  # lancedb's Rust half raises RuntimeError, ValueError and OSError alike
            raise InputError(_unreadable(folder, error)) from None
        self.name = f"{folder}, LanceDB table {name!r}"
        self._column = choose(None, [c for c in columns if c in VECTOR_NAMES], f"{self.name}, its columns of vectors")
        self._id = ["id"] if "id" in columns else []

    def chunks(self, size: int, wanted: Wanted = lambda number: True) -> Iterator[Chunk]:
        for number in range(-(-self.count // size)):
            if wanted(number):
                start = number * size
                page = self._page(size, start)
                vectors = list_column(page.column(self._column).combine_chunks(), start, self.name)
                ids = [str(row) for row in range(start, start + len(vectors))]
                if self._id:
                    ids = [str(name) for name in page.column("id").to_pylist()]
                yield Chunk(number, start, ids, vectors)

    def _page(self, size: int, start: int) -> Any:
        try:
            return self._table.search().select(self._id + [self._column]).limit(size).offset(start).to_arrow()
        except Exception as error:  # as above
            raise InputError(_unreadable(self.name, error)) from None


def choose(wanted: str | None, names: list[str], where: str) -> str:
    """The wanted name, or the only one. Raises `InputError`, with the names that exist."""
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return wanted
    what = f"there is no {wanted!r}" if wanted is not None else "choose one with --collection"
    raise InputError(f"{where}: {', '.join(map(str, names)) or 'none'}; {what}")


def _check_sqlite(path: Path) -> None:
    """Raise `InputError` for a locked or damaged file: Chroma would wait for the lock for many minutes."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=LOCK_SECONDS)
        try:
            connection.execute("SELECT count(*) FROM collections").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InputError(_unreadable(path, error)) from None


def _needs(package: str) -> Any:
    try:
        return __import__(package)
    except ImportError:
        raise InputError(f"reading this store needs {package}; run: pip install {package}") from None


def _unreadable(where: Any, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    hint = (
        "another program holds it: close that first" if "locked" in reason else "is it damaged, or of another version?"
    )
    return f"{where} cannot be read ({reason}); {hint}"
