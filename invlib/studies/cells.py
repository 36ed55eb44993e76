"""Cells: finished work in files, each under a key made of all that it depends on; none is done twice."""

import json
import pickle
from pathlib import Path
from typing import Any

import joblib

from invlib.checkpoint import write_atomically
from invlib.errors import InputError


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


def finished(path: Path) -> Any:
    """What was kept there, or None. Raises `InputError` for a damaged file."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path} is not a finished cell; delete it and run the same again") from None


def keep(path: Path, found: Any) -> Any:
    """Write what was found, and return it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot hold cells: {error.strerror}; choose another cache") from None
    write_atomically(path, lambda partial: Path(partial).write_text(json.dumps(found, indent=1) + "\n"))
    return found
