"""Pairs: (tokens, embedding) of a corpus, memory-mapped on disk, with a manifest of what made them."""

import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals
from tqdm.auto import tqdm

from invlib.checkpoint import write_atomically
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.tokenizer import Tokenizer

CHUNK = 8192  # rows encoded between two marks of progress; a killed build repeats at most this many
TABLES = (".csv", ".tsv", ".json", ".parquet", ".arrow", ".feather")  # never read as plain lines
TEXT_FIELDS = ("text", "sentence", "content")
MIN_TOKENS = 4  # shorter fragments say nothing about inversion


class Pairs:
    """Rows of one corpus or several: `tokens` [n, max_seq_len] right-padded with 0, `embeddings` [n, embed_dim] float16
    (both read from disk by row numbers), `lengths` [n], and `sources` [n], places in `source_names`.
    """

    def __init__(self, *folders: str | Path):
        self.manifests = [_read_manifest(Path(folder)) for folder in folders]
        for folder, told in zip(folders, self.manifests, strict=True):
            if told["encoded"] < told["rows"]:
                again = "run the same build again, it goes on where it stopped"
                raise InputError(f"{folder} holds {told['encoded']} of {told['rows']} embeddings; {again}")
        tokens, embeddings, lengths, sources = (
            [np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for folder in folders]
            for name in ("tokens", "embeddings", "lengths", "sources")
        )
        self.tokens, self.embeddings = (own[0] if len(own) == 1 else Rows(own) for own in (tokens, embeddings))
        self.lengths = np.concatenate(lengths)
        self.lengths.flags.writeable = False
        named = zip(sources, self.manifests, strict=True)
        united = union_categoricals([pd.Categorical.from_codes(own, told["sources"]) for own, told in named])
        self.sources, self.source_names = united.codes, united.categories.tolist()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def identities(self) -> list[dict]:
        """What made the pairs of each corpus, without the counts: equal identities mean equal rows."""
        counts = ("texts", "rows", "too_short", "too_long", "unspelled", "unknown_share", "encoded", "sources")
        return [{key: value for key, value in told.items() if key not in counts} for told in self.manifests]

    @property
    def summary(self) -> str:
        """What became of each corpus, one line each."""
        return "\n".join(
            f"{told['rows']:,} of {told['texts']:,} texts are used; left out: {told['too_short']:,} of fewer than "
            f"{MIN_TOKENS} tokens, {told['too_long']:,} of more than {told['max_seq_len']}, {told['unspelled']:,} "
            f"mostly of unknown characters; {told['unknown_share']:.1%} of the tokens cannot be spelled"
            for told in self.manifests
        )

    @classmethod
    def build(
        cls, folder: str | Path, corpus: str | Path, encoder: Encoder, tokenizer: Tokenizer, max_seq_len: int
    ) -> "Pairs":
        """Tokenise and encode `corpus` into `folder`; a build that was interrupted goes on where it stopped.

        Texts with fewer than 4 or more than max_seq_len tokens, or with half of them unknown, are left out and counted
        in the manifest.
        Raises `InputError` when the folder already holds pairs of another corpus, encoder or tokenizer.
        """
        folder, corpus = Path(folder), Path(corpus).expanduser()
        read = read_corpus(corpus)
        with open(corpus, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        made_from = {
            "corpus_sha256": digest,
            "encoder": encoder.name,
            "embed_dim": encoder.embed_dim,
            "prompt": encoder.prompt,
            "encoder_dtype": str(next(encoder.model.parameters()).dtype).removeprefix("torch."),
            "tokenizer_sha256": hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest(),
            "max_seq_len": max_seq_len,
        }
        if (folder / "manifest.json").is_file():
            _refuse_other(folder, made_from)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            _write_tokens(folder, read, tokenizer, made_from)
        _write_embeddings(folder, read.texts, encoder)
        return cls(folder)

    @classmethod
    def build_all(cls, folder: Path, name: str, corpora: Sequence[Path], *made_with) -> "Pairs":
        """`build` of every corpus, in the folders name, name-2, … below `folder`; made_with: its last arguments."""
        folders = [folder / (f"{name}-{k}" if k > 1 else name) for k in range(1, len(corpora) + 1)]
        for own, corpus in zip(folders, corpora, strict=True):
            cls.build(own, corpus, *made_with)
        return cls(*folders)


class Rows:
    """Arrays of one width, [n, width] together, read by row numbers."""

    def __init__(self, parts: Sequence[np.ndarray]):
        self._parts, self._ends = parts, np.cumsum([len(part) for part in parts])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Rows by number [m] → [m, width], in memory."""
        found = np.empty((len(rows), self._parts[0].shape[1]), self._parts[0].dtype)
        for part, end in zip(self._parts, self._ends, strict=True):
            own = (end - len(part) <= rows) & (rows < end)
            found[own] = part[rows[own] - end]
        return found


@dataclass(frozen=True)
class Corpus:
    """The texts of a corpus, and the source of each: what its `source` field says, "" without one."""

    texts: list[str]
    sources: list[str]


def fitting(texts: Sequence[str], tokenizer: Tokenizer, max_seq_len: int) -> list[str]:
    """The texts that training would use: of 4 to max_seq_len tokens, less than half of them unknown."""
    return [t for t, ids in zip(texts, tokenizer.encode(texts), strict=True) if not _unfit(ids, tokenizer, max_seq_len)]


def _unfit(ids: Sequence[int], tokenizer: Tokenizer, max_seq_len: int) -> str | None:
    """Why a text is left out: too_short, too_long or unspelled; None where it is not."""
    if not MIN_TOKENS <= len(ids) <= max_seq_len:
        return "too_short" if len(ids) < MIN_TOKENS else "too_long"
    # Decoded, nothing of it would be left to compare with.
    return "unspelled" if 2 * ids.count(tokenizer.unk_token_id) >= len(ids) else None


def read_texts(path: str | Path) -> list[str]:
    """The texts of `read_corpus`."""
    return read_corpus(path).texts


def read_corpus(path: str | Path) -> Corpus:
    """A corpus: `.jsonl` with a "text" field and perhaps a "source", or plain text with one a line; `.gz` of either.

    Of `.csv`, `.tsv`, `.json` and `.parquet` the field "text" is read, or "sentence", or "content".
    Raises `InputError` for a file that is missing, empty, not UTF-8, or has a line without text.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no corpus at {path}; expected .jsonl or .txt, plain or .gz")
    is_json = any(suffix.lower() in (".jsonl", ".ndjson") for suffix in path.suffixes)
    corpus = Corpus([], [])
    if not is_json and any(suffix.lower() in TABLES for suffix in path.suffixes):
        return _from_table(path)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                text, source = _parsed(line, is_json, f"{path} line {number}")
                corpus.texts.append(text)
                corpus.sources.append(source)
    except UnicodeDecodeError as error:
        found = f"{path} is not UTF-8 ({error.reason}, after line {len(corpus.texts)})"
        raise InputError(f"{found}; convert it first: iconv -f latin1 -t utf-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} could not be read: {error}") from error
    if not corpus.texts:
        raise InputError(f"{path} is empty; expected one sentence a line")
    return corpus


def _from_table(path: Path) -> Corpus:
    """The texts of a file of named fields; a list of texts in JSON has none."""
    from invlib.sources import read_rows  # only here: it brings pyarrow along

    corpus = Corpus([], [])
    for number, row in enumerate(read_rows(path), start=1):
        field = next((name for name in TEXT_FIELDS if name in row), "vector" if list(row) == ["vector"] else None)
        if field is None:
            raise InputError(f"{path} has no field {' or '.join(TEXT_FIELDS)}; it has {', '.join(row)}")
        if not isinstance(row[field], str) or not row[field].strip():
            raise InputError(f"{path} row {number} has no text; remove the row")
        corpus.texts.append(row[field].strip())
        corpus.sources.append(str(row.get("source") or ""))
    if not corpus.texts:
        raise InputError(f"{path} is empty; expected one sentence a row")
    return corpus


def _parsed(line: str, is_json: bool, where: str) -> tuple[str, str]:
    """Text and source of one line."""
    text, source = line, ""
    if is_json:
        try:
            row = json.loads(line)
            text, source = row["text"], row.get("source", "")
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise InputError(f'{where} has no "text" field; expected {{"text": "…"}}') from None
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where} has no text; remove the line")
    return text.strip(), str(source)


def _write_tokens(folder: Path, corpus: Corpus, tokenizer: Tokenizer, made_from: dict) -> None:
    top, embed_dim = made_from["max_seq_len"], made_from["embed_dim"]
    spelled, left_out = [], []
    for _, texts in _chunks(corpus.texts, "tokenise"):
        encoded = tokenizer.encode(texts)
        spelled += [np.array(ids, np.int32) for ids in encoded]
        left_out += [_unfit(ids, tokenizer, top) for ids in encoded]
    lines = np.array([line for line, reason in enumerate(left_out) if reason is None], np.int64)
    if not len(lines):
        found = f"none of the {len(spelled)} texts has {MIN_TOKENS} to {top} tokens that the encoder can spell"
        raise InputError(f"{found}; give a corpus of sentences in its language")
    _refuse_full_disk(folder, len(lines) * (4 * top + 2 * embed_dim + 20))
    lengths = np.array([len(spelled[line]) for line in lines], np.int32)
    tokens = np.zeros((len(lines), top), np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32)
    tokens[np.arange(top) < lengths[:, None]] = np.concatenate([spelled[line] for line in lines])
    names, sources = np.unique([corpus.sources[line] for line in lines], return_inverse=True)
    arrays = {"tokens": tokens, "lengths": lengths, "lines": lines, "sources": sources.astype(np.int32)}
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.float16, (len(lines), embed_dim))
    about = {"texts": len(spelled), "rows": len(lines)}
    about |= {reason: left_out.count(reason) for reason in ("too_short", "too_long", "unspelled")}
    about["unknown_share"] = float((np.concatenate(spelled) == tokenizer.unk_token_id).mean())
    _write_manifest(folder, {**made_from, **about, "sources": names.tolist(), "encoded": 0})


def _refuse_full_disk(folder: Path, needed: int) -> None:
    """Ask before, not after: writing to a memory map on a full disk kills the process without a word."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        found = f"{folder} needs {needed / 1e6:,.0f} MB and its disk has {free / 1e6:,.0f} MB left"
        raise InputError(f"{found}; make room, or choose another data_dir")


def _write_embeddings(folder: Path, texts: Sequence[str], encoder: Encoder) -> None:
    manifest = _read_manifest(folder)
    lines = np.load(folder / "lines.npy", mmap_mode="r")
    embeddings = np.load(folder / "embeddings.npy", mmap_mode="r+")
    done = manifest["encoded"]
    for start, batch in _chunks(lines[done:], "encode"):
        rows = slice(done + start, done + start + len(batch))
        embeddings[rows] = encoder.encode([texts[line] for line in batch], batch_size=128)
        embeddings.flush()
        _write_manifest(folder, {**manifest, "encoded": rows.stop})


def _chunks(items: Sequence | np.ndarray, what: str) -> Iterator[tuple[int, Sequence | np.ndarray]]:
    starts = range(0, len(items), CHUNK)
    for start in tqdm(starts, desc=what, unit=" texts", unit_scale=CHUNK, disable=len(starts) < 2):
        yield start, items[start : start + CHUNK]


def _read_manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(f"no pairs at {folder}; build them with `python -m invlib.training --text FILE`")
    return json.loads(path.read_text(encoding="utf-8"))


def _write_manifest(folder: Path, manifest: dict) -> None:
    contents = json.dumps(manifest, indent=1) + "\n"
    write_atomically(folder / "manifest.json", lambda path: path.write_text(contents, encoding="utf-8"))


def _refuse_other(folder: Path, made_from: dict) -> None:
    manifest = _read_manifest(folder)
    for key, value in made_from.items():
        if manifest.get(key) != value:
            found = f"{folder} was built with {key} = {manifest.get(key)!r}, this run has {value!r}"
            raise InputError(f"{found}; choose another data_dir, or delete the folder")
