"""Arrays: files of plain numbers. One [n, d] table of them, in whichever container."""

import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from invlib.door import torchfile
from invlib.errors import InputError
from invlib.sources.source import Page, Source
from invlib.sources.tables import ID_NAMES, VECTOR_NAMES

HARMLESS = {"numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric"}
CALLS = {"ndarray", "dtype", "_reconstruct", "_frombuffer"}  # all that a pickled array needs


class ArrayFile(Source):
    """Rows of one array; a subclass finds it. Other shapes than [n, d] are read where there is one way to."""

    def look(self) -> None:
        self._ids = None
        array = self.array()
        if array.dtype.names:
            array = self._fields(array)
        self._array = self._table(array)
        self.count = len(self._array)

    def read(self, page: range) -> Page:
        rows = self._array[page.start : page.stop]
        return Page(np.asarray(rows), None if self._ids is None else self._ids[page.start : page.stop].tolist())

    def array(self) -> np.ndarray:
        """The array; a memory map where that is possible, so that a chunk costs what it holds."""
        raise NotImplementedError

    def chosen(self, members: Mapping[str, tuple[int, ...]]) -> str:
        """One of several arrays, by name and shape: the wanted one, one of a known name, the one of most rows."""
        if self.column is not None and self.column not in members:
            raise InputError(f"{self.path}, its arrays: {', '.join(members)}; there is no {self.column!r}")
        tables = [name for name, shape in members.items() if len(shape) == 2] or list(members)
        if not tables:
            raise InputError(f"{self.path} holds no array")
        wide = [name for name in tables if members[name][-1:] == (self.wanted_dim,)] or tables
        known = [name for name in wide if name.lower() in VECTOR_NAMES]
        best = self.column or max(known or wide, key=lambda name: members[name][:1])
        others = ", ".join(name for name in members if name != best)
        self.note = f"vectors: array {best!r}" + f", not {others} (--column chooses)" * bool(others)
        return best

    def _table(self, array: np.ndarray) -> np.ndarray:
        dim, shape = self.wanted_dim, array.shape
        if array.dtype.kind not in "fiubO" or not array.size:
            found = f"{self.name} holds {array.dtype} of shape {list(shape)}"
            raise InputError(f"{found}; expected numbers of shape [vectors, dimensions]" if array.size else
                             f"{self.name} holds no vector")  # fmt: skip
        if array.dtype.kind == "O":
            return array.reshape(-1) if array.ndim == 1 else array.astype(np.float64)
        if array.ndim == 3 and 1 in shape[:2]:
            return array.reshape(-1, shape[2])
        if array.ndim == 1 and dim and array.size % dim == 0:
            self.note = f"{array.size // dim} vectors of {dim} numbers, one behind the other"
            return array.reshape(-1, dim)
        if array.ndim == 2 and dim and shape[0] == dim and shape[1] not in (dim, dim // 8):
            self.note = f"read by columns: the array is {shape[0]} × {shape[1]}"
            return array.T
        if array.ndim != 2:
            hint = "; it seems to hold a vector for every token: average those of each text, without padding"
            found = f"{self.name} holds {array.dtype} of shape {list(shape)}; expected numbers of shape"
            raise InputError(f"{found} [vectors, dimensions]{hint if array.ndim == 3 else ''}")
        return array

    def _fields(self, array: np.ndarray) -> np.ndarray:
        """The field of vectors of a structured array; its ids where it has a field for them."""
        ids = [name for name in array.dtype.names if name.lower() in ID_NAMES]
        self._ids = array[ids[0]] if ids else None
        return array[self.chosen({name: (len(array), *array.dtype[name].shape) for name in array.dtype.names})]


class NpyFile(ArrayFile):
    """numpy.save; an array of rows is a pickle, of which nothing is read but arrays."""

    def array(self) -> np.ndarray:
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "allow_pickle" not in str(error) and "Array can't be memory-mapped" not in str(error):
                raise
        with open(self.path, "rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            return np.asarray(Harmless(file).load())


class NpzFile(ArrayFile):
    """One array of an archive."""

    def array(self) -> np.ndarray:
        with zipfile.ZipFile(self.path) as archive:
            shapes = {}
            for name in archive.namelist():
                with archive.open(name) as file:
                    np.lib.format.read_magic(file)
                    shapes[name.removesuffix(".npy")], _, _ = np.lib.format.read_array_header_1_0(file)
        with np.load(self.path, allow_pickle=False) as archive:
            return archive[self.chosen(shapes)]


class SafetensorsFile(ArrayFile):
    """One tensor of a .safetensors file."""

    def array(self) -> np.ndarray:
        from safetensors import safe_open

        with safe_open(self.path, "pt") as file:  # numpy has no bf16
            tensors = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return file.get_tensor(self.chosen(tensors)).float().numpy()


class TorchFile(ArrayFile):
    """torch.save of a tensor, or of several under names; nothing in it is run."""

    def array(self) -> np.ndarray:
        import torch

        held = torchfile.read(self.path)
        if isinstance(held, list | tuple):
            held = torch.stack([torch.as_tensor(one) for one in held])
        if isinstance(held, dict):
            tensors = {name: one for name, one in held.items() if isinstance(one, torch.Tensor)}
            held = tensors[self.chosen({name: tuple(one.shape) for name, one in tensors.items()})]
        if not isinstance(held, torch.Tensor):
            raise InputError(f"{self.path} holds a {type(held).__name__}; expected a tensor, or several under names")
        return held.numpy() if held.dtype in (torch.float64, torch.int8, torch.uint8) else held.float().numpy()


class PickleFile(ArrayFile):
    """A pickle of arrays or lists. Anything else in it could run code, and is refused."""

    def array(self) -> np.ndarray:
        with open(self.path, "rb") as file:
            held = Harmless(file).load()
        if isinstance(held, dict):
            arrays = {str(name): np.asarray(one) for name, one in held.items()}
            return arrays[self.chosen({name: one.shape for name, one in arrays.items()})]
        return np.asarray(held)


class RawFile(ArrayFile):
    """Bytes of float32: as numpy's `tofile` writes them, or with the counts of .fbin in front."""

    def array(self) -> np.ndarray:
        size = self.path.stat().st_size
        if size % 4 or not self.wanted_dim:
            raise InputError(f"{self.path} has {size} bytes; expected float32, and to know the number of dimensions")
        numbers = np.memmap(self.path, "<f4", "r")
        rows, dim = numbers[:2].view("<u4").tolist() if len(numbers) > 1 else (0, 0)
        return numbers[2:].reshape(rows, dim) if rows * dim + 2 == len(numbers) else numbers


class VecsFile(ArrayFile):
    """.fvecs, .bvecs, .ivecs: before every vector the number of its entries, as int32."""

    def array(self) -> np.ndarray:
        kind = {"f": np.dtype("<f4"), "b": np.dtype("u1"), "i": np.dtype("<i4")}[self.path.suffix.lower()[1]]
        dim = int(np.fromfile(self.path, "<i4", 1)[0])
        width = 4 + dim * kind.itemsize
        if dim < 1 or self.path.stat().st_size % width:
            raise InputError(f"{self.path} is no whole number of vectors of {dim} entries; was it cut off?")
        return np.memmap(self.path, "u1", "r").reshape(-1, width)[:, 4:].view(kind)


class FaissIndex(ArrayFile):
    """An index of FAISS that keeps its vectors as they are."""

    def array(self) -> np.ndarray:
        import faiss

        index = faiss.read_index(str(self.path))
        try:
            return index.reconstruct_n(0, index.ntotal)
        except RuntimeError:
            raise InputError(f"{self.path} is an index that does not keep its vectors; give a flat one") from None


class Harmless(pickle.Unpickler):
    """Reads arrays, lists, texts and numbers; refuses whatever else a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        if module in HARMLESS and name in CALLS or (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise InputError(f"it holds {module}.{name}, which could run code; save plain numbers with numpy.save")
