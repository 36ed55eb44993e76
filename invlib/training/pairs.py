"""Pairs: (tokens, embedding) of a corpus, memory-mapped on disk, with a manifest of what made them."""

import gzip
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.tokenizer import Tokenizer

CHUNK = 8192  # rows encoded between two marks of progress; a killed build repeats at most this many
MIN_TOKENS = 4  # shorter fragments say nothing about inversion


class Pairs:
    """Rows of one corpus or several: `tokens` [n, max_seq_len] right-padded with 0, `embeddings` [n, embed_dim] float16
    (both read from disk by row numbers), `lengths` [n], and `sources` [n], places in `source_names`.
    """

    def __init__(self, *folders: str | Path):
        parts = [_Part(Path(folder)) for folder in folders]
        self.folders, self.manifests = folders, [part.manifest for part in parts]
        self.tokens = _joined([part.array("tokens") for part in parts])
        self.embeddings = _joined([part.array("embeddings") for part in parts])
        self.lengths = np.concatenate([part.array("lengths") for part in parts])
        self.lengths.flags.writeable = False
        names = [name for part in parts for name in part.manifest["sources"]]
        self.source_names = list(dict.fromkeys(names))
        place = {name: k for k, name in enumerate(self.source_names)}
        of_part = [np.array([place[name] for name in part.manifest["sources"]]) for part in parts]
        self.sources = np.concatenate([own[part.array("sources")] for own, part in zip(of_part, parts, strict=True)])

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
            f"{MIN_TOKENS} tokens, {told['too_long']:,} of more than {told['max_seq_len']}, "
            f"{told['unspelled']:,} mostly of unknown characters; {told['unknown_share']:.1%} of the tokens cannot be "
            "spelled"
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
        made_from = {
            "corpus_sha256": _sha256(corpus),
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
        folders = [folder / (name if k == 1 else f"{name}-{k}") for k in range(1, len(corpora) + 1)]
        for own, corpus in zip(folders, corpora, strict=True):
            cls.build(own, corpus, *made_with)
        return cls(*folders)


def _joined(arrays: Sequence[np.ndarray]) -> "np.ndarray | Rows":
    return arrays[0] if len(arrays) == 1 else Rows(arrays)


class Rows:
    """Arrays of one width, [n, width] together, read by row numbers."""

    def __init__(self, parts: Sequence[np.ndarray]):
        self._parts, self._ends = parts, np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Rows by number [m] → [m, width], in memory."""
        rows = np.asarray(rows)
        part = np.searchsorted(self._ends, rows, side="right")
        found = np.empty((len(rows), self._parts[0].shape[1]), self._parts[0].dtype)
        for k in np.unique(part):
            own = part == k
            found[own] = self._parts[k][rows[own] - (self._ends[k] - len(self._parts[k]))]
        return found


class _Part:
    """The folder of one corpus: read-only memory maps beside a manifest."""

    def __init__(self, folder: Path):
        self.folder, self.manifest = folder, _read_manifest(folder)
        if self.manifest["encoded"] < self.manifest["rows"]:
            raise InputError(
                f"{folder} holds {self.manifest['encoded']} of {self.manifest['rows']} embeddings; "
                "run the same build again, it goes on where it stopped"
            )

    def array(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")


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
    if len(ids) < MIN_TOKENS:
        return "too_short"
    if len(ids) > max_seq_len:
        return "too_long"
    # Decoded, nothing of it would be left to compare with.
    return "unspelled" if 2 * ids.count(tokenizer.unk_token_id) >= len(ids) else None


def read_texts(path: str | Path) -> list[str]:
    """The texts of `read_corpus`."""
    return read_corpus(path).texts


def read_corpus(path: str | Path) -> Corpus:
    """A corpus: `.jsonl` with a "text" field and perhaps a "source", or plain text with one a line; `.gz` of either.

    Raises `InputError` for a file that is missing, empty, not UTF-8, or has a line without text.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no corpus at {path}; expected .jsonl or .txt, plain or .gz")
    is_json = ".jsonl" in path.suffixes
    corpus = Corpus([], [])
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                text, source = _parsed(line, is_json, f"{path} line {number}")
                corpus.texts.append(text)
                corpus.sources.append(source)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 ({error.reason}, after line {len(corpus.texts)}); "
            "convert it first: iconv -f latin1 -t utf-8"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} could not be read: {error}") from error
    if not corpus.texts:
        raise InputError(f"{path} is empty; expected one sentence a line")
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
    max_seq_len, rows, lines = made_from["max_seq_len"], [], []
    counts = {"too_short": 0, "too_long": 0, "unspelled": 0}
    seen = unknown = 0
    for start, batch in _chunks(corpus.texts, "tokenise"):
        for line, ids in enumerate(tokenizer.encode(batch), start=start):
            seen, unknown = seen + len(ids), unknown + ids.count(tokenizer.unk_token_id)
            if reason := _unfit(ids, tokenizer, max_seq_len):
                counts[reason] += 1
            else:
                rows.append(ids)
                lines.append(line)
    if not rows:
        raise InputError(
            f"none of the {len(corpus.texts)} texts has {MIN_TOKENS} to {max_seq_len} tokens that the encoder can "
            "spell; give a corpus of sentences in its language"
        )
    _refuse_full_disk(folder, len(rows) * (4 * max_seq_len + 2 * made_from["embed_dim"] + 20))
    tokens = np.zeros((len(rows), max_seq_len), np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = ids
    names, sources = np.unique([corpus.sources[line] for line in lines], return_inverse=True)
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "lengths.npy", np.array([len(ids) for ids in rows], np.int32))
    np.save(folder / "lines.npy", np.array(lines, np.int64))
    np.save(folder / "sources.npy", sources.astype(np.int32))
    np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.float16, (len(rows), made_from["embed_dim"]))
    counts["unknown_share"] = unknown / max(1, seen)
    about = {"texts": len(corpus.texts), "rows": len(rows), **counts, "sources": names.tolist(), "encoded": 0}
    _write_manifest(folder, {**made_from, **about})


def _refuse_full_disk(folder: Path, needed: int) -> None:
    """Ask before, not after: writing to a memory map on a full disk kills the process without a word."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} needs {needed / 1e6:,.0f} MB and its disk has {free / 1e6:,.0f} MB left; "
            "make room, or choose another data_dir"
        )


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
    with tqdm(total=len(items), desc=what, unit=" texts", disable=len(items) <= CHUNK) as bar:
        for start in range(0, len(items), CHUNK):
            batch = items[start : start + CHUNK]
            yield start, batch
            bar.update(len(batch))


def _read_manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(f"no pairs at {folder}; build them with `python -m invlib.training --text FILE`")
    return json.loads(path.read_text(encoding="utf-8"))


def _write_manifest(folder: Path, manifest: dict) -> None:
    partial = folder / "manifest.json.partial"
    partial.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, folder / "manifest.json")


def _refuse_other(folder: Path, made_from: dict) -> None:
    manifest = _read_manifest(folder)
    for key, value in made_from.items():
        if manifest.get(key) != value:
            raise InputError(
                f"{folder} was built with {key} = {manifest.get(key)!r}, this run has {value!r}; "
                "choose another data_dir, or delete the folder"
            )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
