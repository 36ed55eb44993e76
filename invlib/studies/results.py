"""Results: what a study leaves on disk, whole or not at all, and which state of the project made it.

A cell is finished work in a file, under a key made of all that it depends on; none is done twice.
"""

import io
import json
import pickle
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch

from invlib.door.files import reading, write_atomically, write_text
from invlib.door.vectors import directions
from invlib.errors import InputError


def commit_of_this_clone() -> str:
    """The whole name of this clone's commit, "+" behind it where files differ; "unknown" outside of a clone.

    Whole, because a reader of CSV takes a shortened name like 4e2117656003 for a number, and this one for infinity.
    """
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.check_output(command, cwd=Path(__file__).parent, text=True, stderr=subprocess.PIPE).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> str:
    """What computed: processor, torch, threads."""
    return f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads"


def write_table(path: Path, table: pd.DataFrame, float_format: str = "%.4f") -> None:
    """Write a table as CSV. Raises `InputError` where it cannot be written."""
    write_atomically(path, lambda partial: table.to_csv(partial, index=False, float_format=float_format))


def write_json(path: Path, found: Any) -> None:
    """Write numbers, texts, lists and dictionaries as JSON. Raises `InputError` where it cannot be written."""
    write_text(path, json.dumps(found, indent=1) + "\n")


def cell_path(folder: str | Path, *inputs: Any) -> Path:
    """The file of the work that has these inputs.

    Classes and functions are known by their names: one whose formula changes needs another name or another folder.
    Raises `InputError` for an input with something in it that has no name of its own, such as a lambda.
    """
    try:
        return Path(folder).expanduser() / f"{joblib.hash(inputs)}.json"
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(
            f"this cannot name a cell ({error}); use numbers, texts, dataclasses, and functions and classes that a "
            "module or notebook defines under their own names"
        ) from None


def kept(path: Path, compute: Callable[[], Any]) -> Any:
    """What `compute` finds, read from its cell where it is finished. Raises `InputError` for a damaged file."""
    if not path.is_file():
        found = compute()
        write_json(path, found)
        return found
    with reading(path, "is not a finished cell", "delete it and run the same again"):
        return json.loads(path.read_text(encoding="utf-8"))


def kept_vectors(encode: Callable[[list[str]], np.ndarray], name: str, texts: list[str], folder: Path) -> np.ndarray:
    """Vectors of the texts, float32 [n, d], in fp16 on disk: read where they were encoded before.

    name: of the encoder, which is the key together with the texts. Raises `InputError` for a damaged file.
    """
    path = cell_path(folder, name, texts).with_suffix(".npy")
    if not path.is_file():
        found = encode(texts).astype(np.float16)
        with io.BytesIO() as file:
            np.save(file, found)
            write_atomically(path, lambda partial: partial.write_bytes(file.getvalue()))
    with reading(path, "is not kept vectors", "delete it and run the same again"):
        return directions(np.load(path, allow_pickle=False))
