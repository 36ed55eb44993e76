"""`python -m invlib.training --config FILE --text FILE`: train an inverter, or go on where it was stopped.

`python -m invlib.training pack` makes a folder that another machine trains from; `… words` fits the word map.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator

from invlib.config import load_config
from invlib.door.options import Parser
from invlib.errors import InputError, command
from invlib.training import pack, words
from invlib.training.loop import start
from invlib.training.run import branch


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] in (["pack"], ["words"]):
        return {"pack": pack, "words": words}[arguments[0]].main(arguments[1:])
    parser = Parser(prog="python -m invlib.training", description="Train an inverter.")
    parser.add_argument("--config", type=Path, required=True, help="YAML, e.g. configs/minilm.yaml")
    parser.add_argument("--text", type=Path, required=True, nargs="+", help=".jsonl or .txt, plain or .gz")
    parser.add_argument("--valid", type=Path, nargs="+", default=(), help="held-out text; else val_split of --text")
    parser.add_argument("--out", type=Path, help="run folder; default data/runs/<config name>")
    parser.add_argument("--cooldown", type=int, metavar="STEPS", help="let the rate fall to its end in OUT/cooldown")
    parser.add_argument("--minutes", type=float, help="end then, cooled down, validated and written; not by steps")
    parser.add_argument("--compile", action="store_true", help="let torch compile the blocks")
    chosen = parser.parse_args(arguments)
    out, config = chosen.out or Path("data/runs") / chosen.config.stem, load_config(chosen.config)
    if chosen.cooldown is not None:
        if chosen.minutes is not None:
            raise InputError("--cooldown ends after its steps and --minutes by the clock; give one of them")
        if config.training is None:
            raise InputError("--cooldown goes on with a run; the configuration has no training section")
        out, config = branch(out, chosen.cooldown, config)
    options = {"minutes": chosen.minutes, "compiled": chosen.compile}
    try:
        start(config, chosen.text, chosen.valid, out, Accelerator(), **options)
    except KeyboardInterrupt:
        kept = out / "state.pt"
        does = f"goes on from {kept}" if kept.is_file() else "starts again: nothing was saved before a validation"
        raise KeyboardInterrupt(f"the same command {does}") from None


if __name__ == "__main__":
    sys.exit(main())
