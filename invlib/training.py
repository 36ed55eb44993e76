"""The training loop (a generator), and `python -m invlib.training --config FILE --text FILE`.

Everything random is a function of (seed, micro-batch number): batches, masks and dropped conditions. So a run that
was killed needs no saved random state to go on to the same weights, bit for bit, and every process of a parallel
run knows the whole batch and takes its share.
"""

import argparse
import copy
import csv
import dataclasses
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from invlib import checkpoint, metrics
from invlib.config import Config, TrainingConfig, load_config
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.masking import WEIGHTINGS, diffusion_loss, mask_tokens, stratified_counts
from invlib.model import ConditionalMDLM
from invlib.pairs import Pairs, read_texts
from invlib.sampler import denoise
from invlib.tokenizer import Tokenizer

VALIDATION_ROWS = 512
VALIDATION_STEPS = 8
LENGTH_WEIGHT = 0.1  # the length head learns quickly; it must not outweigh the text


@dataclass(frozen=True)
class Batch:
    """Sequences of one length, masked; and as many vectors of sentences of any length, for the length head.

    The length head cannot learn from the sequences: all of one length, they would pull it there and back.
    """

    x0: Int[Tensor, "rows length"]
    embedding: Float[Tensor, "rows embed"]
    xt: Int[Tensor, "rows length"]
    dropped: Bool[Tensor, "rows"]  # which conditions are replaced by the null embedding
    any_embedding: Float[Tensor, "rows embed"]
    any_length: Int[Tensor, "rows"]
    size: int  # rows over all processes: what the loss is averaged over


class EqualLengthBatches:
    """Batch number → rows. Every epoch is a new order of the same rows, cut into batches of equal length."""

    def __init__(self, lengths: np.ndarray, rows: np.ndarray, batch_size: int, seed: int):
        self._rows, self.lengths = rows, np.asarray(lengths)[rows]
        self.batch_size, self.seed = batch_size, seed
        self.per_epoch = sum(-(-int(n) // batch_size) for n in np.bincount(self.lengths) if n)
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])

    def rows(self, number: int) -> np.ndarray:
        """The rows of micro-batch `number`, counted from the start of the run."""
        epoch, index = divmod(number, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._shuffled(epoch))
        return self._rows[self._epoch[1][index]]

    def any_rows(self, uniform: np.ndarray) -> np.ndarray:
        """Rows of any length, one for each number in [0, 1)."""
        return np.sort(self._rows[(uniform * len(self._rows)).astype(np.int64)])

    def _shuffled(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.lengths))
        order = order[np.argsort(self.lengths[order], kind="stable")]
        ends = np.flatnonzero(np.diff(self.lengths[order])) + 1
        batches = [
            group[start : start + self.batch_size]
            for group in np.split(order, ends)
            for start in range(0, len(group), self.batch_size)
        ]
        random.shuffle(batches)
        return batches


class Trainer:
    """Weights, optimiser and EMA of one run. Masters and EMA are fp32; forward and backward run in `worker`.

    `worker` is the model itself in fp32, or a bf16 copy of it: autocast would cast every weight anew at every use.
    """

    def __init__(self, model: ConditionalMDLM, config: TrainingConfig, accelerator: Accelerator):
        self.config, self.accelerator = config, accelerator
        self.model = model.to(accelerator.device)
        self.worker = copy.deepcopy(self.model).to(torch.bfloat16) if config.bf16 else self.model
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.masters = list(self.model.parameters())
        self.optimizers = _optimizers(self.model, config)
        self.step = 0

    def update(self, batches: list[Batch]) -> tuple[float, float]:
        """One optimiser step over `grad_accum` micro-batches; returns the loss and the length loss, in nats."""
        config, losses = self.config, torch.zeros(2, device=self.accelerator.device)
        lr_factor = learning_rate_factor(self.step, config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * lr_factor
        for batch in batches:
            losses += self._backward(batch) / len(batches)
        self._collect_gradients(len(batches))
        nn.utils.clip_grad_norm_(self.masters, config.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._publish()
        loss, length_loss = self.accelerator.reduce(losses, "sum").tolist()
        return loss, length_loss

    def _backward(self, batch: Batch) -> Tensor:
        """Gradients of this process's share of the micro-batch; an empty share contributes nothing."""
        if len(batch.x0) == 0:
            return torch.zeros(2, device=self.accelerator.device)
        loss, length_loss = self._diffusion_loss(batch), self._length_loss(batch)
        share = len(batch.x0) / batch.size
        ((loss + LENGTH_WEIGHT * length_loss) * share).backward()
        return torch.stack([loss, length_loss]).detach() * share

    def _diffusion_loss(self, batch: Batch) -> Tensor:
        model = self.worker
        masked = batch.xt == model.config.mask_token_id
        dropped = batch.dropped if model.config.null_embedding else None
        with torch.random.fork_rng(devices=[], enabled=model.config.dropout > 0):
            if model.config.dropout > 0:
                torch.manual_seed(self.config.seed * 1_000_003 + self.step)
            modulation = model.modulation(batch.embedding, dropped)
            x = model.hidden_states(batch.xt, modulation)
        return diffusion_loss(
            model.final_states(x, modulation, masked),
            model.output_table,
            batch.x0,
            masked,
            torch.full((len(batch.x0),), batch.x0.shape[1], device=batch.x0.device),
            mask_token_id=model.config.mask_token_id,
            weighting=WEIGHTINGS[self.config.weighting],
        )

    def _length_loss(self, batch: Batch) -> Tensor:
        if not self.worker.config.length_head:
            return torch.zeros((), device=batch.x0.device)
        logits = self.worker.length_logits(batch.any_embedding).float()
        return F.cross_entropy(logits, batch.any_length - 1)

    def _collect_gradients(self, num_batches: int) -> None:
        """Worker gradients → fp32 gradients of the masters, averaged over micro-batches, summed over processes."""
        for master, weight in zip(self.masters, self.worker.parameters(), strict=True):
            gradient = torch.zeros_like(master) if weight.grad is None else weight.grad.float()
            if self.accelerator.num_processes > 1:
                gradient = self.accelerator.reduce(gradient, "sum")
            master.grad = gradient.div_(num_batches)
            if weight is not master:
                weight.grad = None

    @torch.no_grad()
    def _publish(self) -> None:
        """Masters → worker copy and EMA (decay warmed up as in MDLM: min(decay, (1 + n) / (10 + n)))."""
        if self.worker is not self.model:
            for weight, master in zip(self.worker.parameters(), self.masters, strict=True):
                weight.copy_(master)
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), self.masters, 1 - decay)

    def state_dict(self) -> dict:
        """Everything a resumed run needs; plain tensors and numbers, so that `weights_only` can read it."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict) -> None:
        """The inverse of `state_dict`."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.worker.load_state_dict(state["model"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, constant, then linear decay to min_lr_ratio over the last `decay_share` of the steps."""
    warm_up = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay_steps = max(1, round(config.decay_share * config.max_steps))
    progress = max(0.0, (step + 1 - (config.max_steps - decay_steps)) / decay_steps)
    return warm_up * (1 - (1 - config.min_lr_ratio) * min(1.0, progress))


def make_batch(
    pairs: Pairs, batches: EqualLengthBatches, number: int, config: Config, accelerator: Accelerator
) -> Batch:
    """This process's share of micro-batch `number`, masked. The whole batch is drawn alike on every process."""
    rows = np.sort(batches.rows(number))  # in file order: memory maps like it
    length = int(pairs.lengths[rows[0]])
    seed = int(np.random.SeedSequence([config.training.seed, number]).generate_state(1, np.uint64)[0])
    generator = torch.Generator().manual_seed(seed >> 1)
    x0 = torch.from_numpy(pairs.tokens[rows, :length].astype(np.int64))
    lengths = torch.full((len(rows),), length)
    # The rows are sorted: without a shuffle the same corner of the corpus would get the same mask ratio.
    counts = stratified_counts(lengths, generator)[torch.randperm(len(rows), generator=generator)]
    xt = mask_tokens(x0, lengths, counts, config.model.mask_token_id, generator)
    dropped = torch.rand(len(rows), generator=generator) < config.training.condition_dropout
    any_rows = batches.any_rows(torch.rand(len(rows), generator=generator).numpy())
    tensors = (
        x0,
        torch.from_numpy(pairs.embeddings[rows].astype(np.float32)),
        xt,
        dropped,
        torch.from_numpy(pairs.embeddings[any_rows].astype(np.float32)),
        torch.from_numpy(pairs.lengths[any_rows].astype(np.int64)),
    )
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    return Batch(*(value[share].to(accelerator.device) for value in tensors), size=len(rows))


def training_loop(trainer: Trainer, pairs: Pairs, rows: np.ndarray, config: Config) -> Iterator[dict[str, float]]:
    """Train on `rows` of the pairs from `trainer.step` to max_steps; yields a record after every step."""
    training = config.training
    batches = EqualLengthBatches(pairs.lengths, rows, training.batch_size, training.seed)
    while trainer.step < training.max_steps:
        first = trainer.step * training.grad_accum
        micro = [
            make_batch(pairs, batches, number, config, trainer.accelerator)
            for number in range(first, first + training.grad_accum)
        ]
        loss, length_loss = trainer.update(micro)
        yield {
            "step": trainer.step,
            "loss": loss,
            "length_loss": length_loss,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "samples": sum(batch.size for batch in micro),
        }


def _optimizers(model: ConditionalMDLM, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW on everything, or Muon on the hidden matrices and AdamW on embeddings, modulation and biases."""
    by_muon = _hidden_matrices(model) if config.optimizer == "muon" else []
    taken = {id(weight) for weight in by_muon}
    rest = [weight for weight in model.parameters() if id(weight) not in taken]
    groups = [
        {"params": [w for w in rest if w.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in rest if w.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers = [torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)]
    if by_muon:
        # Update size matched to AdamW's (Liu et al. 2025, arXiv 2502.16982), so that one learning rate serves both.
        optimizers.append(
            torch.optim.Muon(
                by_muon,
                lr=config.lr,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = config.lr
    return optimizers


def _hidden_matrices(model: ConditionalMDLM) -> list[nn.Parameter]:
    return [
        weight
        for block in model.blocks
        for module in (block.attn, block.ff)
        for weight in module.parameters()
        if weight.ndim == 2
    ]


@torch.inference_mode()
def validate(model: ConditionalMDLM, pairs: Pairs, rows: np.ndarray, tokenizer: Tokenizer) -> dict[str, float]:
    """Full inversion of unseen pairs from 100 % masks: predicted length, 8 steps, most confident tokens first.

    Returns the mean token F1, exact match and share of right lengths. Without a length head the true length is
    given, and `length_right` is then 1 by construction.
    """
    embedding = torch.from_numpy(pairs.embeddings[rows].astype(np.float32)).to(model.device)
    modulation = model.modulation(embedding)
    true_lengths = torch.from_numpy(pairs.lengths[rows].astype(np.int64)).to(model.device)
    lengths = true_lengths
    if model.config.length_head:
        lengths = model.length_logits(embedding).argmax(dim=1) + 1

    def predict(xt: Tensor, of: Tensor) -> Tensor:
        return model(xt, modulation.rows(of), lengths=lengths[of])

    *_, final = denoise(predict, lengths, mask_token_id=model.config.mask_token_id, num_steps=VALIDATION_STEPS)
    texts = [tokenizer.decode(ids[:n]) for ids, n in zip(final.tokens, lengths, strict=True)]
    references = [tokenizer.decode(ids[:n]) for ids, n in zip(pairs.tokens[rows], true_lengths, strict=True)]
    table = metrics.per_text(references, texts)
    return {
        "token_f1": float(table["token_f1"].mean()),
        "exact_match": float(table["exact_match"].mean()),
        "length_right": float((lengths == true_lengths).float().mean()),
    }


class Run:
    """A training run in a folder: weights, state to resume from, log. Only the main process writes."""

    def __init__(self, folder: Path, config: Config, trainer: Trainer, tokenizer: Tokenizer, data: dict):
        self.folder, self.config, self.trainer, self.tokenizer = folder, config, trainer, tokenizer
        self.identity = {"config": _comparable(config), "data": data}
        self.samples, self.best, self.seconds = 0, -1.0, 0.0

    @property
    def is_main(self) -> bool:
        return self.trainer.accelerator.is_main_process

    def resume(self) -> None:
        """Go on from `state.pt`, if there is one. Raises `InputError` when it is of another config or corpus."""
        path = self.folder / "state.pt"
        if path.is_file():
            state = torch.load(path, weights_only=True)
            _refuse_difference(self.folder, state["identity"], self.identity)
            self.trainer.load_state_dict(state["trainer"])
            self.samples, self.best, self.seconds = state["samples"], state["best"], state["seconds"]
        if self.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.tokenizer.save(self.folder / "tokenizer.json")
            _cut_log(self.folder / "log.csv", self.trainer.step)

    def save(self, scores: dict[str, float]) -> None:
        """The averaged weights when they are the best so far; then the state."""
        if not self.is_main:
            return
        if scores["token_f1"] >= self.best:
            self.best = scores["token_f1"]
            checkpoint.write(self.folder, self.trainer.ema, self.config)
        state = {
            "identity": self.identity,
            "trainer": self.trainer.state_dict(),
            "samples": self.samples,
            "best": self.best,
            "seconds": self.seconds,
        }
        checkpoint.write_atomically(self.folder / "state.pt", lambda path: torch.save(state, path))

    def log(self, record: dict[str, float]) -> None:
        """Append one row to `log.csv`; scores are empty in rows without a validation."""
        if self.is_main:
            path = self.folder / "log.csv"
            is_new = not path.is_file()
            with open(path, "a", newline="") as file:
                writer = csv.DictWriter(file, LOG_COLUMNS)
                if is_new:
                    writer.writeheader()
                writer.writerow({key: record.get(key, "") for key in LOG_COLUMNS})


def train(run: Run, training: tuple[Pairs, np.ndarray], validation: tuple[Pairs, np.ndarray]) -> None:
    """Drive `training_loop` to its end: progress, log, validation, checkpoints."""
    config = run.config.training
    started, losses = time.perf_counter() - run.seconds, []
    loop = training_loop(run.trainer, *training, run.config)
    with tqdm(total=config.max_steps, initial=run.trainer.step, unit=" steps", disable=not run.is_main) as bar:
        for record in loop:
            bar.update()
            losses.append(record["loss"])
            run.samples += record["samples"]
            run.seconds = time.perf_counter() - started
            is_last = record["step"] == config.max_steps
            scores = {}
            if record["step"] % config.eval_every == 0 or is_last:
                scores = validate(run.trainer.ema, *validation, run.tokenizer)
            if scores or record["step"] % config.log_every == 0:
                speed = run.samples / run.seconds
                means = {"loss": float(np.mean(losses)), "samples": run.samples, "seconds": run.seconds}
                run.log({**record, **means, "samples_per_second": speed, **scores})
                bar.set_postfix(loss=f"{means['loss']:.3f}", samples_per_second=f"{speed:.0f}", **scores)
                losses = []
            if scores:
                run.save(scores)


LOG_COLUMNS = (
    *("step", "samples", "seconds", "samples_per_second", "lr"),
    *("loss", "length_loss", "token_f1", "exact_match", "length_right"),
)


def _comparable(config: Config) -> dict:
    """The part of a configuration that must not change between two legs of one run.

    max_steps may: it moves the final decay, which is how a run is prolonged.
    """
    values = dataclasses.asdict(config)
    for name in ("max_steps", "log_every", "eval_every", "num_workers"):
        values["training"].pop(name)
    values["data"].pop("data_dir")
    return values


def _refuse_difference(folder: Path, before: dict, now: dict) -> None:
    def flat(values: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    old, new = dict(flat(before)), dict(flat(now))
    changed = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
    if changed:
        shown = "; ".join(f"{key}: {old.get(key)!r} → {new.get(key)!r}" for key in sorted(changed))
        raise InputError(f"{folder} holds a run with other settings ({shown}); choose another --out")


def _cut_log(path: Path, step: int) -> None:
    """Drop the rows behind the state that is resumed: those steps will be done again."""
    if path.is_file():
        with open(path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, LOG_COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


def _make_tokenizer(config: Config, encoder: Encoder, corpus: Path, folder: Path) -> Tokenizer:
    """The run's tokenizer: the one in its folder, else pruned from the encoder's own, else opened by name."""
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.load(folder)
    if config.model.decoder_tokenizer == "pruned":
        return Tokenizer.prune(encoder.tokenizer, read_texts(corpus), config.model.vocab_size)
    return Tokenizer.load(config.model.decoder_tokenizer)


def _make_model(config: Config, encoder: Encoder, tokenizer: Tokenizer, pairs: Pairs) -> ConditionalMDLM:
    """A fresh model; its embedding statistics and, if asked, its token table come from the encoder's side."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        model = ConditionalMDLM(config.model)
    with torch.no_grad():
        if config.model.standardize:
            sample = torch.from_numpy(pairs.embeddings[:50_000].astype(np.float32))
            model.embedding_mean.copy_(sample.mean(dim=0))
            model.embedding_std.copy_(sample.std(dim=0, correction=0).clamp(min=1e-6))
        if config.training.tokens_from_encoder:
            model.token_embed.weight.copy_(_encoder_table(encoder, tokenizer, config))
    return model


def _encoder_table(encoder: Encoder, tokenizer: Tokenizer, config: Config) -> Tensor:
    table = encoder.model[0].auto_model.get_input_embeddings().weight.detach().float()
    if table.shape[1] != config.model.hidden_dim:
        raise InputError(
            f"tokens_from_encoder needs hidden_dim {table.shape[1]}, the width of the encoder's own table; "
            f"the configuration has {config.model.hidden_dim}"
        )
    pieces = tokenizer.fast.convert_ids_to_tokens(range(tokenizer.vocab_size))
    return table[encoder.tokenizer.convert_tokens_to_ids(pieces)]


def _check_vocabulary(config: Config, tokenizer: Tokenizer) -> None:
    if tokenizer.vocab_size > config.model.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, vocab_size is {config.model.vocab_size}; "
            f"set vocab_size to {tokenizer.vocab_size}"
        )
    if tokenizer.mask_token_id not in (None, config.model.mask_token_id):
        raise InputError(
            f"[MASK] is piece {tokenizer.mask_token_id} of the tokenizer, mask_token_id is "
            f"{config.model.mask_token_id}; set mask_token_id to {tokenizer.mask_token_id}"
        )


def start(config: Config, text: Path, valid: Path | None, out: Path, accelerator: Accelerator) -> None:
    """Pairs, model and run from a configuration and a corpus; then train to the end, resuming where possible."""
    if config.training is None:
        raise InputError("the configuration has no training: section; see configs/minilm.yaml")
    encoder = Encoder.load(
        config.model.encoder_model,
        device=accelerator.device,
        dtype=torch.bfloat16 if config.training.bf16 else torch.float32,
    )
    data_dir = Path(config.data.data_dir).expanduser()
    with accelerator.main_process_first():
        tokenizer = _make_tokenizer(config, encoder, text, out)
        _check_vocabulary(config, tokenizer)
        pairs = Pairs.build(data_dir / "train", text, encoder, tokenizer, config.model.max_seq_len)
        held_out = pairs
        if valid is not None:
            held_out = Pairs.build(data_dir / "valid", valid, encoder, tokenizer, config.model.max_seq_len)
    train_rows, valid_rows = _split(pairs, held_out, config)
    model = _make_model(config, encoder, tokenizer, pairs)
    run = Run(out, config, Trainer(model, config.training, accelerator), tokenizer, pairs.identity)
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


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m invlib.training", description="Train an inverter.")
    parser.add_argument("--config", type=Path, required=True, help="YAML, e.g. configs/minilm.yaml")
    parser.add_argument("--text", type=Path, required=True, help=".jsonl or .txt, plain or .gz")
    parser.add_argument("--valid", type=Path, help="held-out text; without it val_split of --text")
    parser.add_argument("--out", type=Path, help="run folder; default data/runs/<config name>")
    chosen = parser.parse_args(arguments)
    out = chosen.out or Path("data/runs") / chosen.config.stem
    try:
        start(load_config(chosen.config), chosen.text, chosen.valid, out, Accelerator())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {out / 'state.pt'}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
