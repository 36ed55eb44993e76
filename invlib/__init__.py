"""Embedding inversion: given only a sentence embedding, recover the sentence.

>>> import invlib
>>> inverter = invlib.Inverter.load("minilm")
>>> vectors = inverter.encoder.encode(["Meet me at the station at nine."])
>>> inverter.invert(vectors, num_steps=8).texts  # doctest: +SKIP
"""

from invlib import masking, metrics, sampler
from invlib.config import Config, load_config
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.inverter import Inversion, Inverter
from invlib.model import ConditionalMDLM, Modulation
from invlib.tokenizer import Tokenizer
from invlib.trajectory import Step, Trajectory

__all__ = [
    "ConditionalMDLM",
    "Config",
    "Encoder",
    "InputError",
    "Inversion",
    "Inverter",
    "Modulation",
    "Step",
    "Tokenizer",
    "Trajectory",
    "load_config",
    "masking",
    "metrics",
    "sampler",
]
