"""The training loop, a generator, and what drives it from a configuration and its corpora.

Everything random is a function of (seed, micro-batch number): batches, masks and dropped conditions. So a run that
was killed needs no saved random state to go on to the same weights, bit for bit, and every process of a parallel
run knows the whole batch and takes its share.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from invlib import metrics
from invlib.config import Config
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.model import ConditionalMDLM
from invlib.sampler import denoise
from invlib.tokenizer import Tokenizer
from invlib.training.batches import EqualLengthBatches, Mix, make_batch
from invlib.training.compute import matmul_peak
from invlib.training.pairs import Pairs
from invlib.training.run import Run
from invlib.training.start import initial_model, initial_tokenizer
from invlib.training.trainer import Trainer

VALIDATION_ROWS = 512
VALIDATION_STEPS = 8


def training_loop(trainer: Trainer, pairs: Pairs, rows: np.ndarray, config: Config) -> Iterator[dict[str, float]]:
    """Train on `rows` of the pairs from `trainer.step` to max_steps; yields a record after every step."""
    training = config.training
    mix = Mix.by_source(pairs, rows, config.data.mix, training.seed)
    batches = EqualLengthBatches(pairs.lengths, mix, training.batch_size)
    while trainer.step < training.max_steps:
        first = trainer.step * training.grad_accum
        numbers = range(first, first + training.grad_accum)
        micro = [make_batch(pairs, batches, number, config, trainer.accelerator) for number in numbers]
        loss, length_loss = trainer.update(micro)
        yield {
            "step": trainer.step,
            "loss": loss,
            "length_loss": length_loss,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "samples": sum(batch.size for batch in micro),
        }


@torch.inference_mode()
def validate(model: ConditionalMDLM, pairs: Pairs, rows: np.ndarray, tokenizer: Tokenizer) -> dict[str, float]:
    """Full inversion of unseen pairs from 100 % masks: predicted length, 8 steps, most confident tokens first.

    Returns the mean token F1, exact match and share of right lengths. Without a length head the true length is
    given, and `length_right` is then 1 by construction.
    """
    embedding = torch.from_numpy(pairs.embeddings[rows].astype(np.float32)).to(model.device)
    true_lengths = torch.from_numpy(pairs.lengths[rows].astype(np.int64)).to(model.device)
    lengths = model.predicted_lengths(embedding) if model.config.length_head else true_lengths
    predict = model.predictor(model.modulation(embedding), lengths)
    *_, final = denoise(predict, lengths, mask_token_id=model.config.mask_token_id, num_steps=VALIDATION_STEPS)
    texts = [tokenizer.decode(ids[:n]) for ids, n in zip(final.tokens, lengths, strict=True)]
    references = [tokenizer.decode(ids[:n]) for ids, n in zip(pairs.tokens[rows], true_lengths, strict=True)]
    scores = metrics.per_text(references, texts)[["token_f1", "exact_match"]].mean().to_dict()
    return scores | {"length_right": float((lengths == true_lengths).float().mean())}


def train(run: Run, training: tuple[Pairs, np.ndarray], validation: tuple[Pairs, np.ndarray]) -> None:
    """Drive `training_loop` to its end: progress, log, validation, checkpoints."""
    config, trainer, device = run.config.training, run.trainer, run.trainer.accelerator.device
    peak = matmul_peak(device, torch.bfloat16 if config.bf16 else torch.float32)
    started, losses, told = time.perf_counter(), [], {}
    before, validated = run.seconds, 0.0  # seconds of earlier legs, and of the validations of this one
    with tqdm(total=config.max_steps, initial=trainer.step, unit=" steps", disable=not run.is_main) as bar:
        for record in training_loop(trainer, *training, run.config):
            bar.update()
            losses.append(record["loss"])
            run.samples += record["samples"]
            now, scores = time.perf_counter(), {}
            of_peak = trainer.flops / (now - started - validated) / peak
            run.seconds = before + now - started
            if record["step"] % config.eval_every == 0 or record["step"] == config.max_steps:
                scores = validate(trainer.ema, *validation, run.tokenizer)
            if scores or record["step"] % config.log_every == 0:
                told = {"loss": float(np.mean(losses)), "samples_per_second": run.samples / run.seconds}
                run.log({**record, **told, "samples": run.samples, "seconds": run.seconds, **scores})
                bar.set_postfix({**told, "of_peak": of_peak, **scores})
                losses = []
            if scores:
                run.save(scores)
                validated += time.perf_counter() - now
    if run.is_main and told:
        speed, precision = f"{told['samples_per_second']:.0f} samples/s", "bf16" if config.bf16 else "fp32"
        print(f"{speed}; {of_peak:.0%} of {peak / 1e9:,.0f} GFLOP/s, the {precision} peak")


def start(config: Config, texts: Sequence[Path], valid: Sequence[Path], out: Path, accelerator: Accelerator) -> None:
    """Pairs, model and run from a configuration and its corpora; then train to the end, resuming where possible."""
    if config.training is None:
        raise InputError("the configuration has no training: section; see configs/minilm.yaml")
    precision = torch.bfloat16 if config.training.bf16 else torch.float32
    encoder = Encoder.load(config.model.encoder_model, device=accelerator.device, dtype=precision)
    with accelerator.main_process_first():
        tokenizer = initial_tokenizer(config, encoder, texts[0], out)
        folder, make = Path(config.data.data_dir).expanduser(), (encoder, tokenizer, config.model.max_seq_len)
        pairs = Pairs.build_all(folder, "train", texts, *make)
        held_out = Pairs.build_all(folder, "valid", valid, *make) if valid else pairs
    if accelerator.is_main_process:
        print(pairs.summary, file=sys.stderr)
    train_rows, valid_rows = _split(pairs, held_out, config)
    model = initial_model(config, encoder, tokenizer, pairs)
    data = {"training": pairs.identities, "validation": None if held_out is pairs else held_out.identities}
    run = Run(out, config, Trainer(model, config.training, accelerator), tokenizer, data)
    run.resume()
    train(run, (pairs, train_rows), (held_out, valid_rows))


def _split(pairs: Pairs, held_out: Pairs, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to validate on; of one corpus, `val_split` of it is held out."""
    order = np.random.default_rng(config.training.seed).permutation(len(held_out))
    if held_out is not pairs:
        return np.arange(len(pairs)), order[:VALIDATION_ROWS]
    held = max(1, round(config.data.val_split * len(pairs)))
    if held >= len(pairs):
        raise InputError(f"a corpus of {len(pairs)} usable sentences cannot be split; give a larger one")
    return np.sort(order[held:]), order[:held][:VALIDATION_ROWS]
