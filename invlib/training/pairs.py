"""Pairs: (tokens, embedding) of a corpus, memory-mapped on disk, with a manifest of what made them."""

import gzip
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.tokenizer import Tokenizer

CHUNK = 8192  # rows encoded between two marks of progress; a killed build repeats at most this many
MIN_TOKENS = 4  # shorter fragments say nothing about inversion


class Pairs:
    """Rows of one corpus: `tokens` [n, max_seq_len] right-padded with 0, `lengths` [n], `embeddings` [n, embed_dim].

    The arrays are read-only memory maps; embeddings are float16.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        if self.manifest["encoded"] < self.manifest["rows"]:
            raise InputError(
                f"{self.folder} holds {self.manifest['encoded']} of {self.manifest['rows']} embeddings; "
                "run the same build again, it goes on where it stopped"
            )
        self.tokens = np.load(self.folder / "tokens.npy", mmap_mode="r")
        self.lengths = np.load(self.folder / "lengths.npy", mmap_mode="r")
        self.embeddings = np.load(self.folder / "embeddings.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def identity(self) -> dict:
        """What made these pairs, without the counts: equal identities mean equal rows."""
        counts = ("texts", "rows", "too_short", "too_long", "unspelled", "unknown_share", "encoded")
        return {key: value for key, value in self.manifest.items() if key not in counts}

    @property
    def summary(self) -> str:
        """What became of the corpus, in one line."""
        told = self.manifest
        return (
            f"{told['rows']:,} of {told['texts']:,} texts are used; left out: {told['too_short']:,} of fewer than "
            f"{MIN_TOKENS} tokens, {told['too_long']:,} of more than {told['max_seq_len']}, "
            f"{told.get('unspelled', 0):,} mostly of unknown characters; "
            f"{told.get('unknown_share', 0):.1%} of the tokens cannot be spelled"
        )

    @classmethod
    def build(
        cls,
        folder: str | Path,
        corpus: str | Path,
        encoder: Encoder,
        tokenizer: Tokenizer,
        max_seq_len: int,
    ) -> "Pairs":
        """Tokenise and encode `corpus` into `folder`; a build that was interrupted goes on where it stopped.

        Texts with fewer than 4 or more than max_seq_len tokens, or with half of them unknown, are left out and counted
        in the manifest.
        Raises `InputError` when the folder already holds pairs of another corpus, encoder or tokenizer.
        """
        folder, corpus = Path(folder), Path(corpus).expanduser()
        texts = read_texts(corpus)
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
            _write_tokens(folder, texts, tokenizer, made_from)
        _write_embeddings(folder, texts, encoder)
        return cls(folder)


def read_texts(path: str | Path) -> list[str]:
    """The texts of a corpus: `.jsonl` with a "text" field, or plain text with one a line; `.gz` of either.

    Raises `InputError` for a file that is missing, empty, not UTF-8, or has a line without text.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no corpus at {path}; expected .jsonl or .txt, plain or .gz")
    is_json = ".jsonl" in path.suffixes
    texts = []
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                texts.append(_text_of(line, is_json, f"{path} line {number}"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 ({error.reason}, after line {len(texts)}); convert it first: iconv -f latin1 -t utf-8"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} could not be read: {error}") from error
    if not texts:
        raise InputError(f"{path} is empty; expected one sentence a line")
    return texts


def _text_of(line: str, is_json: bool, where: str) -> str:
    text = line
    if is_json:
        try:
            text = json.loads(line)["text"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise InputError(f'{where} has no "text" field; expected {{"text": "…"}}') from None
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where} has no text; remove the line")
    return text.strip()


def _write_tokens(folder: Path, texts: Sequence[str], tokenizer: Tokenizer, made_from: dict) -> None:
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
    max_seq_len = made_from["max_seq_len"]
    rows, lines, counts = [], [], {"too_short": 0, "too_long": 0, "unspelled": 0}
    tokens_seen = unknown = 0
    for start, batch in _chunks(texts, "tokenise"):
        for line, ids in enumerate(tokenizer.encode(batch), start=start):
            not_known = ids.count(tokenizer.fast.unk_token_id)
            tokens_seen, unknown = tokens_seen + len(ids), unknown + not_known
            if len(ids) < MIN_TOKENS:
                counts["too_short"] += 1
            elif len(ids) > max_seq_len:
                counts["too_long"] += 1
            elif 2 * not_known >= len(ids):  # decoded, nothing of it would be left to compare with
                counts["unspelled"] += 1
            else:
                rows.append(np.array(ids, dtype))
                lines.append(line)
    if not rows:
        raise InputError(
            f"none of the {len(texts)} texts has {MIN_TOKENS} to {max_seq_len} tokens that the encoder can spell; "
            "give a corpus of sentences in its language"
        )
    tokens = np.zeros((len(rows), max_seq_len), dtype)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = ids
    _refuse_full_disk(folder, tokens.nbytes + len(rows) * (2 * made_from["embed_dim"] + 16))
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "lengths.npy", np.array([len(ids) for ids in rows], np.int32))
    np.save(folder / "lines.npy", np.array(lines, np.int64))
    np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.float16, (len(rows), made_from["embed_dim"]))
    counts["unknown_share"] = unknown / max(1, tokens_seen)
    manifest = {**made_from, "texts": len(texts), "rows": len(rows), **counts, "encoded": 0}
    _write_manifest(folder, manifest)


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
