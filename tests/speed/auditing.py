"""How fast an audit goes: texts with their confidence, and the first pass for words and texts that are looked for.

`python -m tests.speed.auditing`. Seconds are of the processor, so that other work on the machine changes them little.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from invlib.audit import Audit, first_pass, open_source
from invlib.checkpoint import SENTENCES
from invlib.door.options import Parser
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.perturb import unit
from tests.speed.machine import description

DECODED = 256  # vectors; a first pass goes over `--vectors`


def seconds(action) -> float:
    """Processor time of an action."""
    start = time.process_time()
    action()
    return time.process_time() - start


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tests.speed.auditing", description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--words", type=int, default=100, help="watch-words")
    try:
        chosen = parser.parse_args(arguments)
        exact = Inverter.load(chosen.checkpoint)
        inverter = Inverter.load(chosen.checkpoint, dtype=torch.int8, encoder=exact.encoder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"machine: {description(inverter.model.device)}")
    texts = pd.read_json(SENTENCES, lines=True)["text"].tolist()
    vectors, random = exact.encoder.encode(texts), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        few = Path(place) / "few.npy"
        np.save(few, vectors[random.permutation(len(vectors))[:DECODED]])
        for steps, verify in ((4, True), (5, True), (4, False)):
            speeds = {}
            for own in (exact, inverter):
                job = Audit(
                    open_source(few), own, few.with_suffix(f".{id(own)}{steps}{verify}"), num_steps=steps, verify=verify
                )
                job.origin  # noqa: B018 - its sample is decoded beforehand
                speeds[own.model.precision] = DECODED / seconds(lambda job=job: job.run(progress=False))
            told = ", ".join(f"{speed:.0f} vectors a second in {precision}" for precision, speed in speeds.items())
            print(f"{steps} steps{', confidence' * verify}: {told}")
        many = unit(vectors[random.integers(len(vectors), size=chosen.vectors)] + random.normal(size=(1, 384)) / 1e3)
        np.save(Path(place) / "many.npy", many.astype(np.float16))
        job = Audit(open_source(Path(place) / "many.npy"), inverter, Path(place) / "many", num_steps=1)
        looked = seconds(lambda: job.precision)
        words = sorted({word for text in texts for word in text.lower().split() if word.isalpha()})[: chosen.words]
        for name, asked in (("watch", words), ("contains", texts[:10])):
            taken = seconds(lambda name=name, asked=asked: first_pass(job, **{name: asked}))
            print(f"first pass, {name} {len(asked)}: {chosen.vectors / taken:,.0f} vectors a second")
        print(f"a look through the source and its origin before: {looked:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
