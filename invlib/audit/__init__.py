"""Audit: what could be read out of stored vectors?

>>> from invlib import audit
>>> source = audit.open_source("vectors.npy")  # doctest: +SKIP
>>> audit.Audit(source, inverter, "audit").run()  # doctest: +SKIP
"""

from invlib.audit.audit import Audit, open_source
from invlib.audit.origin import Origin, check_dimension, check_origin
from invlib.audit.source import Chunk, Source
from invlib.audit.verdict import CLOSE, NEAR, Summary, pattern_shares, patterns, summarise, verdict

__all__ = ["Audit", "Chunk", "Origin", "Source", "check_dimension", "check_origin", "open_source"]
__all__ += ["CLOSE", "NEAR", "Summary", "pattern_shares", "patterns", "summarise", "verdict"]
