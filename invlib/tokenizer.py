"""The decoder's tokenizer: the encoder's own WordPiece, pruned to the pieces a corpus uses often."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordPiece
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from invlib.errors import InputError

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokenizer:
    """Text ↔ token ids without framing tokens: a sentence is its content, its length is the number of pieces.

    Wraps a transformers fast tokenizer; open one with `Tokenizer.load`, make one with `Tokenizer.prune`.
    """

    def __init__(self, fast: PreTrainedTokenizerFast):
        self.fast = fast
        self.backend = fast.backend_tokenizer
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
                backend = FastTokenizer.from_file(str(file))
                return cls(_wrap(backend))
            return cls(AutoTokenizer.from_pretrained(str(name), trust_remote_code=False))
        except Exception as error:  # tokenizers and the hub client raise bare Exceptions
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
            raise InputError(
                f"the tokenizer {str(name)!r} could not be opened ({reason}); expected a tokenizer.json, "
                "a folder with one, or the name of a hub model that this machine can reach"
            ) from error

    @classmethod
    def prune(cls, fast: PreTrainedTokenizerFast, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Keep the special pieces, every single character, and the pieces of Latin script that `texts` uses most.

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
        backend.model = WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]")
        return cls(_wrap(backend))

    @property
    def vocab_size(self) -> int:
        """Number of pieces, added tokens included."""
        return self.backend.get_vocab_size()

    @property
    def mask_token_id(self) -> int | None:
        """Id of [MASK]; None where the vocabulary has no such piece."""
        return self.fast.mask_token_id

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, content only."""
        encoded = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [row.ids for row in encoded]

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
        unknown = self.fast.unk_token_id
        return sum(i == unknown for i in ids) / len(ids) if ids else 0.0

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


def _wrap(backend: FastTokenizer) -> PreTrainedTokenizerFast:
    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    named = dict(zip(roles, SPECIAL_PIECES, strict=True))
    known = {role: piece for role, piece in named.items() if backend.token_to_id(piece) is not None}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **known)
