"""Attackers who adapt: the same inverter, but the projection by which the vector enters has seen defended vectors.

One is made for every studied defence and written beside a checkpoint's weights. An attacker first guesses the clean
vector from the defended one, linearly and in closed form; then `cond_proj` alone is trained on for a small fixed
budget, the same for all. The length head gets the same guess; nothing else changes.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from invlib.checkpoint import assemble, fingerprint, locate, write_atomically
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.masking import mask_tokens, stratified_counts
from invlib.model import ConditionalMDLM
from invlib.perturb import AbsmaxQuantisation, Binary, GaussianNoise, Perturbation, RandomProjection, Truncation, apply
from invlib.training.batches import EqualLengthBatches, Mix
from invlib.training.losses import diffusion_loss, low_variance
from invlib.training.pairs import MIN_TOKENS, read_texts

SENTENCES = 8192  # whose vectors the attacker knows: own texts, put through the defence
STEPS = 40
BATCH = 128
LEARNING_RATE = 2e-4
LENGTH_WEIGHT = 0.1  # as in training
RIDGE = 1e-3
PREFIX = "cond_proj."


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


@dataclass(frozen=True)
class KnownTexts:
    """What the attacker starts from: sentences as decoder tokens, and their clean vectors."""

    tokens: np.ndarray  # [n, longest] right-padded with 0
    lengths: np.ndarray  # [n]
    vectors: np.ndarray  # float32 [n, embed_dim]

    @classmethod
    def draw(cls, inverter: Inverter, texts: Sequence[str], count: int = SENTENCES, *, seed: int = 0) -> "KnownTexts":
        """`count` of the texts that fit the model, at random, encoded. Raises `InputError` when fewer than two do."""
        order = np.random.default_rng(seed).permutation(len(texts))[: 2 * count]  # some will be too long
        ids = inverter.tokenizer.encode([texts[i] for i in order])
        fits = [k for k, own in enumerate(ids) if MIN_TOKENS <= len(own) <= inverter.config.max_seq_len][:count]
        if len(fits) < 2:
            raise InputError(
                f"{len(fits)} of {len(texts)} texts have {MIN_TOKENS} to {inverter.config.max_seq_len} tokens; "
                "an attacker needs at least 2, and learns little from fewer than some thousand"
            )
        lengths = np.array([len(ids[k]) for k in fits])
        tokens = np.zeros((len(fits), lengths.max()), np.int64)
        for row, k in enumerate(fits):
            tokens[row, : lengths[row]] = ids[k]
        return cls(tokens, lengths, inverter.encoder.encode([texts[order[k]] for k in fits], batch_size=128))


@dataclass(frozen=True)
class Attacker:
    """An adapted `cond_proj`, the defence it was made for, and the weights it belongs to."""

    defence: str
    checkpoint: str  # SHA-256, see checkpoint.fingerprint
    weights: Mapping[str, Tensor]  # of cond_proj, named as in the model; and the linear guess: matrix, offset

    def inverter(self, naive: Inverter) -> Inverter:
        """The naive inverter with this projection; all other weights are shared, and so is the encoder.

        A length head that listens to the vector itself hears the linear guess instead.

        Raises `InputError` for an inverter of other weights.
        """
        found = fingerprint(naive.model)
        if found != self.checkpoint:
            raise InputError(
                f"the attacker on {self.defence} was made for weights {self.checkpoint[:12]}…, these are "
                f"{found[:12]}…; make it again: python -m invlib.studies attackers --text FILE"
            )
        changed = {name: value for name, value in self.weights.items() if name.startswith(PREFIX)}
        if naive.config.length_dim:
            changed |= _after_guess(naive.model, "length_head.0.", self.weights["matrix"], self.weights["offset"])
        return Inverter(_with_weights(naive.model, changed), naive.tokenizer, naive.encoder)

    def save(self, path: str | Path) -> None:
        """Write it as safetensors in bf16, about 0.9 MB for the bundled checkpoint."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = {name: value.to(torch.bfloat16).contiguous() for name, value in self.weights.items()}
        about = {"defence": self.defence, "checkpoint": self.checkpoint}
        write_atomically(path, lambda partial: save_file(stored, partial, metadata=about))

    @classmethod
    def load(cls, path: str | Path) -> "Attacker":
        """Read one. Raises `InputError` for a file that is absent, damaged or something else."""
        path = Path(path)
        if not path.is_file():
            known = sorted(other.stem for other in path.parent.glob("*.safetensors"))
            raise InputError(
                f"there is no attacker {path.stem!r} in {path.parent}; there: {', '.join(known) or 'none'}; "
                "make them: python -m invlib.studies attackers --text FILE"
            )
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
            return cls(about["defence"], about["checkpoint"], load_file(path))
        except (SafetensorError, OSError, KeyError) as error:
            raise InputError(f"{path} cannot be read as an attacker ({error}); make it again") from None


def load_attackers(naive: Inverter, folder: str | Path | None = None) -> dict[str, Inverter]:
    """The adapted inverters of every studied defence, by its name; default: those beside the bundled checkpoint.

    Raises `InputError` for one that is missing or belongs to other weights.
    """
    folder = locate("minilm") / "attackers" if folder is None else Path(folder)
    names = studied(naive.config.embedding_cond_dim)
    return {name: Attacker.load(folder / f"{name}.safetensors").inverter(naive) for name in names}


def adapt(
    naive: Inverter,
    defence: Perturbation,
    known: KnownTexts,
    *,
    name: str | None = None,
    steps: int = STEPS,
    seed: int = 0,
) -> Attacker:
    """Adapt the naive inverter to a defence, seen on the known texts.

    First in closed form: `linear_guess`, multiplied into the first layer. Then `steps` updates of `cond_proj` with
    AdamW on the loss of the training, with fresh noise every time.
    """
    generator = torch.Generator().manual_seed(seed)
    guess = dict(zip(("matrix", "offset"), linear_guess(naive.model, defence, known, generator), strict=True))
    state = naive.model.state_dict()
    start = {name: value.float().clone() for name, value in state.items() if name.startswith(PREFIX)}
    start |= _after_guess(naive.model, f"{PREFIX}0.", guess["matrix"], guess["offset"])
    masters = [nn.Parameter(value) for value in start.values()]
    worker = _with_weights(naive.model, start)
    weights = list(worker.cond_proj.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(masters, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    batches = EqualLengthBatches(known.lengths, Mix([np.arange(len(known.lengths))], [1.0], seed), BATCH)
    for step in tqdm(range(steps), desc=name or defence.name, unit=" steps", leave=False):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / steps)
        _loss(worker, defence, known, batches.rows(step), generator).backward()
        for master, weight in zip(masters, weights, strict=True):
            master.grad, weight.grad = weight.grad.float(), None
        nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        with torch.no_grad():
            for master, weight in zip(masters, weights, strict=True):
                weight.copy_(master)
    adapted = {key: value.detach() for key, value in zip(start, masters, strict=True)}
    stored = {key: value.to("cpu", torch.bfloat16) for key, value in {**adapted, **guess}.items()}
    return Attacker(name or defence.name, fingerprint(naive.model), stored)


def linear_guess(
    model: ConditionalMDLM, defence: Perturbation, known: KnownTexts, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """matrix B [d, d] and offset c [d] of z ≈ z' B + c, by ridge regression; z, z': the clean and the defended vectors,
    standardised as the model does it.
    """
    clean = _standardised(model, known.vectors)
    defended = _standardised(model, apply(defence, known.vectors, generator).vectors)
    mean_clean, mean_defended = clean.mean(axis=0), defended.mean(axis=0)
    x, y = defended - mean_defended, clean - mean_clean
    size = RIDGE * (x**2).sum() / x.shape[1]
    matrix = np.linalg.solve(x.T @ x + size * np.eye(x.shape[1]), x.T @ y)
    offset = mean_clean - mean_defended @ matrix
    return torch.from_numpy(matrix).float(), torch.from_numpy(offset).float()


def _after_guess(model: ConditionalMDLM, layer: str, matrix: Tensor, offset: Tensor) -> dict[str, Tensor]:
    """A linear layer on the standardised vector (and, behind it, on other inputs) that hears the guess instead."""
    state, matrix, offset = model.state_dict(), matrix.float(), offset.float()
    weight, bias = (state[layer + part].float().cpu() for part in ("weight", "bias"))
    on_vector, on_others = weight.tensor_split([len(matrix)], dim=1)
    changed = {"weight": torch.cat([on_vector @ matrix.T, on_others], dim=1), "bias": bias + on_vector @ offset}
    return {layer + part: value.to(model.device) for part, value in changed.items()}


def _standardised(model: ConditionalMDLM, vectors: np.ndarray) -> np.ndarray:
    """What `cond_proj` is given, float64 [n, d]."""
    vectors = vectors.astype(np.float64)
    if not model.config.standardize:
        return vectors
    mean, std = (value.double().cpu().numpy() for value in (model.embedding_mean, model.embedding_std))
    return (vectors - mean) / std


def _loss(
    model: ConditionalMDLM, defence: Perturbation, known: KnownTexts, rows: np.ndarray, generator: torch.Generator
) -> Tensor:
    """The training's loss on one batch of equal length; the length head is asked about rows of any length."""
    device, length = model.device, int(known.lengths[rows[0]])
    any_rows = torch.randint(len(known.lengths), (len(rows),), generator=generator).numpy()
    defended = apply(defence, known.vectors[np.concatenate([rows, any_rows])], generator).vectors
    embedding, any_embedding = torch.from_numpy(defended).to(device).tensor_split(2)
    x0 = torch.from_numpy(known.tokens[rows, :length]).to(device)
    lengths = torch.full((len(rows),), length)
    counts = stratified_counts(lengths, generator)
    xt = mask_tokens(x0, lengths.to(device), counts.to(device), model.config.mask_token_id, generator)
    masked = xt == model.config.mask_token_id
    modulation = model.modulation(embedding)
    loss = diffusion_loss(
        model.final_states(model.hidden_states(xt, modulation), modulation, masked),
        model.output_table,
        x0,
        masked,
        lengths.to(device),
        mask_token_id=model.config.mask_token_id,
        weighting=low_variance,
    )
    if not model.config.length_head or model.config.length_dim:
        return loss  # such a length head does not listen to cond_proj
    wanted = torch.from_numpy(known.lengths[any_rows] - 1).to(device)
    return loss + LENGTH_WEIGHT * F.cross_entropy(model.length_logits(any_embedding).float(), wanted)


def _with_weights(model: ConditionalMDLM, weights: Mapping[str, Tensor]) -> ConditionalMDLM:
    """A model of the same weights but these, which are copied."""
    changed = {name: value.detach().to(model.device, model.dtype).clone() for name, value in weights.items()}
    return assemble(model.config, {**model.state_dict(), **changed}, Path("the attacker"))


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, required=True, help="sentences the attacker knows: .jsonl or .txt, or .gz")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--sentences", type=int, default=SENTENCES, help=f"how many of them (default: {SENTENCES})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"updates for each (default: {STEPS})")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these defences")
    parser.add_argument("--out", type=Path, help="default: attackers/ in the checkpoint's folder")


def run(chosen: argparse.Namespace) -> None:
    """Write one attacker for every studied defence, or for those that are named."""
    if chosen.steps < 0 or chosen.sentences < 1:
        raise InputError(f"--steps must be 0 or more and --sentences 1 or more, got {chosen.steps}, {chosen.sentences}")
    inverter = Inverter.load(chosen.checkpoint, dtype=torch.bfloat16)
    defences = studied(inverter.config.embedding_cond_dim)
    unknown = [name for name in chosen.only or () if name not in defences]
    if unknown:
        raise InputError(f"no studied defence {', '.join(unknown)}; there are {', '.join(defences)}")
    out = chosen.out or locate(chosen.checkpoint) / "attackers"
    known = KnownTexts.draw(inverter, read_texts(chosen.text), chosen.sentences)
    for name in chosen.only or defences:
        started = time.perf_counter()
        adapt(inverter, defences[name], known, name=name, steps=chosen.steps).save(out / f"{name}.safetensors")
        print(f"{name:16} {time.perf_counter() - started:6.1f} s  {out / name}.safetensors", flush=True)
