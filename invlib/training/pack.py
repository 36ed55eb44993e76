"""`python -m invlib.training pack`: code, encoder and corpora, as small as they travel to another machine."""

import argparse
import io
import json
import lzma
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as FastTokenizer

from invlib.checkpoint import PACKAGE, write_atomically
from invlib.config import dump_config, load_config
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.tokenizer import SPECIAL_PIECES, Tokenizer
from invlib.training.packed import ENCODER, IDS, MANIFEST, sha256, shape
from invlib.training.pairs import read_corpus, unfit
from invlib.training.start import initial_tokenizer

BATCH = 10_000  # texts that are tokenised at once
WEIGHTS = "model.safetensors"
HEAVY = ("*.safetensors", "*.bin", "*.onnx", "onnx", "openvino", "*.md", "data_config.json")


def main(arguments: Sequence[str]) -> None:
    """The command line: OUT/first (code, encoder, validation text), then OUT/second (the training's text)."""
    parser = argparse.ArgumentParser(prog="python -m invlib.training pack", description=__doc__.partition(": ")[2])
    parser.add_argument("--config", type=Path, required=True, help="YAML, e.g. configs/minilm_gpu.yaml")
    parser.add_argument("--text", type=Path, required=True, nargs="+", help=".jsonl or .txt, plain or .gz")
    parser.add_argument("--valid", type=Path, required=True, nargs="+", help="held-out text")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    chosen = parser.parse_args(arguments)
    if chosen.out.exists():
        raise InputError(f"{chosen.out} is there already; choose another --out, or delete it")
    config, first, second = load_config(chosen.config), chosen.out / "first", chosen.out / "second"
    encoder, top = Encoder.load(config.model.encoder_model), config.model.max_seq_len
    tokenizer = initial_tokenizer(config, encoder, chosen.text[0], first)
    write_encoder(first / ENCODER, encoder)
    tokenizer.save(first / "tokenizer.json")
    (first / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    shutil.copytree(PACKAGE, first / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "checkpoints"))
    seen: set[bytes] = set()  # what validates is not trained on
    for folder, corpora in ((first, chosen.valid), (second, chosen.text)):
        folder.mkdir(exist_ok=True)
        about = write_ids(folder / IDS, corpora, encoder, tokenizer, top, seen)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
        told = {"encoder": encoder.name, "corpus": about, "files": files}
        (folder / MANIFEST).write_text(json.dumps(told, indent=1), encoding="utf-8")
        counts = ", ".join(f"{key} {value:,}" for key, value in about.items() if isinstance(value, int))
        print(f"{folder}: {sum(path.stat().st_size for path in paths) / 2**20:.1f} MiB; {counts}")


def write_encoder(folder: Path, encoder: Encoder) -> None:
    """The encoder's own folder, its weights in fp16. Raises `InputError` for one whose vectors ids do not make."""
    home, fast = Path(encoder.model[0].auto_model.name_or_path), encoder.tokenizer
    framed, ids = (fast("a small test", add_special_tokens=own)["input_ids"] for own in (True, False))
    plain = not encoder.prompt and framed == [fast.cls_token_id, *ids, fast.sep_token_id]
    if not plain or not all((home / name).is_file() for name in ("modules.json", WEIGHTS)):
        needed = f"a folder with modules.json and {WEIGHTS} that reads [CLS] text [SEP] without a prompt"
        raise InputError(f"the encoder {encoder.name!r} cannot be packed; expected {needed}")
    shutil.copytree(home, folder, ignore=shutil.ignore_patterns(*HEAVY))
    weights = load_file(home / WEIGHTS)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    save_file(halves, folder / WEIGHTS, metadata={"format": "pt"})  # transformers asks for it


def write_ids(
    path: Path, corpora: Sequence[Path], encoder: Encoder, tokenizer: Tokenizer, top: int, seen: set[bytes]
) -> dict:
    """Ids of corpora in one file, each sentence once, sorted so that it compresses; returns what became of them.

    seen: rows that are left out, because they were packed before; the new ones are added.
    """
    found, about = [], Counter()
    for source, ids in _spelled(corpora, encoder, tokenizer):
        reason = unfit(ids, tokenizer, top) if ids else "respelled"
        row = b"" if reason else np.array(ids, np.uint16).tobytes()
        reason = "twice" if row in seen else reason
        about.update(("texts", reason or "rows"))
        if reason is None:
            seen.add(row)
            found.append((len(row) // 2, row, source))
    if not found:
        raise InputError(f"none of the {about['texts']} texts can be used; give a corpus of sentences")
    lengths, rows, sources = zip(*sorted(found), strict=True)
    names, places = np.unique(sources, return_inverse=True)
    tokens, ids = np.frombuffer(b"".join(rows), np.uint16), io.BytesIO()
    np.savez(ids, tokens=tokens, lengths=np.array(lengths, np.uint16), sources=places.astype(np.uint16))
    write_atomically(path, lambda partial: partial.write_bytes(lzma.compress(ids.getvalue())))
    counts = {key: about[key] for key in ("texts", "rows", "too_short", "too_long", "unspelled", "twice", "respelled")}
    share = float((tokens == tokenizer.unk_token_id).mean())
    return {**shape(tokenizer, top), **counts, "unknown_share": share, "sources": names.tolist()}


def _spelled(corpora: Sequence[Path], encoder: Encoder, tokenizer: Tokenizer) -> Iterator[tuple[str, list[int] | None]]:
    """Source and ids of every text: the very pieces that the encoder reads; None where one is not in our vocabulary."""
    fast = FastTokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
    fast.no_truncation()
    fast.no_padding()
    known = {piece: row for piece, row in tokenizer.backend.get_vocab().items() if piece not in SPECIAL_PIECES}
    known["[UNK]"] = tokenizer.unk_token_id
    for corpus in map(read_corpus, corpora):
        for start in range(0, len(corpus.texts), BATCH):
            own = slice(start, start + BATCH)
            rows = fast.encode_batch(corpus.texts[own], add_special_tokens=False)
            for source, row in zip(corpus.sources[own], rows, strict=True):
                ids = [known.get(piece) for piece in row.tokens]
                yield source, None if None in ids else ids
