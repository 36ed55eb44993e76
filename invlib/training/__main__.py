"""`python -m invlib.training --config FILE --text FILE`: train an inverter, or go on where it was stopped.

`… pack` makes a folder that another machine trains from; `… words` fits the word map. `--adapt minilm --text FILE` with
`--encoder NAME` or `--vectors FILE` instead of a configuration teaches a checkpoint another encoder's vectors.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from invlib.config import Config, load_config
from invlib.door.options import Parser
from invlib.errors import InputError, command
from invlib.training import pack, words
from invlib.training.adapt import adapting
from invlib.training.loop import start
from invlib.training.run import branch


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] in (["pack"], ["words"]):
        return {"pack": pack, "words": words}[arguments[0]].main(arguments[1:])
    parser = Parser(prog="python -m invlib.training", description="Train an inverter.")
    parser.add_argument("--config", type=Path, help="YAML, e.g. configs/minilm.yaml")
    parser.add_argument("--adapt", metavar="CHECKPOINT", help="instead of it: train only how a checkpoint listens")
    parser.add_argument("--encoder", metavar="NAME", help="to adapt to: a folder or a hub model")
    parser.add_argument("--vectors", type=Path, help="to adapt to: .npy, a row for every text of --text, in order")
    parser.add_argument("--text", type=Path, required=True, nargs="+", help=".jsonl or .txt, plain or .gz")
    parser.add_argument("--valid", type=Path, nargs="+", default=(), help="held-out text; else val_split of --text")
    parser.add_argument("--out", type=Path, help="run folder; default data/runs/<config name>")
    parser.add_argument("--cooldown", type=int, metavar="STEPS", help="let the rate fall to its end in OUT/cooldown")
    parser.add_argument("--minutes", type=float, help="end then, cooled down, validated and written; not by steps")
    parser.add_argument("--compile", action="store_true", help="let torch compile the blocks")
    chosen = parser.parse_args(arguments)
    out, config, encoder = _configured(chosen)
    if chosen.cooldown is not None:
        if chosen.minutes is not None:
            raise InputError("--cooldown ends after its steps and --minutes by the clock; give one of them")
        if config.training is None:
            raise InputError("--cooldown goes on with a run; the configuration has no training section")
        out, config = branch(out, chosen.cooldown, config)
    options = {"minutes": chosen.minutes, "compiled": chosen.compile, "encoder": encoder}
    try:
        start(config, chosen.text, chosen.valid, out, Accelerator(), **options)
    except KeyboardInterrupt:
        kept = out / "state.pt"
        does = f"goes on from {kept}" if kept.is_file() else "starts again: nothing was saved before a validation"
        raise KeyboardInterrupt(f"the same command {does}") from None


def _configured(chosen: argparse.Namespace) -> tuple[Path, Config, Any]:
    """The run's folder, its configuration, and the encoder to adapt to where a checkpoint is adapted."""
    if (chosen.config is None) == (chosen.adapt is None):
        raise InputError("give either --config FILE, or --adapt CHECKPOINT with --encoder or --vectors")
    if chosen.config is not None:
        return chosen.out or Path("data/runs") / chosen.config.stem, load_config(chosen.config), None
    out = chosen.out or Path("data/runs/adapted")
    return out, *adapting(chosen.adapt, chosen.encoder, chosen.vectors, chosen.text, out)


if __name__ == "__main__":
    sys.exit(main())
