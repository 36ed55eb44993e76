"""Sources: vectors wherever they are stored, as a stream of chunks; what is read stays as it was.

>>> from invlib.sources import open_source
>>> for chunk in open_source("vectors.parquet").chunks(1024):  # doctest: +SKIP
...     chunk.vectors, chunk.ids, chunk.problems
"""

from invlib.sources.cells import Problem, is_vector, read_cell, stacked
from invlib.sources.opening import FILES, file_kind, fingerprint, open_source, read_rows
from invlib.sources.records import rows_of
from invlib.sources.source import Chunk, Source

__all__ = ["FILES", "Chunk", "Problem", "Source", "file_kind", "fingerprint", "is_vector", "open_source"]
__all__ += ["read_cell", "read_rows", "rows_of", "stacked"]
