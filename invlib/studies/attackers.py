"""Attackers who adapt: the same inverter, but the projection by which the vector enters has seen defended vectors.

One is made for every studied defence and written beside a checkpoint's weights. An attacker first guesses the clean
vector from the defended one, linearly and in closed form; then `cond_proj` alone is trained on for a small fixed
budget, the same for all. The length head gets the same guess; nothing else changes.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from invlib.checkpoint import assemble, fingerprint, locate
from invlib.config import Config, TrainingConfig
from invlib.door.files import reading, write_atomically
from invlib.door.options import PLACE
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.model import ConditionalMDLM
from invlib.perturb import AbsmaxQuantisation, Binary, GaussianNoise, Perturbation, RandomProjection, Truncation, apply
from invlib.products.int8 import sharing
from invlib.training.batches import Batch, EqualLengthBatches, Mix, make_batch
from invlib.training.pairs import MIN_TOKENS, Pairs, fitting, read_texts
from invlib.training.start import after_guess
from invlib.training.trainer import Trainer

SENTENCES = 8192  # whose vectors the attacker knows: own texts, put through the defence
STEPS = 40
RIDGE = 1e-3
PREFIX = "cond_proj."
TRAINING = TrainingConfig(
    batch_size=128,
    max_steps=STEPS + 1,
    lr=2e-4,
    min_lr_ratio=0.0,
    weight_decay=0.0,
    ema_decay=0.0,
    weighting="low_variance",
    trained=f"{PREFIX}*",
    start_from="the naive inverter",
)


def studied(embed_dim: int) -> dict[str, Perturbation]:
    """The defences that an attacker was trained for, by the name of its file. A projection's matrix is public."""
    half, quarter = embed_dim // 2, embed_dim // 4
    return {
        "gaussian-0.02": GaussianNoise(0.02),
        "gaussian-0.05": GaussianNoise(0.05),
        "gaussian-0.1": GaussianNoise(0.1),
        "int8": AbsmaxQuantisation(8),
        "int4": AbsmaxQuantisation(4),
        "binary": Binary(embed_dim),
        f"truncation-{half}": Truncation(half, embed_dim),
        f"truncation-{quarter}": Truncation(quarter, embed_dim),
        f"projection-{quarter}": RandomProjection.draw(embed_dim, quarter, torch.Generator().manual_seed(0)),
    }


class KnownTexts(Pairs):
    """What the attacker starts from: sentences as decoder tokens, and their clean vectors. Pairs in memory."""

    def __init__(self, tokens: np.ndarray, lengths: np.ndarray, embeddings: np.ndarray):
        self.tokens, self.lengths, self.embeddings = tokens, lengths, embeddings

    @classmethod
    def draw(cls, inverter: Inverter, texts: Sequence[str], count: int = SENTENCES) -> "KnownTexts":
        """`count` of the texts that fit the model, at random, encoded. Raises `InputError` when fewer than two do."""
        tokenizer, top = inverter.tokenizer, inverter.config.max_seq_len
        order = np.random.default_rng(0).permutation(len(texts))[: 2 * count]  # some will be too long
        known = fitting([texts[row] for row in order], tokenizer, top)[:count]
        if len(known) < 2:
            raise InputError(f"{len(known)} of {len(texts)} texts have {MIN_TOKENS} to {top} tokens; give more texts")
        ids = [torch.tensor(own) for own in tokenizer.encode(known)]
        tokens, lengths = pad_sequence(ids, batch_first=True).numpy(), np.array([len(own) for own in ids])
        return cls(tokens, lengths, inverter.encoder.encode(known, batch_size=128))


def adapt(
    naive: Inverter, defence: Perturbation, known: KnownTexts, *, steps: int = STEPS, seed: int = 0
) -> dict[str, Tensor]:
    """Adapt the naive inverter to a defence, seen on the known texts; returns what `adapted` takes.

    First in closed form: `linear_guess`, multiplied into the first layer. Then `steps` updates of `cond_proj` with
    AdamW on the loss of the training, with fresh noise every time.
    """
    generator, own = torch.Generator().manual_seed(seed), naive.model
    guess = dict(zip(("matrix", "offset"), linear_guess(own, defence, known, generator), strict=True))
    start = {name: value.detach().float().clone() for name, value in own.state_dict().items()}
    start |= after_guess(own, f"{PREFIX}0.", **guess)
    precise = {"mixed_precision": own.dtype == torch.bfloat16}
    training = dataclasses.replace(TRAINING, max_steps=steps + 1, seed=seed, **precise)  # the last one has no rate left
    trainer = Trainer(assemble(own.config, start, Path("the attacker")), training, Accelerator())
    batches = EqualLengthBatches(known.lengths, Mix([np.arange(len(known))], [1.0], seed), training.batch_size)
    for number in tqdm(range(steps), desc=defence.name, unit=" steps", leave=False):
        batch = make_batch(known, batches, number, Config(own.config, training), trainer.accelerator)
        trainer.update([_defended(batch, defence, generator)])
    trained = {name: value for name, value in trainer.model.state_dict().items() if name.startswith(PREFIX)}
    return {name: value.to("cpu", torch.bfloat16).contiguous() for name, value in {**trained, **guess}.items()}


def adapted(naive: Inverter, weights: Mapping[str, Tensor]) -> Inverter:
    """The naive inverter with the projection that `adapt` returns; all other weights and the encoder are shared.

    weights: `cond_proj.…`, named as in the model, and the linear guess: `matrix` [d, d], `offset` [d]. A length head
      that listens to the vector itself hears the guess instead.
    """
    model, changed = naive.model, {name: w for name, w in weights.items() if name.startswith(PREFIX)}
    if naive.config.length_dim:
        changed |= after_guess(model, "length_head.0.", weights["matrix"], weights["offset"])
    changed = {name: w.to(model.device, model.dtype) for name, w in changed.items()}
    heard = assemble(model.config, {**model.state_dict(), **changed}, Path("the attacker"))
    attacker = sharing(model)  # which may multiply in eight bits
    for part in ("cond_proj", "length_head") if naive.config.length_head else ("cond_proj",):
        setattr(attacker, part, getattr(heard, part))
    return Inverter(attacker, naive.tokenizer, naive.encoder)


def save_attacker(path: Path, naive: Inverter, weights: Mapping[str, Tensor]) -> None:
    """Write what `adapt` returned, and which weights it belongs to; about 0.9 MB for the bundled checkpoint."""
    about = {"defence": path.stem, "checkpoint": fingerprint(naive.model)}
    write_atomically(path, lambda partial: save_file(dict(weights), partial, metadata=about))


def load_attackers(naive: Inverter, folder: str | Path | None = None) -> dict[str, Inverter]:
    """The adapted inverters of every studied defence, by its name; default: those beside the bundled checkpoint.

    Raises `InputError` for one that is missing, damaged, or belongs to other weights.
    """
    folder, own = locate("minilm") / "attackers" if folder is None else Path(folder), fingerprint(naive.model)
    names = studied(naive.config.embedding_cond_dim)
    return {name: adapted(naive, _read(folder / f"{name}.safetensors", own)) for name in names}


def load_attacker(naive: Inverter, path: Path) -> Inverter:
    """One of them, from its file."""
    return adapted(naive, _read(path, fingerprint(naive.model)))


def _read(path: Path, own: str) -> dict[str, Tensor]:
    again = "make it: python -m invlib.studies attackers --text FILE"
    with reading(path, "cannot be read as an attacker", again), safe_open(path, "pt") as file:
        made_for = file.metadata()["checkpoint"]
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if made_for != own:
        raise InputError(f"{path} was made for weights {made_for[:12]}…, these are {own[:12]}…; {again}")
    return weights


def linear_guess(
    model: ConditionalMDLM, defence: Perturbation, known: KnownTexts, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """matrix B [d, d] and offset c [d] of z ≈ z' B + c, by ridge regression; z, z': the clean and the defended vectors,
    standardised as the model does it.
    """
    clean = known.embeddings.astype(np.float64)
    defended = apply(defence, known.embeddings, generator).vectors.astype(np.float64)
    if model.config.standardize:
        mean, std = (value.double().cpu().numpy() for value in (model.embedding_mean, model.embedding_std))
        clean, defended = (clean - mean) / std, (defended - mean) / std
    ridge = Ridge(RIDGE * len(defended) * defended.var(axis=0).mean())
    ridge.fit(defended, clean)
    return torch.from_numpy(ridge.coef_.T).float(), torch.from_numpy(ridge.intercept_).float()


def _defended(batch: Batch, defence: Perturbation, generator: torch.Generator) -> Batch:
    """The batch with vectors as the attacker finds them."""
    clean = torch.cat([batch.embedding, batch.any_embedding])
    found = torch.from_numpy(apply(defence, clean.cpu().numpy(), generator).vectors).to(clean.device)
    embedding, any_embedding = found.tensor_split(2)
    return dataclasses.replace(batch, embedding=embedding, any_embedding=any_embedding)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, required=True, help="sentences the attacker knows: .jsonl or .txt, or .gz")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--sentences", type=int, default=SENTENCES, help=f"how many of them (default: {SENTENCES})")
    parser.add_argument("--steps", type=PLACE, default=STEPS, help=f"updates for each (default: {STEPS})")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these defences")
    parser.add_argument("--out", type=Path, help="default: attackers/ in the checkpoint's folder")


def run(chosen: argparse.Namespace) -> None:
    """Write one attacker for every studied defence, or for those that are named."""
    inverter = Inverter.load(chosen.checkpoint, dtype=torch.bfloat16)
    defences = studied(inverter.config.embedding_cond_dim)
    unknown = [name for name in chosen.only or () if name not in defences]
    if unknown:
        raise InputError(f"no studied defence {', '.join(unknown)}; there are {', '.join(defences)}")
    out = chosen.out or locate(chosen.checkpoint) / "attackers"
    known = KnownTexts.draw(inverter, read_texts(chosen.text), chosen.sentences)
    for name in chosen.only or defences:
        path = out / f"{name}.safetensors"
        save_attacker(path, inverter, adapt(inverter, defences[name], known, steps=chosen.steps))
        print(path, flush=True)
