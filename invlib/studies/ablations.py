"""Ablations: small runs of equal compute, each with one choice of the bundled configuration changed.

Their curves are `ablations.csv`. Stopped at any moment, the same command goes on with the variants that are missing.

Equal compute means an equal number of matrix-multiplication operations, the optimiser's included, so that the result
does not depend on what else the machine does. All variants see the same text in the same order (but for those with
another vocabulary or model), start from seed 0 and are scored on text, on the same sentences. The rate is constant
after the warm-up; what is scored is the running average of the weights.
"""

import argparse
import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch.nn import functional as F
from tqdm.auto import tqdm

from invlib.checkpoint import locate
from invlib.config import Config, load_config
from invlib.door.files import reading
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.masking import mask_tokens, stratified_counts, subs_logits
from invlib.metrics import score
from invlib.studies.results import write_table
from invlib.tokenizer import Tokenizer
from invlib.training.loop import training_loop
from invlib.training.pairs import Pairs, fitting, read_texts
from invlib.training.start import initial_model, initial_tokenizer
from invlib.training.trainer import Trainer
from invlib.training.vocabulary import prune

CHECKS = 3  # scored after a third, two thirds and all of the compute
SMALL = {"grad_accum": 1, "warmup_steps": 25, "decay_share": 0.0, "max_steps": 1_000_000, "noise_share": 0.0}
SMALL |= {"start_from": None, "noise_condition": False}
SCORES = ["bleu", "edit_similarity", "cosine", "length_within_one"]  # beside token F1, which has its interval
RANDOM = {"post_norm": False, "tokens_from_encoder": False, "blocks_from_encoder": False}
NOISY = {"noise_condition": True, "noise_share": 0.2}
# What is changed, and the other keys of the model or its training. The largest expected gains first: a run that is
# stopped has tried the most promising ones.
VARIANTS: dict[str, tuple[str, dict]] = {
    "base": ("the bundled configuration", {}),
    "random blocks": ("pre-norm blocks from random numbers", RANDOM | {"tokens_from_encoder": True}),
    "AdamW": ("AdamW on all weights instead of Muon on matrices", {"optimizer": "adamw"}),
    "NELBO weights": ("mean over the masked tokens of a sequence", {"weighting": "nelbo"}),
    "continued, clean": ("from the bundled weights, clean vectors", {"start_from": "minilm"}),
    "continued, noisy": (
        "from the bundled weights, 20 % of the vectors noisy and the model told how much",
        NOISY | {"start_from": "minilm"},
    ),
    "vocabulary 8k": ("8,192 pieces", {"vocab_size": 8192}),
    "vocabulary 16k": ("16,384 pieces", {"vocab_size": 16384}),
    "random tokens": ("token table from random numbers", {"tokens_from_encoder": False}),
    "half the rate": ("learning rate 5e-4", {"lr": 5e-4}),
    "twice the rate": ("learning rate 2e-3", {"lr": 2e-3}),
    "no dropped vectors": ("condition dropout 0", {"condition_dropout": 0.0}),
    "vocabulary 12k": ("12,288 pieces", {"vocab_size": 12288}),
    "all random": ("6 layers, 384 wide, pre-norm, all random", RANDOM),
    "wide": ("3 layers, 528 wide, all random", RANDOM | {"num_layers": 3, "hidden_dim": 528, "ff_dim": 2112}),
    "deep": ("11 layers, 288 wide, all random", RANDOM | {"num_layers": 11, "hidden_dim": 288, "ff_dim": 1152}),
    "unscaled": ("vector as it is, entries of about 1/√d", {"standardize": False}),
    "no length head of its own": ("the length is read from the condition", {"length_dim": 0}),
    "no average": ("the last weights instead of their running average", {"ema_decay": 0.0}),
}


def changed(base: Config, keys: Mapping) -> Config:
    """The small run's configuration: other keys of its model or its training, and every sentence once an epoch."""
    keys = {**SMALL, **keys}
    model = {key: keys.pop(key) for key in list(keys) if hasattr(base.model, key)}
    return Config(
        dataclasses.replace(base.model, **model),
        dataclasses.replace(base.training, **keys),
        dataclasses.replace(base.data, mix={}),
    )


def train_variant(
    name: str, base: Config, corpus: Path, texts: Sequence[str], encoder: Encoder, tflop: float
) -> Iterator[dict]:
    """Train one variant until its matrix products reach `tflop`; yields its scores at every check."""
    change, keys = VARIANTS[name]
    config = changed(base, keys)
    tokenizer, pairs = _pairs(config, corpus, encoder)
    trainer = Trainer(initial_model(config, encoder, tokenizer, pairs), config.training, Accelerator())
    told = {"variant": name, "change": change, "samples": 0, "seconds": 0.0, "tflop": 0.0}
    checks = [tflop * part / CHECKS for part in range(1, CHECKS + 1)]
    start = time.process_time()
    for record in tqdm(training_loop(trainer, pairs, np.arange(len(pairs)), config), desc=name, unit=" steps"):
        told["seconds"] += time.process_time() - start
        told["samples"] += record["samples"]
        told["tflop"] = trainer.flops / 1e12
        if told["tflop"] >= checks[0]:
            yield {**told, **_scores(trainer, tokenizer, encoder, texts)}
            checks.pop(0)
        if not checks:
            return
        start = time.process_time()


def _pairs(config: Config, corpus: Path, encoder: Encoder) -> tuple[Tokenizer, Pairs]:
    """Tokenizer and pairs of a vocabulary, made once. A checkpoint that is continued brings its own vocabulary."""
    kind = "continued" if config.training.start_from else f"vocabulary-{config.model.vocab_size}"
    folder = Path(config.data.data_dir).expanduser() / kind
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = initial_tokenizer(config, encoder, corpus, folder)
    tokenizer.save(folder / "tokenizer.json")
    return tokenizer, Pairs.build(folder / "train", corpus, encoder, tokenizer, config.model.max_seq_len)


def _scores(trainer: Trainer, tokenizer: Tokenizer, encoder: Encoder, texts: Sequence[str]) -> dict:
    """Scores on text of the averaged weights, in 8 steps from 100 % masks, and what the text costs in nats."""
    model = copy.deepcopy(trainer.ema).to(trainer.worker.dtype).eval()
    inverter, vectors = Inverter(model, tokenizer, encoder), encoder.encode(texts)
    written = inverter.invert(vectors, keep_trajectories=False).texts
    table = score(texts, written, encoder).set_index("metric")
    f1 = table.loc["token_f1"]
    return {
        "token_f1": f1["value"],
        "token_f1_low": f1["low"],
        "token_f1_high": f1["high"],
        **table.loc[SCORES, "value"],
        "nats_per_character": nats_per_character(inverter, texts, vectors),
        "n": len(texts),
    }


@torch.inference_mode()
def nats_per_character(
    inverter: Inverter, texts: Sequence[str], vectors: Float[np.ndarray, "n embed"], *, seed: int = 0
) -> float:
    """Upper bound of -log p(text | vector, length) per character, in nats: comparable between vocabularies.

    The negative ELBO of masked diffusion by exact-k masking, one draw per text: length times the mean cross-entropy
    over k masked tokens, k uniform on 1 … length (see `masking`).
    """
    model, generator, nats = inverter.model, torch.Generator().manual_seed(seed), 0.0
    modulation, mask = model.modulation(torch.from_numpy(vectors).to(model.device)), model.config.mask_token_id
    for row, ids in enumerate(inverter.tokenizer.encode(texts)):
        x0, length = torch.tensor([ids], device=model.device), torch.tensor([len(ids)], device=model.device)
        xt = mask_tokens(x0, length, stratified_counts(length, generator), mask, generator)
        logits = subs_logits(model(xt, modulation.rows([row])).float(), mask)
        nats += len(ids) * float(F.cross_entropy(logits, x0[xt != x0]))
    return nats / sum(len(text) for text in texts)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, required=True, help="what to train on: .jsonl or .txt, plain or .gz")
    parser.add_argument("--valid", type=Path, required=True, help="what to score on")
    parser.add_argument("--config", type=Path, default=Path("configs/minilm.yaml"))
    parser.add_argument("--tflop", type=float, default=36.0, help="matrix products of a run, in 1e12 (default: 36)")
    parser.add_argument("--limit", type=int, default=400, help="sentences to score on (default: 400)")
    parser.add_argument("--out", type=Path, help="default: ablations.csv in the bundled checkpoint's folder")


def run(chosen: argparse.Namespace) -> None:
    """Train the variants that the table lacks, and print the last row of each."""
    out, base = chosen.out or locate("minilm") / "ablations.csv", load_config(chosen.config)
    encoder = Encoder.load(base.model.encoder_model, dtype=torch.bfloat16 if base.training.bf16 else torch.float32)
    texts = _fitting_all(base, chosen.text, encoder, read_texts(chosen.valid))[: chosen.limit]
    done = pd.DataFrame(columns=["variant", "tflop", "n"])
    if out.exists():
        with reading(out, "is no table of ablations", "delete it, or give another --out"):
            done = pd.read_csv(out).astype({"variant": str, "tflop": float, "n": int})
    least = done.groupby("variant")["tflop"].max().min()  # NaN of an empty table, which is above nothing
    if done["n"].ne(len(texts)).any() or least < chosen.tflop:  # new rows could not be compared
        there = f"{least:.0f} TFLOP scored on {done['n'].iloc[0]} sentences"
        given = f"these have {chosen.tflop:g} and {len(texts)}; give its --tflop and --limit, or another --out"
        raise InputError(f"{out} holds runs of {there}, {given}")
    try:
        for name in [name for name in VARIANTS if name not in set(done["variant"])]:
            rows = pd.DataFrame(train_variant(name, base, chosen.text, texts, encoder, chosen.tflop))
            done = pd.concat([done, rows]) if len(done) else rows
            write_table(out, done)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on with the variants that {out} lacks") from None
    print(done.groupby("variant", sort=False).last()[["samples", "token_f1", "bleu", "nats_per_character"]].to_string())


def _fitting_all(base: Config, corpus: Path, encoder: Encoder, texts: Sequence[str]) -> list[str]:
    """The texts that fit the model in the smallest vocabulary, and so in all: a smaller one needs more pieces."""
    smallest = min(changed(base, keys).model.vocab_size for _, keys in VARIANTS.values())
    tokenizer = prune(encoder.tokenizer, read_texts(corpus), smallest)
    found = fitting(texts, tokenizer, base.model.max_seq_len)
    if not found:
        raise InputError("no text of --valid fits the model in every vocabulary; give sentences")
    return found
