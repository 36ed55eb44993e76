"""Averaging: a checkpoint and an earlier one of the same lineage, weight by weight.

`python -m invlib.training.averaging FOLDER EARLIER --share 0.3 --out RESULT`. A run that goes on from a checkpoint
stays close enough to it that the average of the two is better than either (model soups, Wortsman et al. 2022, arXiv
2203.05482).
"""

import argparse
import shutil
import sys
from pathlib import Path

from torch import Tensor

from invlib import checkpoint
from invlib.config import load_config
from invlib.errors import InputError
from invlib.model import ConditionalMDLM


def averaged(model: ConditionalMDLM, earlier: ConditionalMDLM, share: float) -> dict[str, Tensor]:
    """Weights of `model`, of which `share` comes from `earlier`; fp32.

    A part (such as the length head) that `earlier` has not, or in another shape, stays as it is, and so do the
    statistics of the vectors.
    Raises `InputError` for a share outside [0, 1], or where the two have no weights in common.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share must be between 0 and 1, got {share}")
    theirs = dict(earlier.named_parameters())
    own = {name: weight.float() for name, weight in model.state_dict().items()}
    fits = {name: name in theirs and theirs[name].shape == weight.shape for name, weight in model.named_parameters()}
    other_parts = {name.partition(".")[0] for name, fit in fits.items() if not fit}
    common = [name for name in fits if name.partition(".")[0] not in other_parts]
    if not common:
        raise InputError("the two checkpoints have no weights of the same name and shape; average two of one lineage")
    return {**own, **{name: own[name].lerp(theirs[name].float(), share) for name in common}}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m invlib.training.averaging", description="Average two checkpoints.")
    parser.add_argument("checkpoint", type=Path, help="folder of the later one")
    parser.add_argument("earlier", help="folder of the earlier one, or the name of a bundled one")
    parser.add_argument("--share", type=float, default=0.3, help="how much of the earlier one (default: 0.3)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    chosen = parser.parse_args(arguments)
    try:
        model, _ = checkpoint.read(chosen.checkpoint)
        earlier, _ = checkpoint.read(chosen.earlier)
        model.load_state_dict(averaged(model, earlier, chosen.share), assign=True)
        checkpoint.write(chosen.out, model, load_config(chosen.checkpoint / "config.yaml"))
        shutil.copy(chosen.checkpoint / "tokenizer.json", chosen.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written to {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
