"""The decoder's tokenizer: text ↔ token ids, content only."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordPiece

from invlib.door.files import guarded, reading, write_text
from invlib.door.options import NAME
from invlib.door.tokenfile import check_cost
from invlib.errors import SURROGATES, InputError, require, shown

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILE_BYTES = 2**26  # of a tokenizer.json; the largest vocabularies have half of it


class Tokenizer:
    """Text ↔ token ids without framing tokens: a sentence is its content, its length is the number of pieces.

    Wraps a `tokenizers` tokenizer; open one with `Tokenizer.load`. `mask_token_id` and
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
        """Open `tokenizer.json` (file or a folder that holds it), or a hub name. No remote code is run.

        Raises `InputError` for what is missing, of something else, or would take far more to use than it has bytes.
        """
        NAME.check("a tokenizer", name)
        path, fix = Path(name).expanduser(), "expected a tokenizer.json, a folder with one, or a hub model's name"
        if path.exists():
            file = path / "tokenizer.json" if path.is_dir() else path
            with reading(file, "is no tokenizer", fix, most=FILE_BYTES):
                contents = file.read_text(encoding="utf-8")
                check_cost(json.loads(contents))
                return cls.of_pieces(FastTokenizer.from_str(contents))
        with guarded(f"the tokenizer {str(name)!r} could not be opened", f"{fix} that this machine can reach"):
            from transformers import AutoTokenizer  # only here: it costs seconds

            fast = AutoTokenizer.from_pretrained(str(name), trust_remote_code=False)
        return cls(fast.backend_tokenizer, mask_token_id=fast.mask_token_id, unk_token_id=fast.unk_token_id)

    @classmethod
    def of_pieces(cls, backend: FastTokenizer) -> "Tokenizer":
        """The special pieces are known by their names."""
        known = [piece for piece in SPECIAL_PIECES if backend.token_to_id(piece) is not None]
        backend.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in known])
        return cls(backend, mask_token_id=backend.token_to_id("[MASK]"), unk_token_id=backend.token_to_id("[UNK]"))

    @property
    def vocab_size(self) -> int:
        """Number of pieces, added tokens included."""
        return self.backend.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, content only."""
        texts = list(texts) if isinstance(texts, Iterable) else [texts]
        for text in texts:
            require(
                isinstance(text, str) and not SURROGATES.search(text), "a text", "a string of whole characters", text
            )
        return [row.ids for row in self.backend.encode_batch(texts, add_special_tokens=False)]

    def ids_of(self, text: str) -> list[int]:
        """Token ids of one text, or of one piece that continues a word, such as "##ing"."""
        if str(text).startswith("##"):
            return [i for i in [self.backend.token_to_id(text)] if i is not None]
        return self.encode([text])[0]

    def decode(self, ids: Iterable) -> str:
        """The text of one row of ids, special pieces left out, with ordinary spacing around punctuation."""
        text = self.backend.decode(_ids(ids), skip_special_tokens=True)
        return tidy_spacing(text) if isinstance(self.backend.model, WordPiece) else text

    def pieces(self, ids: Iterable) -> list[str]:
        """What a person is shown for each id: the piece, `##` marking the continuation of a word."""
        if isinstance(self.backend.model, WordPiece):
            return [self.backend.id_to_token(i) or f"<{i}>" for i in _ids(ids)]
        return [self.backend.decode([i], skip_special_tokens=False) for i in _ids(ids)]

    def is_ordinary(self, token: int) -> bool:
        """Is an id that of a piece of texts, and no added or absent one?"""
        return token < self.vocab_size and token not in self.backend.get_added_tokens_decoder()

    def save(self, path: str | Path) -> None:
        """Write one `tokenizer.json`."""
        write_text(Path(path), self.backend.to_str(pretty=True))


def _ids(given: Iterable) -> list[int]:
    """Token ids as Python's integers."""
    try:
        ids = [int(i) for i in given]
        if all(0 <= i < 2**32 for i in ids):
            return ids
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor without numbers
        pass
    raise InputError(f"token ids must be whole numbers from 0 on, got {shown(given)}")


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
