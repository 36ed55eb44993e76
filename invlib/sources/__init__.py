"""Sources: vectors wherever they are stored, as a stream of chunks; what is read stays as it was.

>>> from invlib.sources import open_source
>>> for chunk in open_source("vectors.parquet").chunks(1024):  # doctest: +SKIP
...     chunk.vectors, chunk.ids, chunk.problems

What a name needs is loaded with it: cells cost numpy alone, files and databases bring pyarrow along.
"""

import importlib
from typing import Any

_NAMES = {
    "cells": ("Problem", "is_vector", "read_cell", "stacked"),
    "opening": ("FILES", "file_kind", "fingerprint", "open_source", "read_rows"),
    "records": ("rows_of",),
    "source": ("Chunk", "Source"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"invlib.sources.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'invlib.sources' has no attribute {name!r}")
