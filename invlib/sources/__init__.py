"""Sources: vectors wherever they are stored, as a stream of chunks; what is read stays as it was.

>>> from invlib.sources import open_source
>>> for chunk in open_source("vectors.parquet").chunks(1024):  # doctest: +SKIP
...     chunk.vectors, chunk.ids, chunk.problems
"""

from invlib.sources.cells import Problem, read_cell, stacked
from invlib.sources.opening import FILES, fingerprint, open_source
from invlib.sources.source import Chunk, Source

__all__ = ["FILES", "Chunk", "Problem", "Source", "fingerprint", "open_source", "read_cell", "stacked"]
