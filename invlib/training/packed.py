"""Packed corpora: folders of token ids, one of them with the encoder; what a machine without the text trains on."""

import hashlib
import io
import json
import lzma
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn import functional as F

from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.tokenizer import Tokenizer
from invlib.training.pairs import Pairs, is_begun, origin, write_embeddings, write_tokens

MANIFEST = "manifest.json"  # names every file of the folder, with its SHA-256
IDS = "ids.npz.xz"
ENCODER = "encoder"


class PackedPairs(Pairs):
    """Pairs of packed corpora, encoded from their ids."""

    @classmethod
    def build(cls, folder: Path, corpus: Path, encoder: Encoder, tokenizer: Tokenizer, max_seq_len: int) -> "Pairs":
        """`Pairs.build` of a packed folder. Raises what that and `opened` raise."""
        told = opened(corpus)
        made_from = origin(told["files"][IDS], encoder, tokenizer, max_seq_len)
        for key, value in shape(tokenizer, max_seq_len).items():
            if told["corpus"][key] != value:
                found = f"{corpus} was packed with {key} = {told['corpus'][key]!r}, this run has {value!r}"
                raise InputError(f"{found}; pack it again with this configuration")
        if not is_begun(folder, made_from):
            with np.load(io.BytesIO(lzma.decompress((corpus / IDS).read_bytes()))) as ids:
                arrays = {name: ids[name].astype(np.int32) for name in ("lengths", "sources")}
                arrays["lines"] = np.arange(len(arrays["lengths"]))  # those it was packed from are not here
                write_tokens(folder, ids["tokens"], arrays, {**told["corpus"], **made_from})
        encode_rows(folder, encoder, tokenizer)
        return cls(folder)


def encode_rows(folder: Path, encoder: Encoder, tokenizer: Tokenizer) -> None:
    """Vectors of the rows that have none yet, from our ids of them."""
    tokens, lengths = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("tokens", "lengths"))
    theirs = np.array(encoder.tokenizer.convert_tokens_to_ids(tokenizer.pieces(range(tokenizer.vocab_size))))
    write_embeddings(folder, lambda rows: encode_ids(encoder, theirs[tokens[rows]], lengths[rows]))


@torch.inference_mode()
def encode_ids(
    encoder: Encoder, ids: Int[np.ndarray, "rows top"], lengths: Int[np.ndarray, "rows"]
) -> Float[np.ndarray, "rows embed"]:
    """What `Encoder.encode` gives for texts, from the encoder's ids of their content, right-padded.

    Rows of one length go through together, without padding: sorted rows make large batches.
    """
    vectors = np.empty((len(ids), encoder.embed_dim), np.float32)
    for length in np.unique(lengths):
        own = lengths == length
        framed = F.pad(torch.from_numpy(ids[own, :length]), (1, 1), value=encoder.tokenizer.sep_token_id)
        framed[:, 0] = encoder.tokenizer.cls_token_id
        framed = framed.to(encoder.model.device)
        told = encoder.model({"input_ids": framed, "attention_mask": torch.ones_like(framed)})
        vectors[own] = F.normalize(told["sentence_embedding"].float(), dim=1).cpu().numpy()
    encoder.queries += len(ids)
    return vectors


def read_encoder(folder: Path, device: torch.device) -> Encoder:
    """The encoder of a packed folder, in half precision on an accelerator; on a CPU that would be slow."""
    dtype, name = torch.float32 if device.type == "cpu" else torch.float16, opened(folder)["encoder"]
    encoder = Encoder.load(str((folder / ENCODER).resolve()), device=device, dtype=dtype)
    encoder.name = name
    return encoder


def opened(folder: Path) -> dict:
    """The manifest of a packed folder whose files are all as they were packed.

    Raises `InputError` for a file that is missing or has another SHA-256, and for a folder that pack did not write.
    """
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = dict(told["files"])
        {**told["corpus"], "encoder": told["encoder"], "ids": files[IDS]}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder} holds no {MANIFEST} of packed corpora; expected a folder that pack wrote") from None
    for name, expected in files.items():
        found = sha256(folder / name) if (folder / name).is_file() else "none"
        if found != expected:
            raise InputError(f"{folder / name} has SHA-256 {found}, its manifest says {expected}; copy it again")
    return told


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shape(tokenizer: Tokenizer, max_seq_len: int) -> dict:
    """What packed corpora and their training have to agree on, whichever version of tokenizers wrote the file."""
    pieces = "\n".join(tokenizer.pieces(range(tokenizer.vocab_size)))
    return {"pieces_sha256": hashlib.sha256(pieces.encode()).hexdigest(), "max_seq_len": max_seq_len}
