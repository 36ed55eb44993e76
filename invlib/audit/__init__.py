"""Audit: what could be read out of stored vectors?

>>> from invlib import audit
>>> source = audit.open_source("vectors.npy")  # doctest: +SKIP
>>> audit.Audit(source, inverter, "audit").run()  # doctest: +SKIP
"""

from invlib.audit.audit import Audit
from invlib.audit.confidence import Chances, measure
from invlib.audit.decoding import apart, decoded
from invlib.audit.firstpass import first_pass
from invlib.audit.origin import LOOP, MARGIN, Origin, Rows, check_dimension, check_origin
from invlib.audit.precision import Precision, readings
from invlib.audit.survey import Survey
from invlib.audit.verdict import CLOSE, NEAR, Summary, masked, pattern_shares, patterns, summarise, verdict
from invlib.sources import Chunk, Source, open_source

__all__ = ["Audit", "Chunk", "Origin", "Rows", "Source", "Survey", "check_dimension", "check_origin", "open_source"]
__all__ += ["LOOP", "MARGIN", "first_pass"]
__all__ += ["Chances", "Precision", "apart", "decoded", "measure", "readings"]
__all__ += ["CLOSE", "NEAR", "Summary", "masked", "pattern_shares", "patterns", "summarise", "verdict"]
