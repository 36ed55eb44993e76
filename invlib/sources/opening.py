"""Opening: from a path or an address to the source it is."""

import hashlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from invlib.errors import InputError
from invlib.sources import arrays, tables, texts
from invlib.sources.databases import CHROMA_FILE, SERVERS, ChromaCollection, LanceTable
from invlib.sources.source import Page, Source, told

ARRAYS = {".npy": arrays.NpyFile, ".npz": arrays.NpzFile, ".safetensors": arrays.SafetensorsFile}
ARRAYS |= dict.fromkeys([".pt", ".pth"], arrays.TorchFile) | dict.fromkeys([".pkl", ".pickle"], arrays.PickleFile)
ARRAYS |= dict.fromkeys([".bin", ".f32", ".raw", ".fbin"], arrays.RawFile)
ARRAYS |= dict.fromkeys([".fvecs", ".bvecs", ".ivecs"], arrays.VecsFile)
ARRAYS |= dict.fromkeys([".faiss", ".index"], arrays.FaissIndex)
TEXTS = dict.fromkeys([".json", ".jsonl", ".ndjson"], texts.JsonFile)
TEXTS |= dict.fromkeys([".csv", ".tsv", ".txt", ".vec"], texts.CellFile)
TABLES = {".parquet": tables.ParquetFile, ".duckdb": tables.DuckdbTable}
TABLES |= dict.fromkeys([".arrow", ".feather", ".ipc"], tables.ArrowFile)
TABLES |= dict.fromkeys([".sqlite", ".sqlite3", ".db"], tables.SqliteTable)
FILES = {**ARRAYS, **TEXTS, **TABLES}
PACKED = (".gz", ".bz2", ".zst")


def open_source(
    path: str | Path, collection: str | None = None, *, column: str | None = None, dim: int | None = None
) -> Source:
    """The vectors in a file, in a folder of such files, in the folder of a Chroma or LanceDB store, or on a server.

    collection: which collection or table, column: which column or array, where there are several. dim: the dimension
    that is looked for; it decides between several, and says how to cut plain bytes into rows.
    Raises `InputError` for what is missing, empty, unreadable or of another kind.
    """
    scheme, _, rest = str(path).partition(":")
    if scheme in SERVERS:
        where = str(path) if scheme.startswith("postgres") else rest
        return SERVERS[scheme](where, collection, column, dim).opened()
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"there is nothing at {path}; expected a file of vectors or the folder of a database")
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is a pipe or a device, neither a file nor a folder; save what it gives in a file")
    kind, path, collection = _kind(path, collection)
    source = kind(path, collection, column, dim).opened()
    if source.count == 0:
        raise InputError(f"{source.name} holds no vector")
    return source


def read_rows(path: Path) -> Iterator[dict]:
    """The rows of a file of named fields, whatever stands in them. Raises `InputError` for one that is none."""
    kind = file_kind(path)
    if kind is None or not issubclass(kind, tables.Table):
        raise InputError(f"{path.name} has no named fields; expected .csv, .tsv, .json, .jsonl or .parquet")
    with told(f"{path} cannot be read"):
        yield from kind(path).rows()


def file_kind(path: Path) -> type[Source] | None:
    """What reads a file, by its suffix, upper or lower case, that of a packed one too."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] and suffixes[-1] in PACKED:
        return TEXTS.get(suffixes[-2]) if len(suffixes) > 1 else None
    return FILES.get(suffixes[-1]) if suffixes else None


def fingerprint(path: str | Path) -> str | None:
    """SHA-256 of a file, or of all files in a folder with their names; None for a server."""
    path = Path(path)
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        return None
    parts = sorted(inner for inner in path.rglob("*") if inner.is_file())
    lines = (f"{inner.relative_to(path).as_posix()} {fingerprint(inner)}\n" for inner in parts)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class Shards(Source):
    """A folder of files of one kind, in the order of their names."""

    def look(self) -> None:
        paths = _shards(self.path)
        options = {"column": self.column, "dim": self.wanted_dim}
        self._parts = [open_source(path, self.collection, **options) for path in paths]
        counts = [part.count for part in self._parts]
        self.count = None if None in counts else sum(counts)
        self.note = f"{len(paths)} files, {self._parts[0].note}".strip(", ")

    def pages(self, size: int) -> Iterator[Any]:
        return chain.from_iterable((Shard(part, page) for page in part.pages(size)) for part in self._parts)

    def read(self, page: Any) -> Page:
        return page.part.read(page.page)


class Shard:
    """A page of one file among several."""

    def __init__(self, part: Source, page: Any):
        self.part, self.page = part, page

    def __len__(self) -> int:
        return len(self.page)


def _shards(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] not in "._"]
    kinds = {file_kind(path) for path in found} - {None}
    return [path for path in found if file_kind(path)] if len(kinds) == 1 else []


def _kind(path: Path, collection: str | None) -> tuple[type[Source], Path, str | None]:
    """What reads it, from where, and which collection."""
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path} is empty; expected one vector a row")
    if path.name == CHROMA_FILE and path.is_file():
        return ChromaCollection, path.parent, collection
    if (path / CHROMA_FILE).is_file():
        return ChromaCollection, path, collection
    if path.suffix == ".lance" and path.is_dir():
        return LanceTable, path.parent, path.stem
    if any(path.glob("*.lance")):
        return LanceTable, path, collection
    if path.is_dir() and _shards(path):
        return Shards, path, collection
    if path.is_dir():
        told = f"{path} is neither a Chroma store ({CHROMA_FILE}) nor a LanceDB folder (*.lance)"
        raise InputError(f"{told}, nor a folder of files of one kind")
    if (kind := file_kind(path)) is None:
        raise InputError(f"{path.name} is of an unknown kind; expected {', '.join(FILES)} or a database's folder")
    return kind, path, collection
