"""Training against the straightforward way of writing it, in one run.

`python -m tests.speed.training --text FILE`. Both ways train the same start with the same optimisers on sentences of
the same corpus. The straightforward way is what one writes first: sentences of mixed lengths padded to the model's
length, autocast over fp32 weights, scaled_dot_product_attention, logits of the whole vocabulary at every position.
The two take turns, so that whatever else the machine does falls on both.
"""

import copy
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from invlib.config import Config, TrainingConfig, load_config
from invlib.door.options import Parser
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.masking import mask_tokens, stratified_counts, subs_logits
from invlib.model import Attention, ConditionalMDLM
from invlib.training.batches import Batch, EqualLengthBatches, Mix, make_batch
from invlib.training.compute import matmul_peak
from invlib.training.pairs import Pairs, read_texts
from invlib.training.start import initial_model
from invlib.training.trainer import Trainer
from invlib.training.vocabulary import prune
from tests.speed.machine import description

OURS, PLAIN = "ours", "straightforward"
PAD = 0  # what `Pairs` fills rows up with


class FusedAttention(Attention):
    """The same attention through torch's fused kernel."""

    def forward(
        self, x: Float[Tensor, "batch length hidden"], visible: Bool[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch length hidden"]:
        batch, length, hidden = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        seen = None if visible is None else visible[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out_proj(out.transpose(1, 2).reshape(batch, length, hidden))


class StraightforwardTrainer(Trainer):
    """The same weights, optimisers and loss, written without a thought for speed."""

    def __init__(self, model: ConditionalMDLM, config: TrainingConfig, accelerator: Accelerator):
        self.autocast = config.bf16
        super().__init__(model, dataclasses.replace(config, mixed_precision="no"), accelerator)
        for block in self.model.blocks:
            block.attn.__class__ = FusedAttention  # it keeps its weights

    def _diffusion_loss(self, batch: Batch) -> Tensor:
        mask, lengths = self.model.config.mask_token_id, (batch.x0 != PAD).sum(dim=1)
        everywhere = torch.ones_like(batch.xt, dtype=torch.bool)
        with torch.autocast(batch.x0.device.type, torch.bfloat16, enabled=self.autocast):
            modulation = self.model.modulation(batch.embedding, batch.dropped, batch.noise_level)
            logits = self.model(batch.xt, modulation, lengths=lengths, at=everywhere)
        logits = subs_logits(logits.float(), mask)
        token_loss = F.cross_entropy(logits, batch.x0.flatten(), reduction="none").view(batch.x0.shape)
        masked = batch.xt == mask
        counts = lengths / 2 if self.config.weighting == "low_variance" else masked.sum(dim=1)
        return ((token_loss * masked).sum(dim=1) / counts).mean()

    def _length_loss(self, batch: Batch) -> Tensor:
        with torch.autocast(batch.x0.device.type, torch.bfloat16, enabled=self.autocast):
            return super()._length_loss(batch)


def padded(pairs: Pairs, number: int, config: Config, accelerator: Accelerator) -> Batch:
    """A batch of sentences of any length, padded to the model's length."""
    generator, size = torch.Generator().manual_seed(number), config.training.batch_size
    rows = np.sort(torch.randint(len(pairs), (size,), generator=generator).numpy())
    x0 = torch.from_numpy(pairs.tokens[rows].astype(np.int64))
    lengths = torch.from_numpy(pairs.lengths[rows].astype(np.int64))
    xt = mask_tokens(x0, lengths, stratified_counts(lengths, generator), config.model.mask_token_id, generator)
    embedding = torch.from_numpy(pairs.embeddings[rows].astype(np.float32))
    dropped = torch.rand(size, generator=generator) < config.training.condition_dropout
    values = (x0, embedding, None, xt, dropped, embedding, None, lengths)
    return Batch(*(None if v is None else v.to(accelerator.device) for v in values), size=size)


def compare(start: ConditionalMDLM, config: Config, pairs: Pairs, *, rounds: int, steps: int) -> pd.DataFrame:
    """Both ways by turns: one row per round and way, with sentences per second, operations per second and the loss.

    An optimiser step takes the configuration's micro-batches, as in training. Round 0 warms up and is left out. The
    loss is that of the last step of the round.
    """
    accelerator, accumulated = Accelerator(), config.training.grad_accum
    ways = {
        OURS: Trainer(copy.deepcopy(start), config.training, accelerator),
        PLAIN: StraightforwardTrainer(start, config.training, accelerator),
    }
    batches = EqualLengthBatches(pairs.lengths, Mix([np.arange(len(pairs))], [1.0], 0), config.training.batch_size)
    rows = []
    for turn in range(rounds + 1):
        numbers = range(turn * steps * accumulated, (turn + 1) * steps * accumulated)
        made = {
            OURS: [make_batch(pairs, batches, number, config, accelerator) for number in numbers],
            PLAIN: [padded(pairs, number, config, accelerator) for number in numbers],
        }
        for way, trainer in ways.items():
            begin, before = time.perf_counter(), trainer.flops
            for first in range(0, len(numbers), accumulated):
                loss = float(trainer.update(made[way][first : first + accumulated])[0])
            seconds = time.perf_counter() - begin
            samples = sum(batch.size for batch in made[way])
            rows.append(
                {
                    "round": turn,
                    "way": way,
                    "per_second": samples / seconds,
                    "flops": (trainer.flops - before) / seconds,
                    "loss": loss,
                }
            )
    return pd.DataFrame(rows).query("round > 0")


def losses_of_one_batch(start: ConditionalMDLM, config: Config, pairs: Pairs) -> tuple[float, float]:
    """The diffusion loss of the very same batch, both ways."""
    accelerator = Accelerator()
    batches = EqualLengthBatches(pairs.lengths, Mix([np.arange(len(pairs))], [1.0], 0), config.training.batch_size)
    batch = make_batch(pairs, batches, 0, config, accelerator)
    trainers = (kind(copy.deepcopy(start), config.training, accelerator) for kind in (Trainer, StraightforwardTrainer))
    with torch.no_grad():
        ours, plain = (float(trainer._diffusion_loss(batch)) for trainer in trainers)
    return ours, plain


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tests.speed.training", description=__doc__.partition("\n")[0])
    parser.add_argument("--text", type=Path, required=True, help=".jsonl or .txt, plain or .gz")
    parser.add_argument("--config", type=Path, default=Path("configs/minilm.yaml"))
    parser.add_argument(
        "--limit",
        type=int,
        default=2**16,
        help="sentences to use (default: the first 65536); few leave batches of one length unfilled",
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way (default: 5)")
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps a turn (default: 4)")
    try:
        chosen = parser.parse_args(arguments)
        config = load_config(chosen.config)
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, noise_share=0.0))
        with tempfile.TemporaryDirectory() as folder:
            start, pairs = _start(config, read_texts(chosen.text)[: chosen.limit], Path(folder))
            ours, plain = losses_of_one_batch(start, config, pairs)
            table = compare(start, config, pairs, rounds=chosen.rounds, steps=chosen.steps)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _report(table, ours, plain, config)
    return 0


def _start(config: Config, texts: list[str], folder: Path) -> tuple[ConditionalMDLM, Pairs]:
    (folder / "sentences.txt").write_text("\n".join(" ".join(text.split()) for text in texts), encoding="utf-8")
    dtype = torch.bfloat16 if config.training.bf16 else torch.float32
    encoder = Encoder.load(config.model.encoder_model, device=Accelerator().device, dtype=dtype)
    tokenizer = prune(encoder.tokenizer, texts, config.model.vocab_size)
    pairs = Pairs.build(folder / "pairs", folder / "sentences.txt", encoder, tokenizer, config.model.max_seq_len)
    return initial_model(config, encoder, tokenizer, pairs), pairs


def _report(table: pd.DataFrame, ours: float, plain: float, config: Config) -> None:
    device, dtype = Accelerator().device, torch.bfloat16 if config.training.bf16 else torch.float32
    peak = matmul_peak(device, dtype)
    by_way = table.pivot(index="round", columns="way", values=["per_second", "flops"])
    ratio = by_way["per_second"][OURS] / by_way["per_second"][PLAIN]
    share = by_way["flops"][OURS] / peak
    print(f"machine: {description(device)}")
    print(f"loss of one batch: {ours:.4f} ({OURS}), {plain:.4f} ({PLAIN})")
    for way in (OURS, PLAIN):
        speeds = by_way["per_second"][way]
        print(f"{way}: {speeds.median():.0f} sentences/s (min {speeds.min():.0f}, max {speeds.max():.0f})")
    print(f"ratio: {ratio.median():.2f} (min {ratio.min():.2f}, max {ratio.max():.2f}; {len(ratio)} rounds)")
    print(f"{OURS}: {share.median():.0%} of the {peak / 1e9:,.0f} GFLOP/s measured for a product of two matrices")


if __name__ == "__main__":
    sys.exit(main())
