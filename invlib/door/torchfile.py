"""A file of `torch.save`, read as data: its words are looked at before torch reads them, its sizes before and after."""

import pickletools
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

PICKLE_BYTES = 2**20  # a state of thousands of tensors needs fewer
SCALARS = ("f2", "f4", "f8", "i4", "i8", "b1")  # a validation loss kept as a number of numpy
TUPLES_AGAIN = 24  # tuples within tuples, used again and again, take for ever to compare
WORDS = {
    *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND"),
    *("APPENDS", "SETITEM", "SETITEMS", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "GLOBAL", "REDUCE", "BUILD"),
    "BINPERSID",
}
KINDS = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
NUMPY = ("numpy._core.multiarray scalar", "numpy.core.multiarray scalar", "numpy dtype", "_codecs encode")
NAMES = {"torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict", *NUMPY}
NAMES |= {f"torch {kind}Storage" for kind in KINDS}
_ONE_AT_A_TIME = threading.Lock()  # the names that torch allows are those of the whole process


class Refused(ValueError):
    """The pickle asks for something that is no tensor and no plain value."""


class Scalar:
    """What a pickle takes for numpy's type of a number: one of few, whose bytes become a number of Python."""

    def __init__(self, code: str, *about: Any):
        if code not in SCALARS:
            raise Refused(f"a number of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1] if state[1] in ("<", ">") else "=")

    @staticmethod
    def number(kind: "Scalar", data: bytes) -> float | int | bool:
        return np.frombuffer(data, kind.dtype)[0].item()


ALLOWED = [(Scalar.number, NUMPY[0].replace(" ", ".")), (Scalar.number, NUMPY[1].replace(" ", "."))]
ALLOWED += [(Scalar, "numpy.dtype")]


def read(path: Path) -> Any:
    """The contents of a file in torch's zip format; its tensors are on the CPU and use the file in place.

    Raises `Refused` for a pickle that would run code, and whatever zipfile, pickle and torch raise for a damaged one.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        packed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
        if packed or sum(record.file_size for record in records) > size:
            raise ValueError("its records declare more bytes than the file has")
        for record in records:
            if record.filename.endswith("/data.pkl"):
                _look(archive.read(record))
    with _ONE_AT_A_TIME, torch.serialization.safe_globals(ALLOWED):
        return torch.load(path, weights_only=True, mmap=True, map_location="cpu")


def _look(pickled: bytes) -> None:
    """Raise `Refused` unless a pickle is made of what torch.save writes for tensors and plain values."""
    if len(pickled) > PICKLE_BYTES:
        raise ValueError(f"its pickle has {len(pickled):,} bytes, at most {PICKLE_BYTES:,} are read")
    tuples, again, before = set(), 0, ""
    for word, argument, _ in pickletools.genops(pickled):
        if word.name not in WORDS or (word.name == "GLOBAL" and argument not in NAMES):
            raise Refused(argument if word.name == "GLOBAL" else word.name)
        if word.name.endswith("BINPUT") and before.startswith("TUPLE"):
            tuples.add(argument)
        again += word.name.endswith("BINGET") and argument in tuples
        if again > TUPLES_AGAIN:
            raise ValueError("its tuples are stacked beyond what a checkpoint needs")
        before = word.name
