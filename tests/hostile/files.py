"""Checkpoint files of a stranger: every kind of damage and of malice, from a seed; none is stored.

A kind is a function of a random generator and an empty folder that returns what is to be opened; see `KINDS`.
"""

import functools
import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers

Kind = Callable[[random.Random, Path], Path]
KINDS: dict[str, Kind] = {}
SHAPE = {
    "vocab_size": 40,
    "max_seq_len": 8,
    "hidden_dim": 16,
    "num_layers": 2,
    "num_heads": 4,
    "ff_dim": 32,
    "embedding_cond_dim": 12,
    "mask_token_id": 4,
    "encoder_model": "minilm",
    "decoder_tokenizer": "pruned",
    "gate": True,
    "tie_embeddings": True,
    "length_head": True,
    "null_embedding": True,
    "standardize": True,
}
SCALAR = np.float64(0).__reduce__()[0]  # what makes a number of numpy from its type and bytes
WORDS = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), *(f"w{n}" for n in range(35))]
VALUES = [
    *(0, -1, 1, 2, 3, 7, 2**31, 2**63, 10**9, 10**18, 10**400, -(10**30), 1e9, 0.5, -0.0, 1e-320, 1e308),
    *(float("nan"), float("inf"), True, False, None, "", "4", "\x1b[31mred\x07", "\u202enwod", "x" * 5000, "a\0b"),
    *([], [1], {}, {"a": 1}, [[[[1]]]], b"\xff\x00"),
]


def kind(make: Kind) -> Kind:
    """Registers a kind under its name."""
    KINDS[make.__name__] = make
    return make


# ── sound files, to be spoiled ──


@functools.cache
def weights() -> dict[str, torch.Tensor]:
    """Random weights of the shape, every one of which matters."""
    from invlib.config import ModelConfig
    from invlib.model import ConditionalMDLM

    generator = torch.Generator().manual_seed(0)
    state = ConditionalMDLM(ModelConfig(**SHAPE)).state_dict()
    drawn = {name: torch.randn(value.shape, generator=generator) * 0.2 for name, value in state.items()}
    return {**drawn, "embedding_std": drawn["embedding_std"].abs() + 0.1}


def tokenizer(words: list[str] = WORDS) -> dict:
    """A WordPiece vocabulary as training writes it."""
    backend = FastTokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return json.loads(backend.to_str())


def folder(place: Path, *, shape: dict | None = None, tensors: dict | None = None, pieces: dict | None = None) -> Path:
    """A folder that training would write."""
    save_file({n: v.contiguous() for n, v in (tensors or weights()).items()}, place / "model.safetensors")
    (place / "config.yaml").write_text(yaml.safe_dump({"model": {**SHAPE, **(shape or {})}}))
    (place / "tokenizer.json").write_text(json.dumps(pieces or tokenizer()))
    return place


def contents(place: Path, **changes: object) -> dict:
    """What a published file holds; its tokenizer stands beside it."""
    (place / "tokenizer.json").write_text(json.dumps(tokenizer()))
    shape = {**SHAPE, "decoder_tokenizer": str(place / "tokenizer.json")}
    return {"config": {"model": shape}, "step": 1, "best_val_loss": 2.5, "model": weights(), **changes}


def published(place: Path, told: object) -> Path:
    torch.save(told, place / "x.pt")
    return place / "x.pt"


@kind
def sound_folder(rng: random.Random, place: Path) -> Path:
    return folder(place)


@kind
def sound_published(rng: random.Random, place: Path) -> Path:
    scalar = rng.choice([np.float64(1.5), np.float32(2.5), np.int64(3), np.bool_(True), np.float16(1.0), np.int32(9)])
    return published(place, contents(place, best_val_loss=scalar))


# ── damage ──


def spoiled(rng: random.Random, path: Path) -> None:
    """Cut, flip, insert or repeat some bytes."""
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at:at] = rng.randbytes(rng.randrange(1, 40))
            case 2:
                del data[at : at + rng.randrange(1, 400)]
            case _:
                data[at:at] = data[at : at + rng.randrange(1, 200)]
        data = data or bytearray(b"x")
    path.write_bytes(data)


@kind
def spoiled_published(rng: random.Random, place: Path) -> Path:
    path = published(place, contents(place))
    spoiled(rng, path)
    return path


def _spoiled_part(name: str, rng: random.Random, place: Path) -> Path:
    spoiled(rng, folder(place) / name)
    return place


KINDS |= {
    f"spoiled_{part}": functools.partial(_spoiled_part, name)
    for part, name in [
        ("weights", "model.safetensors"),
        ("configuration", "config.yaml"),
        ("tokenizer", "tokenizer.json"),
    ]
}


@kind
def cut(rng: random.Random, place: Path) -> Path:
    names = ["model.safetensors", "config.yaml", "tokenizer.json", "x.pt"]
    folder(place)
    published(place, contents(place))
    name = rng.choice(names)
    data = (place / name).read_bytes()
    (place / name).write_bytes(data[: rng.randrange(len(data))])
    return place / name if name == "x.pt" else place


@kind
def something_else(rng: random.Random, place: Path) -> Path:
    made = io.BytesIO()
    which = rng.randrange(6)
    if which == 0:
        made.write(rng.randbytes(rng.randrange(0, 4000)))
    elif which == 1:
        made.write(b"\x1f\x8b" + rng.randbytes(300))
    elif which == 2:
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr(rng.choice(["readme.txt", "a/data.pkl", "data.pkl", "../../data.pkl"]), rng.randbytes(50))
    elif which == 3:
        torch.save(rng.choice([torch.zeros(3), [1, 2], {"model": {}}, "text", None]), made)
    elif which == 4:
        torch.save(contents(place), made, _use_new_zipfile_serialization=False)
    else:
        pickle.dump(contents(place), made)
    (place / "x.pt").write_bytes(made.getvalue())
    return place / "x.pt"


@kind
def no_file_at_all(rng: random.Random, place: Path) -> Path:
    """Pipes, devices, folders and dangling links in the place of a file."""
    folder(place)
    name = rng.choice(["model.safetensors", "config.yaml", "tokenizer.json", "SHA256SUMS"])
    (place / name).unlink(missing_ok=True)
    make = rng.choice([os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p), lambda p: os.symlink("none", p)])
    make(place / name)
    if rng.random() < 0.3:
        os.mkfifo(place / "pipe.pt")
        return place / "pipe.pt"
    return place


# ── pickles ──


class Call:
    """Pickles as a call of a function by its name."""

    def __init__(self, function: Callable, *arguments: object):
        self.told = (function, arguments)

    def __reduce__(self):
        return self.told


@kind
def pickled_type(rng: random.Random, place: Path) -> Path:
    """numpy types that crash Python, take gigabytes or hold objects."""
    plain = [
        "O",
        "O,i8",
        "i8,O",
        "V2000000000",
        "S2000000000",
        "U500000000",
        "M8[s]",
        "c16",
        "i2",
        "u8",
        "(9999,9999)f8",
    ]
    code = rng.choice([*plain, "f8,f8", ">f8", "", "f", "x", "f8" * 400, 7, None, ("f8", "f8"), [("a", "O")]])
    told = Call(np.dtype, code) if rng.random() < 0.5 else Call(SCALAR, Call(np.dtype, code), rng.randbytes(8))
    return published(place, contents(place, best_val_loss=told))


@kind
def pickled_call(rng: random.Random, place: Path) -> Path:
    """Functions that run a program, or take any number of bytes; some of them torch itself would allow."""
    storage, tensor = torch.UntypedStorage, torch._utils
    told = rng.choice(
        [
            Call(os.system, "touch harm"),
            Call(eval, "1"),
            Call(bytearray, 10**10),
            Call(storage, 2**34),
            Call(torch.FloatStorage, 2**33),
            Call(tensor._rebuild_meta_tensor_no_storage, torch.float32, (10**9, 10**9), (1, 1), False),
            Call(tensor._rebuild_sparse_tensor, torch.sparse_coo, (torch.zeros(1, 1), torch.zeros(1), (10**12,))),
            Call(torch.device, "cuda"),
            Call(getattr, torch.Tensor, "zeros"),
            Call(np.zeros, 10**11),
            Call(set, [1]),
            Call(frozenset, [(1, 2)]),
        ]
    )
    where = rng.choice(["step", "config", "model", "best_val_loss"])
    return published(place, contents(place, **{where: rng.choice([told, [told], {"model": told}, {told: 1}])}))


def raw(place: Path, pickled: bytes, records: dict[str, bytes] | None = None, packed: bool = False) -> Path:
    """A torch file around a pickle that no pickler writes."""
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(place / "x.pt", "w", how) as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/byteorder", b"little")
        archive.writestr("x/version", b"3\n")
        for name, data in (records or {}).items():
            archive.writestr(f"x/data/{name}", data)
    return place / "x.pt"


@kind
def pickled_by_hand(rng: random.Random, place: Path) -> Path:
    """Words that torch.save never writes: memos out of reach, endless nesting, tuples whose hash never ends."""
    deep = rng.choice([900, 5_000, 100_000])
    doubled = b"(K\x01K\x02\x86" + b"".join(
        b"r" + struct.pack("<I", n) + (b"j" + struct.pack("<I", n)) + b"\x86" for n in range(40)
    )
    return raw(
        place,
        rng.choice(
            [
                b"\x80\x02}r\xff\xff\xff\xff.",
                b"\x80\x02" + b"]" * deep + b"a" * (deep - 1) + b".",
                b"\x80\x02" + b"(" * deep + b"t" * deep + b".",
                b"\x80\x02}" + doubled[1:] + b"K\x01s.",
                b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".",
                b"\x80\x02X\xff\xff\xff\x7f.",
                b"\x80\x04\x95" + b"\xff" * 8 + b".",
                b"cos\nsystem\n(S'touch harm'\ntR.",
                b"\x80\x02cbuiltins\nexec\nX\x01\x00\x00\x00x\x85R.",
                b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",
                b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.",
                b"N0" * 2_000_000 + b".",
                rng.randbytes(200),
            ]
        ),
    )


@kind
def stretched_tensor(rng: random.Random, place: Path) -> Path:
    """One number that says it is billions."""
    shape = {**SHAPE, "vocab_size": rng.choice([2**20, 2**24, 10**9]), "hidden_dim": rng.choice([1024, 2**16])}
    name = "token_embed.weight"
    huge = torch.zeros(1).expand(shape["vocab_size"], shape["hidden_dim"])
    tensors = {**weights(), name: huge, "null_embedding": torch.zeros(1).expand(rng.choice([12, 10**12]))}
    return published(place, contents(place, model=tensors, config={"model": {**shape, "decoder_tokenizer": "pruned"}}))


@kind
def packed_records(rng: random.Random, place: Path) -> Path:
    """Zip bombs: records that are packed, or say that they are larger than they are."""
    zeros = bytes(rng.choice([10**7, 10**8]))
    pickled = pickle.dumps({"config": {"model": SHAPE}, "model": {}, "x": zeros[: 10**7]}, 2)
    path = raw(place, pickled if rng.random() < 0.5 else b"\x80\x02N.", {"0": zeros}, packed=True)
    if rng.random() < 0.4:
        data = bytearray(raw(place, b"\x80\x02N.", {"0": b"1234"}).read_bytes())
        at = data.index(b"PK\x01\x02") + rng.choice([20, 24])
        data[at : at + 4] = struct.pack("<I", rng.choice([0xFFFFFFFF, 2**31, 10**9]))
        path.write_bytes(data)
    return path


@kind
def published_values(rng: random.Random, place: Path) -> Path:
    """Configuration and weights of other types than there should be."""
    told = contents(place)
    match rng.randrange(4):
        case 0:
            told[rng.choice(["config", "model"])] = rng.choice(VALUES)
        case 1:
            told["config"]["model"][rng.choice([*SHAPE, "num_heds"])] = rng.choice(VALUES)
        case 2:
            told["model"] = {**weights(), rng.choice([*weights()]): rng.choice(VALUES)}
        case _:
            told["model"] = {rng.choice([0, 1.5, None, (1, 2), "x"]): value for value in weights().values()}
    return published(place, told)


# ── weights ──


@kind
def wrong_weights(rng: random.Random, place: Path) -> Path:
    """Numbers that are none, types that are no weights, names that are two, shapes of another."""
    name, tensors = rng.choice([*weights(), "embedding_std", "embedding_std"]), dict(weights())
    value = tensors[name].clone()
    flat = value.view(-1)
    match rng.randrange(9):
        case 0:
            flat[rng.randrange(len(flat))] = rng.choice([torch.nan, torch.inf, -torch.inf])
        case 1:
            value = value.to(rng.choice([torch.complex64, torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn]))
        case 2:
            value = value.double() * rng.choice([1e300, 1e39])
        case 3:
            value = value * rng.choice([1e30, 3e38, 1e-30])
        case 4:
            tensors[f"_orig_mod.{name}"] = value.clone()
        case 5:
            value = value[None]
        case 6:
            name, value = "embedding_std", torch.full((12,), rng.choice([0.0, -1.0, torch.nan]))
        case 7:
            tensors["another"] = value.clone()
        case _:
            value = torch.zeros(0)
    tensors[name] = value
    if rng.random() < 0.5 and value.dtype != torch.complex64:
        return folder(place, tensors=tensors)
    return published(place, contents(place, model=tensors))


@kind
def safetensors_header(rng: random.Random, place: Path) -> Path:
    """Headers that lie about types, shapes, places and their own length."""
    folder(place)
    data = (place / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    own = header[rng.choice([name for name in header if name != "__metadata__"])]
    match rng.randrange(8):
        case 0:
            own["shape"] = rng.choice([[2**62, 2], [-1], [10**30], [0], "x", [1] * 5000, [2**32, 2**32]])
        case 1:
            own["dtype"] = rng.choice(["F64", "F8_E4M3", "C64", "OBJECT", "", 7, "I64", "BOOL", "F4"])
        case 2:
            own["data_offsets"] = rng.choice([[0, 2**63], [5, 1], [-4, 0], [0, 0], [0], "x", [0, len(rest) * 2]])
        case 3:
            header |= {f"empty.{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(50_000)}
        case 4:
            header["__metadata__"] = rng.choice([{"fingerprint": "0"}, {"a": 1}, [], {"fingerprint": "\x1b[2J" * 999}])
        case 5:
            header = {"a": functools.reduce(lambda inner, _: [inner], range(500), 1)}
        case 6:
            (place / "model.safetensors").write_bytes(
                struct.pack("<Q", rng.choice([2**63, 10**12, 2**24 + 1, 0])) + rest
            )
            return place
        case _:
            rest = rest * rng.choice([0, 2])
    told = json.dumps(header).encode()
    (place / "model.safetensors").write_bytes(struct.pack("<Q", len(told)) + told + rest)
    return place


# ── configuration ──


@kind
def configured(rng: random.Random, place: Path) -> Path:
    """One or two keys with values of all sorts."""
    keys = [
        *SHAPE,
        "dropout",
        "post_norm",
        "length_dim",
        "noise_condition",
        "corrector_dim",
        "logit_temperature",
        "fingerprint",
    ]
    return folder(place, shape={key: rng.choice(VALUES) for key in rng.sample(keys, rng.choice([1, 1, 2]))})


@kind
def huge_shape(rng: random.Random, place: Path) -> Path:
    """A shape that would take years to build, declared over a few thousand weights."""
    keys = [
        "vocab_size",
        "max_seq_len",
        "hidden_dim",
        "num_layers",
        "ff_dim",
        "embedding_cond_dim",
        "length_dim",
        "corrector_dim",
    ]
    sizes = {key: rng.choice([512, 2**16, 2**20, 2**24, 10**9, 10**15]) for key in rng.sample(keys, rng.choice([1, 2]))}
    return folder(place, shape=sizes)


@kind
def other_shape(rng: random.Random, place: Path) -> Path:
    """A shape near the true one: other heads, layers, options."""
    changes = [{"num_heads": 2}, {"num_heads": 16}, {"num_layers": 1}, {"num_layers": 3}, {"gate": False}]
    changes += [{"tie_embeddings": False}, {"post_norm": True}, {"mask_token_id": 0}, {"mask_token_id": 39}]
    changes += [{"standardize": False}, {"length_dim": 4}, {"corrector_dim": 4}, {"vocab_size": 41}, {"max_seq_len": 7}]
    return folder(place, shape={**rng.choice(changes), "fingerprint": rng.choice([None, "0" * 64])})


@kind
def yaml_text(rng: random.Random, place: Path) -> Path:
    """YAML that unfolds, nests, repeats, runs or paints."""
    folder(place)
    deep = rng.choice([900, 3000, 20_000])
    laughs = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])
    texts = [
        laughs,
        "model: {" + ", ".join(f"k{n}: {n}" for n in range(50_000)) + "}",
        "model: {" + ", ".join(f"k{n}: {n}" for n in range(5_000)) + "}",
        "model: " + "[" * deep + "]" * deep,
        "model: " + "{a: " * deep + "1" + "}" * deep,
        "- " * deep + "1",
        "!!python/object/apply:os.system [touch harm]",
        "model: !!python/name:os.system",
        "model: &a {b: *a}",
        "? [1, 2]\n: 3",
        "model: 2026-11-26\ntraining: !!binary AAAA",
        'model: "\\e[31m\\0\\x07"',
        "model:\n  vocab_size: 0x" + "f" * 5000,
        "model:\n  vocab_size: " + "9" * 6000,
        "x" * 10**6,
        "\ufeff\u2028\u202e: 1",
        "model:\n\tvocab_size: 3",
        "%YAML 9.9\n---\nmodel: 1",
        "<<: [{a: 1}, {b: 2}]",
    ]
    (place / "config.yaml").write_text(rng.choice(texts), encoding="utf-8")
    return place


# ── tokenizer ──


@kind
def other_vocabulary(rng: random.Random, place: Path) -> Path:
    """Pieces that are shuffled, foreign, too many, too few, or without [MASK]."""
    from invlib import checkpoint
    from invlib.config import ModelConfig
    from invlib.tokenizer import Tokenizer

    folder(place)
    own = checkpoint.identity(ModelConfig(**SHAPE), Tokenizer.load(place))
    words = [*WORDS[:5], *rng.sample(WORDS[5:], 35)]
    words = rng.choice(
        [
            words,
            rng.sample(WORDS, 40),
            [*WORDS[:5], *(f"fremd{n}" for n in range(35))],
            [*WORDS, "more"],
            WORDS[:-1],
            WORDS[:5],
            ["[UNK]"],
            [word for word in WORDS if word != "[MASK]"] + ["w99"],
            [word for word in WORDS if word != "[PAD]"] + ["w99"],
        ]
    )
    fingerprint = own if rng.random() < 0.7 or len(words) != 40 else None
    return folder(place, shape={"fingerprint": fingerprint}, pieces=tokenizer(words))


@kind
def piece_numbers(rng: random.Random, place: Path) -> Path:
    """Ids that are negative, fractions, beyond 2³¹, or twice."""
    pieces = tokenizer()
    number = rng.choice([2**31, 2**31 - 1, 2**32 - 1, 2**32, 2**63, 2**64, -1, 1.5, "7", None, 3, 10**6, 2**24])
    if rng.random() < 0.5:
        pieces["model"]["vocab"][rng.choice(WORDS)] = number
    else:
        told = {"id": number, "content": rng.choice(["[MASK]", "x", "", "y" * 9999]), "special": True}
        pieces["added_tokens"] = [{**told, **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)}]
    return folder(place, pieces=pieces)


@kind
def stacked_steps(rng: random.Random, place: Path) -> Path:
    """Steps that make every text longer, many times over; patterns that never end; steps of no kind."""
    pieces, many = tokenizer(), rng.choice([12, 40, 3000])
    grow = {
        "type": "Replace",
        "pattern": {"String": rng.choice(["w", " ", ""])},
        "content": "w" * rng.choice([2, 10, 9**5]),
    }
    part, stack = rng.choice([("decoder", "decoders"), ("normalizer", "normalizers")])
    steps = [
        {"type": "Sequence", stack: [grow] * many},
        functools.reduce(lambda inner, _: {"type": "Sequence", stack: [inner]}, range(rng.choice([50, 300])), grow),
        {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"},
        {"type": "Replace", "pattern": {"Regex": "["}, "content": "x"},
        {"type": "Precompiled", "precompiled_charsmap": "AAAA" * 100},
        {"type": "Nothing"},
        [],
        7,
    ]
    return folder(place, pieces={**pieces, part: rng.choice(steps)})


@kind
def other_model(rng: random.Random, place: Path) -> Path:
    """Other kinds of vocabularies, whole and broken."""
    vocab = {word: n for n, word in enumerate(WORDS)}
    told = rng.choice(
        [
            {"type": "BPE", "vocab": vocab, "merges": [["w1", "nowhere"]]},
            {"type": "BPE", "vocab": vocab, "merges": ["w1 w2", "x"], "byte_fallback": True},
            {"type": "Unigram", "vocab": [[word, -1e308] for word in WORDS], "unk_id": 99},
            {"type": "Unigram", "vocab": [["", 0.0]] * 40, "unk_id": 0},
            {"type": "Unigram", "vocab": [], "unk_id": None},
            {"type": "WordLevel", "vocab": vocab, "unk_token": "absent"},
            {"type": "WordPiece", "vocab": vocab, "unk_token": "absent", "continuing_subword_prefix": ""},
            {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "max_input_chars_per_word": 0},
            {"type": "WordPiece", "vocab": {}, "unk_token": "[UNK]"},
            {"type": "WordPiece", "vocab": vocab, "max_input_chars_per_word": 2**63},
            {"type": "Nothing", "vocab": vocab},
            {"vocab": vocab},
        ]
    )  # fmt: skip
    return folder(place, pieces={**tokenizer(), "model": told})


@kind
def json_text(rng: random.Random, place: Path) -> Path:
    """JSON that is nested, endless, or none."""
    folder(place)
    deep = rng.choice([100, 900, 100_000])
    texts = ["[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep, "", "null", "NaN", '{"model": {"vocab": 3}}']
    texts += [
        '{"model": {"vocab": {"' + "x" * 10**6 + '": 0}}}',
        "\ufeff{}",
        '{"version": 1e999}',
        '"\\ud800"',
        "7" * 9999,
    ]
    (place / "tokenizer.json").write_text(rng.choice(texts), encoding="utf-8")
    return place


def write(name: str, seed: int, place: Path) -> Path:
    """The file of a kind and a seed, in an empty folder; what is to be opened."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return KINDS[name](random.Random(f"{name} {seed}"), place)
