"""`python -m invlib "a sentence"`: the round trip, step by step, in a terminal."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from invlib.checkpoint import PUBLISHED
from invlib.door.options import Parser, whole
from invlib.encoder import check_texts
from invlib.errors import InputError, command, nearest_name
from invlib.inverter import Inverter
from invlib.policies import POLICY_BY_NAME
from invlib.search import improve, standard
from invlib.trajectory import Trajectory


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Encode a sentence and recover it from its vector alone."""
    parser = Parser("python -m invlib", description=main.__doc__)
    parser.add_argument("text", nargs="?", help="the sentence, in quotation marks")
    parser.add_argument("--encoder", metavar="NAME", help=f"instead of --checkpoint: {', '.join(PUBLISHED)}")
    parser.add_argument("--checkpoint", default="minilm", help="name, folder or .pt file (default: minilm)")
    parser.add_argument("--steps", type=int, default=8, help="denoising steps (default: 8)")
    parser.add_argument("--policy", choices=POLICY_BY_NAME, default="top_confidence")
    parser.add_argument(
        "--search", type=whole(1, 10**6), metavar="QUERIES", help="then ask the encoder, at most so often"
    )
    chosen = parser.parse_args(arguments)
    if chosen.encoder is not None:
        chosen.checkpoint = _published(chosen.encoder)
    if chosen.text is None:
        raise InputError(f'{chosen.checkpoint} is there; give a sentence: python -m invlib "…", with the same options')
    check_texts([chosen.text])
    inverter = Inverter.load(chosen.checkpoint)
    vector = inverter.encoder.encode([chosen.text])
    result = inverter.invert(vector, num_steps=chosen.steps, policy=POLICY_BY_NAME[chosen.policy], verify=True)
    print(f"text    {chosen.text}")
    head = " ".join(f"{value:+.3f}" for value in vector[0, :6])
    print(f"vector  {vector.shape[1]} numbers of {inverter.config.encoder_model}: {head} …")
    for step in range(chosen.steps + 1):
        print(f"step {step:2d} {_line(result.trajectories[0], step)}")
    cost = f"{result.model_calls[0]} model calls and {result.encoder_queries[0]} encoder query"
    print(f"text    {result.texts[0]}\ncosine  {result.cosines[0]:.3f} to the vector, after {cost}")
    if chosen.search:
        target, text = inverter.target(vector[0], generator=torch.Generator().manual_seed(0)), result.texts[0]
        strategies = standard(chosen.search, inverter.corrects)
        for best in improve(target, strategies, [tuple(result.trajectories[0].tokens[-1].tolist())]):
            if best.text != text:
                text = best.text
                print(f"search  {text}  (cosine {best.cosine:.3f}, {target.ledger.queries} encoder queries)")
        print(f"search  ended after {target.ledger.queries} of {chosen.search} encoder queries")


def _published(name: str) -> str:
    """The checkpoint that inverts a named encoder. Raises `InputError` with all that is missing and where to put it."""
    from huggingface_hub import try_to_load_from_cache  # only here: it comes with the hub's client

    if name not in PUBLISHED:
        others = "for any other, train one (--config), or map its vectors from known pairs (invlib.Alignment)"
        raise InputError(f"no inverter of {name!r} is published{nearest_name(name, PUBLISHED)}; {others}")
    hub_names, file, told = PUBLISHED[name]
    path, missing = f"~/checkpoints/{file}", []
    if not Path(path).expanduser().is_file():
        missing.append(f"the {told}: put it at {path}")
    for hub_name, part in zip(hub_names, ("encoder", "tokenizer"), strict=False):
        if not try_to_load_from_cache(hub_name, "config.json"):
            missing.append(f"the {part}: run `hf download {hub_name}`, which puts it into the hub's cache")
    if missing:
        raise InputError(f"missing for {name}: {'; '.join(missing)}")
    return path


def _line(trajectory: Trajectory, step: int) -> str:
    """The words of one step; those that have just become visible stand in bold on a terminal."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    words = zip(trajectory.words(step), trajectory.uncovered[step], strict=True)
    return " ".join(f"{bold}{word}{plain}" if is_new else word for word, is_new in words)


if __name__ == "__main__":
    sys.exit(main())
