"""Ablations: small runs of equal compute, each with one choice of the bundled configuration changed.

They are trained one after the other and write their curves to `ablations.csv`. The command may be stopped at any
moment; the same one goes on with the variants that are missing.

Equal compute means an equal number of matrix-multiplication operations, the optimiser's included, so that the result
does not depend on what else the machine does. All variants see the same text in the same order (but for those with
another vocabulary or model), start from seed 0 and are scored on text, on the same sentences. The rate is constant
after the warm-up; what is scored is the running average of the weights.
"""

import argparse
import copy
import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.masking import mask_tokens, stratified_counts, subs_logits
from invlib.metrics import score
from invlib.studies.provenance import write_table
from invlib.tokenizer import Tokenizer
from invlib.training.batches import EqualLengthBatches, Mix, make_batch
from invlib.training.pairs import Pairs, fitting, read_texts
from invlib.training.start import initial_model
from invlib.training.trainer import Trainer
from invlib.training.vocabulary import prune

CHECKS = 3  # scored after a third, two thirds and all of the compute
SMALL = {"grad_accum": 1, "warmup_steps": 25, "decay_share": 0.0, "max_steps": 1_000_000, "noise_share": 0.0}
SMALL |= {"start_from": None, "noise_condition": False}
SCORES = ("token_f1", "bleu", "edit_similarity", "cosine", "length_within_one")
COLUMNS = (
    *("variant", "change", "samples", "seconds", "tflop", "token_f1", "token_f1_low", "token_f1_high"),
    *(*SCORES[1:], "nats_per_character", "n"),
)


@dataclass(frozen=True)
class Variant:
    """One changed choice: other keys of the configuration, of its model or its training."""

    name: str
    change: str
    keys: Mapping = field(default_factory=dict)

    def config(self, base: Config) -> Config:
        """The small run's configuration."""
        keys = {**SMALL, **self.keys}
        model = {key: value for key, value in keys.items() if hasattr(base.model, key)}
        training = {key: value for key, value in keys.items() if key not in model}
        return dataclasses.replace(
            base,
            model=dataclasses.replace(base.model, **model),
            training=dataclasses.replace(base.training, **training),
        )


RANDOM = {"post_norm": False, "tokens_from_encoder": False, "blocks_from_encoder": False}
NOISY = {"noise_condition": True, "noise_share": 0.2}
# The largest expected gains first: a run that is stopped has tried the most promising ones.
VARIANTS = (
    Variant("base", "the bundled configuration"),
    Variant("random blocks", "pre-norm blocks from random numbers", RANDOM | {"tokens_from_encoder": True}),
    Variant("AdamW", "AdamW on all weights instead of Muon on matrices", {"optimizer": "adamw"}),
    Variant("NELBO weights", "mean over the masked tokens of a sequence", {"weighting": "nelbo"}),
    Variant("continued, clean", "from the bundled weights, clean vectors", {"start_from": "minilm"}),
    Variant(
        "continued, noisy",
        "from the bundled weights, 20 % of the vectors noisy and the model told how much",
        NOISY | {"start_from": "minilm"},
    ),
    Variant("vocabulary 8k", "8,192 pieces", {"vocab_size": 8192}),
    Variant("vocabulary 16k", "16,384 pieces", {"vocab_size": 16384}),
    Variant("random tokens", "token table from random numbers", {"tokens_from_encoder": False}),
    Variant("half the rate", "learning rate 5e-4", {"lr": 5e-4}),
    Variant("twice the rate", "learning rate 2e-3", {"lr": 2e-3}),
    Variant("no dropped vectors", "condition dropout 0", {"condition_dropout": 0.0}),
    Variant("vocabulary 30k", "the encoder's 30,522 pieces", {"vocab_size": 30522}),
    Variant("all random", "6 layers, 384 wide, pre-norm, all random", RANDOM),
    Variant("wide", "3 layers, 528 wide, all random", RANDOM | {"num_layers": 3, "hidden_dim": 528, "ff_dim": 2112}),
    Variant("deep", "11 layers, 288 wide, all random", RANDOM | {"num_layers": 11, "hidden_dim": 288, "ff_dim": 1152}),
    Variant("unscaled", "vector as it is, entries of about 1/√d", {"standardize": False}),
    Variant("no length head of its own", "the length is read from the condition", {"length_dim": 0}),
    Variant("no average", "the last weights instead of their running average", {"ema_decay": 0.0}),
)


def train_variant(
    variant: Variant, base: Config, corpus: Path, texts: Sequence[str], encoder: Encoder, tflop: float
) -> Iterator[dict]:
    """Train one variant until its matrix products reach `tflop`; yields its scores at every check."""
    config, accelerator = variant.config(base), Accelerator()
    tokenizer, pairs = _pairs(config, corpus, encoder)
    trainer = Trainer(initial_model(config, encoder, tokenizer, pairs), config.training, accelerator)
    mix = Mix([np.arange(len(pairs))], [1.0], config.training.seed)
    batches = EqualLengthBatches(pairs.lengths, mix, config.training.batch_size)
    told = {"variant": variant.name, "change": variant.change, "samples": 0, "seconds": 0.0, "tflop": 0.0}
    checks = [tflop * part / CHECKS for part in range(1, CHECKS + 1)]
    with tqdm(total=tflop, desc=variant.name, bar_format="{l_bar}{bar}| {n:.1f} of {total:.0f} TFLOP") as bar:
        for number in itertools.count():
            start = time.process_time()
            batch = make_batch(pairs, batches, number, config, accelerator)
            trainer.update([batch])
            told["seconds"] += time.process_time() - start
            told["samples"] += batch.size
            told["tflop"] = trainer.flops / 1e12
            bar.update(min(told["tflop"], tflop) - bar.n)  # the last step may go over
            if told["tflop"] >= checks[0]:
                yield {**told, **_scores(trainer, tokenizer, encoder, texts)}
                checks.pop(0)
            if not checks:
                return


def _pairs(config: Config, corpus: Path, encoder: Encoder) -> tuple[Tokenizer, Pairs]:
    """Tokenizer and pairs of a vocabulary, made once. A checkpoint that is continued brings its own vocabulary."""
    start, size = config.training.start_from, config.model.vocab_size
    folder = Path(config.data.data_dir).expanduser() / (f"vocabulary-{size}" if start is None else "continued")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tokenizer.json").is_file():
        pruned = start is None
        made = prune(encoder.tokenizer, read_texts(corpus), size) if pruned else Tokenizer.load(locate(start))
        made.save(folder / "tokenizer.json")
    tokenizer = Tokenizer.load(folder)
    return tokenizer, Pairs.build(folder / "train", corpus, encoder, tokenizer, config.model.max_seq_len)


def _scores(trainer: Trainer, tokenizer: Tokenizer, encoder: Encoder, texts: Sequence[str]) -> dict:
    """Scores on text of the averaged weights, in 8 steps from 100 % masks, and what the text costs in nats."""
    model = copy.deepcopy(trainer.ema).to(trainer.worker.dtype).eval()
    inverter = Inverter(model, tokenizer, encoder)
    vectors = encoder.encode(texts)
    written = inverter.invert(vectors, keep_trajectories=False).texts
    table = score(texts, written, encoder).set_index("metric")
    return {
        **table.loc[list(SCORES), "value"].to_dict(),
        "token_f1_low": table.loc["token_f1", "low"],
        "token_f1_high": table.loc["token_f1", "high"],
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
    dtype = torch.bfloat16 if base.training.bf16 else torch.float32
    encoder = Encoder.load(base.model.encoder_model, dtype=dtype)
    texts = _fitting_all(base, chosen.text, encoder, read_texts(chosen.valid))[: chosen.limit]
    done = pd.read_csv(out) if out.is_file() else pd.DataFrame(columns=COLUMNS)
    _refuse_other(out, done, chosen.tflop, len(texts))
    try:
        for variant in VARIANTS:
            if variant.name not in set(done["variant"]):
                rows = pd.DataFrame(train_variant(variant, base, chosen.text, texts, encoder, chosen.tflop))
                done = pd.concat([done, rows[list(COLUMNS)]]) if len(done) else rows[list(COLUMNS)]
                write_table(out, done)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on with the variants that {out} lacks") from None
    print(done.groupby("variant", sort=False).last()[["samples", "token_f1", "bleu", "nats_per_character"]].to_string())


def _fitting_all(base: Config, corpus: Path, encoder: Encoder, texts: Sequence[str]) -> list[str]:
    """The texts that fit the model in the smallest vocabulary, and so in all: a smaller one needs more pieces."""
    smallest = min(variant.config(base).model.vocab_size for variant in VARIANTS)
    tokenizer = prune(encoder.tokenizer, read_texts(corpus), smallest)
    return fitting(texts, tokenizer, base.model.max_seq_len)


def _refuse_other(out: Path, done: pd.DataFrame, tflop: float, n: int) -> None:
    """Raise `InputError` for a table of less compute or other sentences: new rows could not be compared."""
    if not n:
        raise InputError("no text of --valid fits the model in every vocabulary; give sentences")
    least = done.groupby("variant")["tflop"].max().min()  # NaN of an empty table, which is above nothing
    if len(done) and (done["n"].ne(n).any() or least < tflop):
        raise InputError(
            f"{out} holds runs of {least:.0f} TFLOP scored on {done['n'].iloc[0]} sentences, these have {tflop:g} "
            f"and {n}; give its --tflop and --limit, or another --out"
        )
