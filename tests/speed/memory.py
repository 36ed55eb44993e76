"""Peak memory against the number of vectors that are inverted as a stream.

`python -m tests.speed.memory`. A tiny inverter with random weights reads vectors that are made as they are needed, so
that whatever grows is what inverting leaves behind. The peak of the process is read after a tenth of them and at the
end.
"""

import resource
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from invlib.config import load_config
from invlib.door.options import Parser
from invlib.errors import InputError
from invlib.inverter import Inversion, Inverter
from tests.speed.machine import description
from tests.speed.untrained import untrained

PER_KIB = 1024 if sys.platform == "darwin" else 1  # macOS counts bytes, Linux kibibytes


def peak_mib() -> float:
    """The most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PER_KIB / 1024


def random_batches(count: int, size: int, embed_dim: int) -> Iterator[np.ndarray]:
    """`count` vectors in batches of `size`, the last one smaller."""
    random = np.random.default_rng(0)
    for start in range(0, count, size):
        yield random.standard_normal((min(size, count - start), embed_dim), dtype=np.float32)


def stream(inverter: Inverter, batches: Iterable[np.ndarray], **options) -> Iterator[Inversion]:
    """The Inversion of each batch as it comes: memory holds one batch, however many there are."""
    for batch in batches:
        yield inverter.invert(batch, **{"keep_trajectories": False, **options})


def peaks(inverter: Inverter, count: int, size: int, num_steps: int) -> Iterator[tuple[int, float]]:
    """(vectors inverted so far, peak memory in MiB) after every batch of the stream."""
    batches, done = random_batches(count, size, inverter.config.embedding_cond_dim), 0
    with tqdm(total=count, desc="streaming", unit=" vectors") as bar:
        for inversion in stream(inverter, batches, num_steps=num_steps):
            done += len(inversion.texts)
            bar.update(len(inversion.texts))
            yield done, peak_mib()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tests.speed.memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("configs/tiny.yaml"), help="shape of the random weights")
    parser.add_argument("--vectors", type=int, default=100_000, help="how many are inverted (default: 100000)")
    parser.add_argument("--batch", type=int, default=500, help="vectors held at a time (default: 500)")
    parser.add_argument("--steps", type=int, default=2, help="denoising steps (default: 2)")
    try:
        chosen = parser.parse_args(arguments)
        if chosen.batch < 1 or chosen.vectors < 10 * chosen.batch:
            raise InputError(f"--vectors must be ten batches or more, got {chosen.vectors} and {chosen.batch} a batch")
        measured = list(peaks(untrained(load_config(chosen.config).model), chosen.vectors, chosen.batch, chosen.steps))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    tenth = next(peak for done, peak in measured if done >= chosen.vectors / 10)
    last = measured[-1][1]
    print(f"machine: {description()}")
    print(f"peak memory: {tenth:.0f} MiB after a tenth of {chosen.vectors} vectors, {last:.0f} MiB after all of them")
    print(f"growth: {last - tenth:.1f} MiB, {1024 * (last - tenth) / (0.9 * chosen.vectors):.3f} KiB a vector")
    return 0


if __name__ == "__main__":
    sys.exit(main())
