"""The training loop, a generator, and what drives it from a configuration and its corpora.

Everything random is a function of (seed, micro-batch number): batches, masks and dropped conditions. So a run that
was killed needs no saved random state to go on to the same weights, bit for bit, and every process of a parallel
run knows the whole batch and takes its share.
"""

import copy
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from invlib import metrics
from invlib.config import Config, DataConfig
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.model import ConditionalMDLM
from invlib.sampler import denoise
from invlib.tokenizer import Tokenizer
from invlib.training.batches import Batch, EqualLengthBatches, Mix, make_batch
from invlib.training.compute import matmul_peak
from invlib.training.cuts import SOURCE, with_cuts
from invlib.training.drafts import Drafting
from invlib.training.packed import ENCODER, PackedPairs, read_encoder
from invlib.training.pairs import Pairs
from invlib.training.run import Run
from invlib.training.start import initial_model, initial_tokenizer
from invlib.training.timebox import TimeBox
from invlib.training.trainer import Trainer

VALIDATION_ROWS = 512
VALIDATION_STEPS = 8
DRAFTED = (0.0, 0.4)  # shares of the training after which drafts are made


def training_loop(
    trainer: Trainer,
    pairs: Pairs,
    rows: np.ndarray,
    config: Config,
    *,
    box: TimeBox | None = None,
    compiled: bool = False,
    drafting: Drafting | None = None,
) -> Iterator[dict[str, Any]]:
    """Train on `rows` of the pairs from `trainer.step` to max_steps, or to the end of the box; yields after every step.

    drafting: half of what is seen are then drafts to be corrected, made at the beginning and anew in the middle.
    The losses of a record are tensors: who reads them waits for the device. Raises what a `TimeBox` raises.
    """
    training = config.training
    feed = Feed(pairs, rows, config, trainer, drafting)
    if compiled:
        trainer.compile(feed.sequences(0))
    feed.renew(0.0)
    if box is not None:
        box.begin()
    is_over = box is None and trainer.step >= training.max_steps
    while not is_over:
        feed.renew(trainer.step / training.max_steps if box is None else box.passed)
        first = trainer.step * training.grad_accum
        micro = [feed.batch(number) for number in range(first, first + training.grad_accum)]
        loss, length_loss = trainer.update(micro, None if box is None else box.passed)
        if box is not None:
            box.check(trainer.step, training.warmup_steps)
        is_over = trainer.step >= training.max_steps if box is None else box.passed >= 1
        yield {
            "step": trainer.step,
            "loss": loss,
            "length_loss": length_loss,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "samples": sum(batch.size for batch in micro),
            "is_last": is_over,
        }


class Feed:
    """Micro-batches by number: sequences, and every other one drafts to be corrected where there is `drafting`."""

    def __init__(self, pairs: Pairs, rows: np.ndarray, config: Config, trainer: Trainer, drafting: Drafting | None):
        self.pairs, self.config, self.trainer, self.drafting = pairs, config, trainer, drafting
        self.mix = Mix.by_source(pairs, rows, _shares(config.data), config.training.seed)
        self.batches = self._batches(pairs.lengths, self.mix)
        self.drafts, self.drawn = None, 0

    def _batches(self, lengths: np.ndarray, mix: Mix) -> EqualLengthBatches:
        return EqualLengthBatches(lengths, mix, self.config.training.batch_size)

    def renew(self, over: float) -> None:
        """Drafts at the beginning, later new ones, some corrected once and twice. over: the share of the training."""
        while self.drafting and self.drawn < sum(over >= begins for begins in DRAFTED):
            model = copy.deepcopy(self.trainer.ema).to(self.trainer.worker.dtype)
            self.drafts = self.drafting(model, self.mix.rows(self.drawn), self.drawn, 2 * self.drawn)
            every = Mix([np.arange(len(self.drafts))], [1.0], self.config.training.seed)
            self.batches_of_drafts = self._batches(self.pairs.lengths[self.drafts.rows], every)
            self.drawn += 1

    def sequences(self, number: int) -> Batch:
        """Micro-batch `number` as it is without drafts."""
        return make_batch(self.pairs, self.batches, number, self.config, self.trainer.accelerator)

    def batch(self, number: int) -> Batch:
        """Micro-batch `number`."""
        if self.drafts is None or number % 2:
            return self.sequences(number)
        batches, accelerator = self.batches_of_drafts, self.trainer.accelerator
        return make_batch(self.pairs, batches, number, self.config, accelerator, self.drafts)


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
    both = list(zip(references, texts, strict=True))
    means = [float(np.mean([metric(*own) for own in both])) for metric in (metrics.token_f1, metrics.exact_match)]
    right = float((lengths == true_lengths).float().mean())
    return {"token_f1": means[0], "exact_match": means[1], "length_right": right}


def train(run: Run, training: tuple[Pairs, np.ndarray], validation: tuple[Pairs, np.ndarray], **options) -> None:
    """Drive `training_loop` to its end: progress, log, validation, checkpoints. options: its `box` and `compiled`."""
    config, trainer, device = run.config.training, run.trainer, run.trainer.accelerator.device
    peak = matmul_peak(device, torch.bfloat16 if config.bf16 else torch.float32)
    started, losses, told, box = time.perf_counter(), [], {}, options.get("box")
    before, validated = run.seconds, 0.0  # seconds of earlier legs, and of the validations of this one
    total = None if box else config.max_steps
    with tqdm(total=total, initial=trainer.step, unit=" steps", disable=not run.is_main) as bar:
        for record in training_loop(trainer, *training, run.config, **options):
            bar.update()
            losses.append(record["loss"])
            run.samples += record["samples"]
            is_checked = record["step"] % config.eval_every == 0 or record["is_last"]
            if not is_checked and record["step"] % config.log_every:
                continue
            told, losses = {"loss": float(torch.stack(losses).mean())}, []  # here the device is waited for
            now, scores = time.perf_counter(), {}
            of_peak = trainer.flops / (now - started - validated - trainer.compiling) / peak
            run.seconds = before + now - started
            told["samples_per_second"] = run.samples / run.seconds
            if is_checked:
                scores = validate(trainer.ema, *validation, run.tokenizer)
            told_length = {"length_loss": float(record["length_loss"])}
            run.log({**record, **told, **told_length, "samples": run.samples, "seconds": run.seconds, **scores})
            bar.set_postfix({**told, "of_peak": of_peak, **scores})
            if scores:
                run.save(scores)
                validated += time.perf_counter() - now
                if box is not None:
                    box.keep(time.perf_counter() - now)
    if run.is_main and told:
        speed, precision = f"{told['samples_per_second']:.0f} samples/s", "bf16" if config.bf16 else "fp32"
        print(f"{speed}; {of_peak:.0%} of {peak / 1e9:,.0f} GFLOP/s, the {precision} peak")


def start(
    config: Config,
    texts: Sequence[Path],
    valid: Sequence[Path],
    out: Path,
    accelerator: Accelerator,
    *,
    minutes: float | None = None,
    compiled: bool = False,
    encoder: Any = None,
) -> None:
    """Pairs, model and run from a configuration and its corpora; then train to the end, resuming where possible.

    texts, valid: text files, or folders that `pack` wrote, one of them with the encoder. minutes: see `TimeBox`.
    encoder: one that is open, or `KnownVectors`, instead of the configuration's.
    """
    _check_training(config)
    box = None if minutes is None else TimeBox(minutes, config.training.decay_share)
    if box is not None and accelerator.num_processes > 1:
        raise InputError("--minutes is for one process: several would not end in the same step")
    kind, encoder, home = (Pairs, encoder, None) if encoder else _encoder(config, texts, valid, accelerator)
    if config.data.cuts and (home is None or not valid):
        raise InputError("cuts are made of packed corpora beside held-out text; pack it, or set cuts to 0")
    with accelerator.main_process_first():
        tokenizer = initial_tokenizer(config, encoder, texts[0], home or out)
        folder, make = Path(config.data.data_dir).expanduser(), (encoder, tokenizer, config.model.max_seq_len)
        pairs = kind.build_all(folder, "train", texts, *make)
        if config.data.cuts:
            pairs = with_cuts(pairs, folder / "cuts", encoder, tokenizer, config.training.seed)
        held_out = kind.build_all(folder, "valid", valid, *make) if valid else pairs
    if accelerator.is_main_process:
        print(pairs.summary, file=sys.stderr)
    train_rows, valid_rows = _split(pairs, held_out, config)
    model = initial_model(config, encoder, tokenizer, pairs)
    data = {"training": pairs.identities, "validation": None if held_out is pairs else held_out.identities}
    run = Run(out, config, Trainer(model, config.training, accelerator), tokenizer, data)
    run.resume()
    near = pairs.on(accelerator.device) if home or accelerator.device.type != "cpu" else pairs
    drafting = Drafting(near, encoder, tokenizer, out, config.training) if config.training.drafts else None
    train(run, (near, train_rows), (held_out, valid_rows), box=box, compiled=compiled, drafting=drafting)


def _check_training(config: Config) -> None:
    if config.training is None:
        raise InputError("the configuration has no training: section; see configs/minilm.yaml")
    if config.training.drafts and not config.model.corrector_dim:
        raise InputError("drafts are for a corrector; set corrector_dim in the model section, or drafts to 0")


def _encoder(
    config: Config, texts: Sequence[Path], valid: Sequence[Path], accelerator: Accelerator
) -> tuple[type[Pairs], Encoder, Path | None]:
    """How pairs are built, the encoder, and the packed folder that holds it, if the corpora are packed."""
    folders = [path for path in (*texts, *valid) if path.is_dir()]
    if not folders:
        precision = torch.bfloat16 if config.training.bf16 else torch.float32
        return Pairs, Encoder.load(config.model.encoder_model, device=accelerator.device, dtype=precision), None
    home = next((folder for folder in folders if (folder / ENCODER).is_dir()), None)
    if home is None or len(folders) < len(texts) + len(valid):
        raise InputError("packed folders and text files do not mix, and one of the folders has to hold the encoder")
    return PackedPairs, read_encoder(home, accelerator.device), home


def _shares(data: DataConfig) -> dict[str, float]:
    """The shares of all patterns, the cuts first: they fit "*" as well."""
    if not data.cuts:
        return data.mix
    return {SOURCE: data.cuts} | {name: share * (1 - data.cuts) for name, share in (data.mix or {"*": 1.0}).items()}


def _split(pairs: Pairs, held_out: Pairs, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to validate on; of one corpus, `val_split` of it is held out."""
    order = np.random.default_rng(config.training.seed).permutation(len(held_out))
    if held_out is not pairs:
        return np.arange(len(pairs)), order[:VALIDATION_ROWS]
    held = max(1, round(config.data.val_split * len(pairs)))
    if held >= len(pairs):
        raise InputError(f"a corpus of {len(pairs)} usable sentences cannot be split; give a larger one")
    return np.sort(order[held:]), order[:held][:VALIDATION_ROWS]
