"""The decoder's tokenizer: the encoder's own WordPiece, pruned to the pieces a corpus uses often."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordPiece

from invlib.errors import InputError, first_line

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokenizer:
    """Text ↔ token ids without framing tokens: a sentence is its content, its length is the number of pieces.

    Wraps a `tokenizers` tokenizer; open one with `Tokenizer.load`, make one with `Tokenizer.prune`. `mask_token_id` and
    `unk_token_id` are None where the vocabulary has no such piece.
    """

    def __init__(self, backend: FastTokenizer, *, mask_token_id: int | None, unk_token_id: int | None):
        self.backend, self.mask_token_id, self.unk_token_id = backend, mask_token_id, unk_token_id
        self.backend.no_truncation()
        self.backend.no_padding()
        # A text may contain the characters "[MASK]"; as the special piece it would be a hole in x0.
        self.backend.encode_special_tokens = True

    @classmethod
    def load(cls, name: str | Path) -> "Tokenizer":
        """Open `tokenizer.json` (file or a folder that holds it), or a hub name. No remote code is run."""
        path = Path(name).expanduser()
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            if file.is_file():
                return cls._of_pieces(FastTokenizer.from_file(str(file)))
            from transformers import AutoTokenizer  # only here: it costs seconds

            fast = AutoTokenizer.from_pretrained(str(name), trust_remote_code=False)
            ids = {"mask_token_id": fast.mask_token_id, "unk_token_id": fast.unk_token_id}
            return cls(fast.backend_tokenizer, **ids)
        except Exception as error:  # tokenizers and the hub client raise bare Exceptions
            raise InputError(
                f"the tokenizer {str(name)!r} could not be opened ({first_line(error)}); expected a tokenizer.json, "
                "a folder with one, or the name of a hub model that this machine can reach"
            ) from error

    @classmethod
    def _of_pieces(cls, backend: FastTokenizer) -> "Tokenizer":
        """The special pieces are known by their names."""
        known = [piece for piece in SPECIAL_PIECES if backend.token_to_id(piece) is not None]
        backend.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in known])
        return cls(backend, mask_token_id=backend.token_to_id("[MASK]"), unk_token_id=backend.token_to_id("[UNK]"))

    @classmethod
    def prune(cls, fast: Any, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Prune the fast tokenizer of an encoder.

        What stays: the special pieces, every single character, and the pieces of Latin script that `texts` uses most.

        A word whose piece is gone falls apart into shorter pieces that are still there, so that every
        character the encoder can read stays reachable. Raises `InputError` when vocab_size is too small
        for that, or when the tokenizer is not a WordPiece.
        """
        backend = FastTokenizer.from_str(fast.backend_tokenizer.to_str())
        if not isinstance(backend.model, WordPiece):
            raise InputError(
                f"only a WordPiece vocabulary can be pruned, this is {type(backend.model).__name__}; "
                "name the encoder's tokenizer in decoder_tokenizer instead of 'pruned'"
            )
        pieces = _frequent_pieces(backend, texts, vocab_size)
        contents = json.loads(backend.to_str())
        contents["model"]["vocab"] = {piece: index for index, piece in enumerate(pieces)}
        contents["added_tokens"] = []  # they hold the ids of before
        return cls._of_pieces(FastTokenizer.from_str(json.dumps(contents)))

    @property
    def vocab_size(self) -> int:
        """Number of pieces, added tokens included."""
        return self.backend.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, content only."""
        encoded = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [row.ids for row in encoded]

    def ids_of(self, text: str) -> list[int]:
        """Token ids of one text, or of one piece that continues a word, such as "##ing"."""
        if text.startswith("##"):
            return [i for i in [self.backend.token_to_id(text)] if i is not None]
        return self.encode([text])[0]

    def decode(self, ids: Iterable) -> str:
        """The text of one row of ids, special pieces left out, with ordinary spacing around punctuation."""
        text = self.backend.decode([int(i) for i in ids], skip_special_tokens=True)
        if not isinstance(self.backend.model, WordPiece):
            return text
        return tidy_spacing(text)

    def pieces(self, ids: Iterable) -> list[str]:
        """What a person is shown for each id: the piece, `##` marking the continuation of a word."""
        if isinstance(self.backend.model, WordPiece):
            return [self.backend.id_to_token(int(i)) or f"<{int(i)}>" for i in ids]
        return [self.backend.decode([int(i)], skip_special_tokens=False) for i in ids]

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Share of the texts' tokens that the vocabulary cannot spell ([UNK])."""
        ids = [i for row in self.encode(texts) for i in row]
        return sum(i == self.unk_token_id for i in ids) / len(ids) if ids else 0.0

    def save(self, path: str | Path) -> None:
        """Write one `tokenizer.json`."""
        self.backend.save(str(path))


def tidy_spacing(text: str) -> str:
    """Undo the blanks that WordPiece decoding leaves around punctuation.

    >>> tidy_spacing("it ' s a well - known , old song .")
    "it's a well-known, old song."
    """
    text = re.sub(r"(?<=\w) (['’]) (?=(?:s|t|m|d|re|ve|ll)\b)", r"\1", text)
    text = re.sub(r"(?<=\w) - (?=\w)", "-", text)
    text = re.sub(r"(?<=\d) ?([.:]|,(?= \d{3}\b)) (?=\d)", r"\1", text)  # the decoder has taken the first blank
    text = re.sub(r" (?=[.,;:!?)\]%])", "", text)
    text = re.sub(r"(?<=[(\[$£€#]) ", "", text)
    return re.sub(r'" ?([^"]*?) ?"', r'"\1"', text)


def _frequent_pieces(backend: FastTokenizer, texts: Iterable[str], vocab_size: int) -> list[str]:
    vocab = backend.get_vocab()
    characters = sorted((piece for piece in vocab if len(piece.removeprefix("##")) == 1), key=vocab.get)
    kept = dict.fromkeys([*SPECIAL_PIECES, *characters])
    written = [piece for piece in vocab if piece not in kept and _is_latin(piece)]
    if not len(kept) <= vocab_size <= len(kept) + len(written):
        raise InputError(
            f"vocab_size {vocab_size} does not fit: {len(kept)} special and single-character pieces always stay, "
            f"and with all of Latin script there are {len(kept) + len(written)}; choose a size between the two"
        )
    backend.no_truncation()
    backend.no_padding()
    counts: Counter[str] = Counter()
    for batch in _batches(texts, 10_000):
        for row in backend.encode_batch(batch, add_special_tokens=False):
            counts.update(row.tokens)
    # Ties broken by the encoder's own order, so that the same corpus always gives the same vocabulary.
    by_use = sorted(written, key=lambda piece: (-counts[piece], vocab[piece]))
    return [*kept, *by_use[: vocab_size - len(kept)]]


def _is_latin(piece: str) -> bool:
    """Whether all letters of a piece are Latin; placeholders such as [unused7] are no pieces of a text."""
    return not piece.startswith("[") and all("LATIN" in unicodedata.name(c, "") for c in piece if c.isalpha())


def _batches(texts: Iterable[str], size: int) -> Iterable[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
