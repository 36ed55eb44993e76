"""Pairs: (tokens, embedding) of a corpus, memory-mapped on disk, with a manifest of what made them."""

import copy
import gzip
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pandas.api.types import union_categoricals
from tqdm.auto import tqdm

from invlib.door.files import reading, write_atomically, write_text, writing
from invlib.door.vectors import LONGEST_TEXT, problem_of
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
        self.folders, self.manifests = folders, [_read_manifest(Path(folder)) for folder in folders]
        for folder, told in zip(folders, self.manifests, strict=True):
            if told["encoded"] < told["rows"]:
                again = "run the same build again, it goes on where it stopped"
                raise InputError(f"{folder} holds {told['encoded']} of {told['rows']} embeddings; {again}")
        tokens, embeddings, lengths, sources = (
            [_array(Path(folder), name, told["rows"]) for folder, told in zip(folders, self.manifests, strict=True)]
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

    def on(self, device: torch.device) -> "Pairs":
        """The same pairs, their tokens (int32) and embeddings as tensors on a device instead of files on a disk."""
        moved, rows = copy.copy(self), np.arange(len(self))
        moved.tokens = torch.from_numpy(self.tokens[rows].astype(np.int32)).to(device)
        moved.embeddings = torch.from_numpy(self.embeddings[rows]).to(device)
        return moved

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
        made_from = origin(digest, encoder, tokenizer, max_seq_len)
        if not is_begun(folder, made_from):
            _write_tokens(folder, read, tokenizer, made_from)
        lines = _array(folder, "lines", _read_manifest(folder)["rows"])
        write_embeddings(folder, lambda rows: encoder.encode([read.texts[n] for n in lines[rows]], batch_size=128))
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


def origin(digest: str, encoder: Encoder, tokenizer: Tokenizer, max_seq_len: int) -> dict:
    """What makes the pairs of a corpus of this SHA-256."""
    return {
        "corpus_sha256": digest,
        "encoder": encoder.name,
        "embed_dim": encoder.embed_dim,
        "prompt": encoder.prompt,
        "encoder_dtype": encoder.precision,
        "tokenizer_sha256": hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest(),
        "max_seq_len": max_seq_len,
    }


def is_begun(folder: Path, made_from: dict) -> bool:
    """Whether pairs lie in a folder, which is made where it is missing. Raises `InputError` for another origin."""
    if (folder / "manifest.json").is_file():
        _refuse_other(folder, made_from)
        return True
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return False


def fitting(texts: Sequence[str], tokenizer: Tokenizer, max_seq_len: int) -> list[str]:
    """The texts that training would use: of 4 to max_seq_len tokens, less than half of them unknown."""
    return [t for t, ids in zip(texts, tokenizer.encode(texts), strict=True) if not unfit(ids, tokenizer, max_seq_len)]


def unfit(ids: Sequence[int], tokenizer: Tokenizer, max_seq_len: int) -> str | None:
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
    Raises `InputError` for a file that is missing, empty, not UTF-8, or has lines without text: it names the first of
    them and counts the others.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no corpus at {path}; expected .jsonl or .txt, plain or .gz")
    is_json = any(suffix.lower() in (".jsonl", ".ndjson") for suffix in path.suffixes)
    corpus, problems = Corpus([], []), []
    if not is_json and any(suffix.lower() in TABLES for suffix in path.suffixes):
        return _from_table(path)
    opened, fix = gzip.open if path.suffix == ".gz" else open, "expected UTF-8; convert it: iconv -f latin1 -t utf-8"
    with reading(path, "could not be read", fix), opened(path, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(_lines(file), start=1):
            if line is None:
                told = f"{path} line {number} has more than {LONGEST_TEXT:,} characters; it is skipped"
                print(told, file=sys.stderr)
                continue
            try:
                text, source = _parsed(line, is_json, f"{path} line {number}")
            except InputError as error:
                problems.append(str(error))
                continue
            corpus.texts.append(text)
            corpus.sources.append(source)
    _refuse(problems, "lines")
    if not corpus.texts:
        raise InputError(f"{path} is empty; expected one sentence a line")
    return corpus


def _lines(file: io.TextIOBase) -> Iterator[str | None]:
    """The lines of a file; None in the place of one that does not end where a text must have."""
    while line := file.readline(LONGEST_TEXT + 1):
        too_long = len(line) > LONGEST_TEXT
        while len(line) > LONGEST_TEXT and not line.endswith("\n"):
            line = file.readline(LONGEST_TEXT + 1)
        yield None if too_long else line


def _from_table(path: Path) -> Corpus:
    """The texts of a file of named fields; a list of texts in JSON has none."""
    from invlib.sources import read_rows  # only here: it brings pyarrow along

    corpus, problems = Corpus([], []), []
    for number, row in enumerate(read_rows(path), start=1):
        field = next((name for name in TEXT_FIELDS if name in row), "vector" if list(row) == ["vector"] else None)
        if field is None:
            raise InputError(f"{path} has no field {' or '.join(TEXT_FIELDS)}; it has {', '.join(row)}")
        if not isinstance(row[field], str) or not row[field].strip():
            problems.append(f"{path} row {number} has no text; remove the row")
            continue
        corpus.texts.append(row[field].strip())
        corpus.sources.append(str(row.get("source") or ""))
    _refuse(problems, "rows")
    if not corpus.texts:
        raise InputError(f"{path} is empty; expected one sentence a row")
    return corpus


def _refuse(problems: Sequence[str], what: str) -> None:
    """Raise the first problem, and how many lines or rows have one."""
    if problems:
        others = f" ({len(problems):,} {what} cannot be read, this is the first)" if len(problems) > 1 else ""
        raise InputError(problems[0] + others)


def _parsed(line: str, is_json: bool, where: str) -> tuple[str, str]:
    """Text and source of one line."""
    text, source = line, ""
    if is_json:
        try:
            row = json.loads(line)
            text, source = row["text"], row.get("source", "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(f'{where} has no "text" field; expected {{"text": "…"}}') from None
    if (problem := problem_of(text)) is not None:
        raise InputError(f"{where} {problem}; repair or remove the line")
    return text.strip(), str(source)[:200]


def _write_tokens(folder: Path, corpus: Corpus, tokenizer: Tokenizer, made_from: dict) -> None:
    top = made_from["max_seq_len"]
    spelled, left_out = [], []
    for texts in _chunks(corpus.texts, "tokenise"):
        encoded = tokenizer.encode(texts)
        spelled += [np.array(ids, np.int32) for ids in encoded]
        left_out += [unfit(ids, tokenizer, top) for ids in encoded]
    lines = np.array([line for line, reason in enumerate(left_out) if reason is None], np.int64)
    if not len(lines):
        found = f"none of the {len(spelled)} texts has {MIN_TOKENS} to {top} tokens that the encoder can spell"
        raise InputError(f"{found}; give a corpus of sentences in its language")
    lengths = np.array([len(spelled[line]) for line in lines], np.int32)
    names, sources = np.unique([corpus.sources[line] for line in lines], return_inverse=True)
    about = {"texts": len(spelled), "rows": len(lines)}
    about |= {reason: left_out.count(reason) for reason in ("too_short", "too_long", "unspelled")}
    about["unknown_share"] = float((np.concatenate(spelled) == tokenizer.unk_token_id).mean())
    arrays = {"lengths": lengths, "lines": lines, "sources": sources.astype(np.int32)}
    flat = np.concatenate([spelled[line] for line in lines])
    write_tokens(folder, flat, arrays, {**made_from, **about, "sources": names.tolist()})


def write_tokens(folder: Path, flat: np.ndarray, arrays: dict[str, np.ndarray], manifest: dict) -> None:
    """The files of pairs, up to their embeddings. flat: the ids of all rows, one row after the other."""
    rows, top, embed_dim = len(arrays["lengths"]), manifest["max_seq_len"], manifest["embed_dim"]
    _refuse_full_disk(folder, rows * (4 * top + 2 * embed_dim + 20))
    tokens = np.zeros((rows, top), np.uint16 if flat.max() < 2**16 else np.int32)
    tokens[np.arange(top) < arrays["lengths"][:, None]] = flat
    for name, values in {"tokens": tokens, **arrays}.items():
        write_atomically(folder / f"{name}.npy", partial(_save, values))
    write_atomically(folder / "embeddings.npy", partial(_make_room, (rows, embed_dim)))
    _write_manifest(folder, {**manifest, "encoded": 0})


def _save(values: np.ndarray, path: Path) -> None:
    with open(path, "wb") as file:  # np.save would add an ending to a path
        np.save(file, values)


def _make_room(shape: tuple[int, int], path: Path) -> None:
    np.lib.format.open_memmap(path, "w+", np.float16, shape)


def _array(folder: Path, name: str, rows: int) -> np.ndarray:
    path = folder / f"{name}.npy"
    with reading(path, "is damaged", f"delete {folder} to build the pairs again"):
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if len(found) != rows:
            raise ValueError(f"it has {len(found)} rows, the manifest {rows}")
        return found


def _refuse_full_disk(folder: Path, needed: int) -> None:
    """Ask before, not after hours of encoding."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        found = f"{folder} needs {needed / 1e6:,.0f} MB and its disk has {free / 1e6:,.0f} MB left"
        raise InputError(f"{found}; make room, or choose another data_dir")


def write_embeddings(folder: Path, encode: Callable[[np.ndarray], np.ndarray]) -> None:
    """Vectors of the rows that have none yet, chunk by chunk. encode: numbers of rows [n] → vectors [n, embed_dim]."""
    manifest, path = _read_manifest(folder), folder / "embeddings.npy"
    count = manifest["rows"]
    size = _array(folder, "embeddings", count).nbytes // count
    for rows in _chunks(np.arange(manifest["encoded"], count), "encode"):
        vectors = encode(rows)
        # Written, not through a memory map: on a full disk that kills the process without a word.
        with writing(path), open(path, "r+b") as file:
            file.seek((int(rows[0]) - count) * size, os.SEEK_END)
            file.write(vectors.astype(np.float16).tobytes())
            file.flush()
            os.fsync(file.fileno())
        _write_manifest(folder, {**manifest, "encoded": int(rows[-1]) + 1})


def _chunks(items: Sequence | np.ndarray, what: str) -> Iterator[Sequence | np.ndarray]:
    starts = range(0, len(items), CHUNK)
    for start in tqdm(starts, desc=what, unit=" texts", unit_scale=CHUNK, disable=len(starts) < 2):
        yield items[start : start + CHUNK]


def _read_manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(f"no pairs at {folder}; build them with `python -m invlib.training --text FILE`")
    with reading(path, "is damaged", f"delete {folder} to build the pairs again", most=2**26):
        told = json.loads(path.read_text(encoding="utf-8"))
        if not 0 <= told["encoded"] <= told["rows"] or not isinstance(told["sources"], list):
            raise ValueError("its counts do not fit")
        return told


def _write_manifest(folder: Path, manifest: dict) -> None:
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def _refuse_other(folder: Path, made_from: dict) -> None:
    manifest = _read_manifest(folder)
    for key, value in made_from.items():
        if manifest.get(key) != value:
            found = f"{folder} was built with {key} = {manifest.get(key)!r}, this run has {value!r}"
            raise InputError(f"{found}; choose another data_dir, or delete the folder")
