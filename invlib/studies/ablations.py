"""Ablations: small runs of equal compute, each with one choice of the bundled configuration changed.

`python -m invlib.studies.ablations --text FILE --valid FILE` trains them one after the other and writes their curves to
`ablations.csv`. It may be stopped at any moment; the same command goes on with the variants that are missing.

Equal compute means an equal number of matrix-multiplication operations, the optimiser's included, so that the result
does not depend on what else the machine does. All variants see the same text in the same order (but for those with
another vocabulary or model), start from seed 0 and are scored on text, on the same sentences. The rate is constant
after the warm-up; what is scored is the running average of the weights.
"""

import argparse
import copy
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from invlib.checkpoint import locate, write_atomically
from invlib.config import Config, ModelConfig, load_config
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.masking import length_mask, mask_tokens, stratified_counts
from invlib.metrics import score
from invlib.model import ConditionalMDLM, Modulation
from invlib.tokenizer import Tokenizer
from invlib.training.batches import Batch, EqualLengthBatches, Mix, make_batch
from invlib.training.losses import diffusion_loss, sequence_mean
from invlib.training.pairs import MIN_TOKENS, Pairs, read_texts
from invlib.training.start import initial_model
from invlib.training.trainer import Trainer

CHECKS = 3  # scored after a third, two thirds and all of the compute
SMALL = {
    "grad_accum": 1,
    "warmup_steps": 25,
    "decay_share": 0.0,
    "max_steps": 1_000_000,
    "noise_share": 0.0,
    "start_from": None,
}
SCORES = ("token_f1", "bleu", "edit_similarity", "cosine", "length_within_one")
COLUMNS = (
    *("variant", "change", "samples", "seconds", "tflop", "token_f1", "token_f1_low", "token_f1_high"),
    *(*SCORES[1:], "nats_per_character", "n"),
)


@dataclass(frozen=True)
class Variant:
    """One changed choice: other configuration keys, another model class, other masks, or a vector scaled otherwise."""

    name: str
    change: str
    model: Mapping = field(default_factory=dict)
    training: Mapping = field(default_factory=dict)
    kind: type[ConditionalMDLM] = ConditionalMDLM
    counts: Callable | None = None  # instead of `stratified_counts`
    times: Callable[[int], float] | None = None  # the vector times this function of d, instead of standardised

    def config(self, base: Config) -> Config:
        """The small run's configuration."""
        return dataclasses.replace(
            base,
            model=dataclasses.replace(base.model, **{"noise_condition": False, **self.model}),
            training=dataclasses.replace(base.training, **{**SMALL, **self.training}),
        )


@dataclass(frozen=True)
class PrefixModulation(Modulation):
    """A modulation that carries prefix tokens along."""

    prefix: Float[Tensor, "batch prefix hidden"]


class PrefixMDLM(ConditionalMDLM):
    """AdaLN and, in front of the text, tokens projected from the condition that every position can attend to."""

    prefix_length = 4

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.prefix_proj = nn.Linear(config.hidden_dim, self.prefix_length * config.hidden_dim)

    def modulation(self, embedding, null=None, noise_level=None) -> PrefixModulation:
        prefix = self.prefix_proj(self.condition(embedding, null, noise_level))
        prefix = prefix.view(len(embedding), self.prefix_length, self.config.hidden_dim)
        return PrefixModulation(**vars(super().modulation(embedding, null, noise_level)), prefix=prefix)

    def hidden_states(self, xt, modulation, lengths=None) -> Float[Tensor, "batch length hidden"]:
        x = self.embed_norm(self.token_embed(xt) + self.pos_embed.weight[: xt.shape[1]])
        x = torch.cat([modulation.prefix, x], dim=1)
        # The prefix stands in front, so that a mask of the first positions still hides the padding behind.
        visible = None if lengths is None else length_mask(lengths + self.prefix_length, x.shape[1])
        for layer, block in enumerate(self.blocks):
            parts = (modulation.scale, modulation.shift, modulation.gate)
            x = block(x, *(part[:, layer] for part in parts), visible)
        return x[:, self.prefix_length :]


class LongPrefixMDLM(PrefixMDLM):
    """Sixteen prefix tokens, as many as vec2text gives its decoder."""

    prefix_length = 16


def bell_counts(lengths: Int[Tensor, "batch"], generator: torch.Generator | None = None) -> Int[Tensor, "batch"]:
    """Mask ratios around one half (normal, deviation 0.25), except that 15 % of the sequences are masked wholly."""
    ratio = (0.5 + 0.25 * torch.randn(len(lengths), generator=generator)).clamp(0, 1)
    ratio = torch.where(torch.rand(len(lengths), generator=generator) < 0.15, 1.0, ratio)
    return torch.ceil(ratio * lengths).long().clamp(min=1)


RANDOM = {"tokens_from_encoder": False, "blocks_from_encoder": False}
# The largest expected gains first: a run that is stopped has tried the most promising ones.
VARIANTS = (
    Variant("base", "the bundled configuration"),
    Variant(
        "random blocks", "pre-norm blocks from random numbers", {"post_norm": False}, {"blocks_from_encoder": False}
    ),
    Variant("4 prefix tokens", "AdaLN and 4 tokens projected from the vector", kind=PrefixMDLM),
    Variant("AdamW", "AdamW on all weights instead of Muon on matrices", training={"optimizer": "adamw"}),
    Variant("NELBO weights", "mean over the masked tokens of a sequence", training={"weighting": "nelbo"}),
    Variant("continued, clean", "from the bundled weights, clean vectors", training={"start_from": "minilm"}),
    Variant(
        "continued, noisy",
        "from the bundled weights, 20 % of the vectors noisy and the model told how much",
        {"noise_condition": True},
        {"start_from": "minilm", "noise_share": 0.2},
    ),
    Variant("√d scaling", "vector times √d instead of standardised", times=math.sqrt),
    Variant("vocabulary 8k", "8,192 pieces", {"vocab_size": 8192}),
    Variant("vocabulary 16k", "16,384 pieces", {"vocab_size": 16384}),
    Variant("random tokens", "token table from random numbers", training={"tokens_from_encoder": False}),
    Variant("bell-shaped masks", "mask ratios around one half, 15 % all masked", counts=bell_counts),
    Variant("half the rate", "learning rate 5e-4", training={"lr": 5e-4}),
    Variant("twice the rate", "learning rate 2e-3", training={"lr": 2e-3}),
    Variant("no dropped vectors", "condition dropout 0", training={"condition_dropout": 0.0}),
    Variant("vocabulary 30k", "the encoder's 30,522 pieces", {"vocab_size": 30522}),
    Variant("16 prefix tokens", "AdaLN and 16 tokens projected from the vector", kind=LongPrefixMDLM),
    Variant("all random", "6 layers, 384 wide, pre-norm, all random", {"post_norm": False}, RANDOM),
    Variant(
        "wide",
        "3 layers, 528 wide, all random",
        {"post_norm": False, "num_layers": 3, "hidden_dim": 528, "ff_dim": 2112},
        RANDOM,
    ),
    Variant(
        "deep",
        "11 layers, 288 wide, all random",
        {"post_norm": False, "num_layers": 11, "hidden_dim": 288, "ff_dim": 1152},
        RANDOM,
    ),
    Variant("unscaled", "vector as it is, entries of about 1/√d", times=lambda d: 1.0),
    Variant("no length head of its own", "the length is read from the condition", {"length_dim": 0}),
    Variant("no average", "the last weights instead of their running average", training={"ema_decay": 0.0}),
)


def run(
    variant: Variant, base: Config, corpus: Path, texts: Sequence[str], encoder: Encoder, tflop: float
) -> Iterator[dict]:
    """Train one variant until its matrix products reach `tflop`; yields its scores at every check."""
    config, accelerator = variant.config(base), Accelerator()
    tokenizer, pairs = _pairs(config, corpus, encoder)
    model = _start(variant, config, encoder, tokenizer, pairs)
    trainer = Trainer(model, config.training, accelerator)
    batches = EqualLengthBatches(
        pairs.lengths, Mix([np.arange(len(pairs))], [1.0], config.training.seed), config.training.batch_size
    )
    told = {"variant": variant.name, "change": variant.change, "samples": 0, "seconds": 0.0, "tflop": 0.0}
    checks = [tflop * part / CHECKS for part in range(1, CHECKS + 1)]
    with tqdm(total=tflop, desc=variant.name, bar_format="{l_bar}{bar}| {n:.1f} of {total:.0f} TFLOP") as bar:
        for number in itertools.count():
            start = time.process_time()
            batch = _remasked(variant, make_batch(pairs, batches, number, config, accelerator), config, number)
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
    start = config.training.start_from
    folder = Path(config.data.data_dir).expanduser() / (
        f"vocabulary-{config.model.vocab_size}" if start is None else "continued"
    )
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tokenizer.json").is_file():
        if start is None:
            tokenizer = Tokenizer.prune(encoder.tokenizer, read_texts(corpus), config.model.vocab_size)
        else:
            tokenizer = Tokenizer.load(locate(start))
        tokenizer.save(folder / "tokenizer.json")
    tokenizer = Tokenizer.load(folder)
    return tokenizer, Pairs.build(folder / "train", corpus, encoder, tokenizer, config.model.max_seq_len)


def _start(variant: Variant, config: Config, encoder: Encoder, tokenizer: Tokenizer, pairs: Pairs) -> ConditionalMDLM:
    model = initial_model(config, encoder, tokenizer, pairs, kind=variant.kind)
    if variant.times is not None:
        model.embedding_mean.zero_()
        model.embedding_std.fill_(1 / variant.times(config.model.embedding_cond_dim))
    return model


def _remasked(variant: Variant, batch: Batch, config: Config, number: int) -> Batch:
    """Other masks on the same text, where the variant has its own law of mask counts."""
    if variant.counts is None:
        return batch
    generator = torch.Generator().manual_seed(number)
    lengths = torch.full((len(batch.x0),), batch.x0.shape[1])
    counts = variant.counts(lengths, generator)
    xt = mask_tokens(batch.x0, lengths, counts, config.model.mask_token_id, generator)
    return dataclasses.replace(batch, xt=xt)


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
    modulation = model.modulation(torch.from_numpy(vectors).to(model.device))
    rows = inverter.tokenizer.encode(texts)
    for row in range(len(texts)):
        x0, length = torch.tensor(rows[row : row + 1]), torch.tensor([len(rows[row])])
        counts = stratified_counts(length, generator)
        xt = mask_tokens(x0, length, counts, model.config.mask_token_id, generator)
        x = model.hidden_states(xt, modulation.rows(slice(row, row + 1)))
        masked = xt != x0
        mean = diffusion_loss(
            model.final_states(x, modulation.rows(slice(row, row + 1)), masked),
            model.output_table,
            x0,
            masked,
            length,
            mask_token_id=model.config.mask_token_id,
            weighting=sequence_mean,
        )
        nats += len(rows[row]) * float(mean)
    return nats / sum(len(text) for text in texts)


def _fitting(base: Config, corpus: Path, encoder: Encoder, texts: Sequence[str]) -> list[str]:
    """The texts that fit the model in the smallest vocabulary, and so in all: a smaller one needs more pieces."""
    smallest = min(variant.config(base).model.vocab_size for variant in VARIANTS)
    tokenizer = Tokenizer.prune(encoder.tokenizer, read_texts(corpus), smallest)
    lengths = [len(ids) for ids in tokenizer.encode(texts)]
    return [text for text, n in zip(texts, lengths, strict=True) if MIN_TOKENS <= n <= base.model.max_seq_len]


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


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m invlib.studies.ablations", description="Small runs of equal compute."
    )
    parser.add_argument("--text", type=Path, required=True, help="what to train on: .jsonl or .txt, plain or .gz")
    parser.add_argument("--valid", type=Path, required=True, help="what to score on")
    parser.add_argument("--config", type=Path, default=Path("configs/minilm.yaml"))
    parser.add_argument("--tflop", type=float, default=36.0, help="matrix products of a run, in 1e12 (default: 36)")
    parser.add_argument("--limit", type=int, default=400, help="sentences to score on (default: 400)")
    parser.add_argument("--out", type=Path, help="default: ablations.csv in the bundled checkpoint's folder")
    chosen = parser.parse_args(arguments)
    out = chosen.out or locate("minilm") / "ablations.csv"
    try:
        base = load_config(chosen.config)
        dtype = torch.bfloat16 if base.training.bf16 else torch.float32
        encoder = Encoder.load(base.model.encoder_model, dtype=dtype)
        texts = _fitting(base, chosen.text, encoder, read_texts(chosen.valid))[: chosen.limit]
        done = pd.read_csv(out) if out.is_file() else pd.DataFrame(columns=COLUMNS)
        _refuse_other(out, done, chosen.tflop, len(texts))
        for variant in VARIANTS:
            if variant.name not in set(done["variant"]):
                rows = pd.DataFrame(run(variant, base, chosen.text, texts, encoder, chosen.tflop))
                done = pd.concat([done, rows[list(COLUMNS)]]) if len(done) else rows[list(COLUMNS)]
                table = done.copy()
                write_atomically(out, lambda path, table=table: table.to_csv(path, index=False, float_format="%.4f"))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with the variants that {out} lacks", file=sys.stderr)
        return 130
    print(done.groupby("variant", sort=False).last()[["samples", "token_f1", "bleu", "nats_per_character"]].to_string())
    return 0


if __name__ == "__main__":
    sys.exit(main())
