"""Trainer: weights, optimiser and average (EMA) of one run, and one optimiser step."""

import copy
import functools
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatchcase as fnmatch

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from invlib.config import TrainingConfig
from invlib.errors import InputError
from invlib.model import ConditionalMDLM
from invlib.training.batches import Batch
from invlib.training.compute import FlopMeter
from invlib.training.losses import diffusion_loss, softmax_loss

LENGTH_WEIGHT = 0.1  # the length head learns quickly; it must not outweigh the text


class Trainer:
    """Weights, optimiser and EMA of one run. Masters and EMA are fp32; forward and backward run in `worker`.

    `worker` is the model itself in fp32, or a bf16 copy of it: autocast would cast every weight anew at every use.
    """

    def __init__(self, model: ConditionalMDLM, config: TrainingConfig, accelerator: Accelerator):
        self.config, self.accelerator = config, accelerator
        self.model = model.to(accelerator.device)
        for name, weight in self.model.named_parameters():
            weight.requires_grad_(fnmatch(name, config.trained))
        self.worker = copy.deepcopy(self.model).to(torch.bfloat16) if config.bf16 else self.model
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        trained = [name for name, weight in self.model.named_parameters() if weight.requires_grad]
        if not trained:
            raise InputError(f"no weight has a name like {config.trained!r}, so nothing would be trained")
        self.trains_text = not all(name.startswith("length_head.") for name in trained)
        self.masters, self._workers, self._averages = (
            [copied.get_parameter(name) for name in trained] for copied in (self.model, self.worker, self.ema)
        )
        self.optimizers = _optimizers(self.model, config)
        self._softmax = softmax_loss
        self.step = 0
        self.flops, self._meter = 0, FlopMeter()  # matrix products of this process, of this leg
        self.compiling = 0.0  # seconds

    def compile(self, batch: Batch, backend: str | Callable = "inductor") -> None:
        """Let torch compile the blocks; where that fails on this batch, say why and go on without."""
        started = time.perf_counter()
        for block in self.worker.blocks:
            block.compile(dynamic=True, backend=backend)  # one compilation for every length
        self._softmax = torch.compile(softmax_loss, dynamic=True, backend=backend)
        try:
            self._backward(batch)
        except Exception as error:  # what a compiler and its compilers raise
            print(f"the blocks are not compiled: {' '.join(str(error).split())[:160]}", file=sys.stderr)
            for block in self.worker.blocks:
                block._compiled_call_impl = None
            self._softmax = softmax_loss
        self.worker.zero_grad(set_to_none=True)
        self.compiling = time.perf_counter() - started

    def update(self, batches: list[Batch], passed: float | None = None) -> Float[Tensor, "2"]:
        """One optimiser step over `grad_accum` micro-batches; returns the loss and the length loss, in nats.

        They lie on the device: who reads them waits for it. passed: see `learning_rate_factor`.
        """
        config, losses = self.config, torch.zeros(2, device=self.accelerator.device)
        lr_factor = learning_rate_factor(self.step, config, passed)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * lr_factor
        for batch in batches:
            rows, length = batch.x0.shape
            kind = (length, rows > 0, batch.hypothesis is None)  # an empty share costs nothing
            found, flops = self._meter(kind, functools.partial(self._backward, batch), max(1, rows))
            losses += found / len(batches)
            self.flops += flops
        self._collect_gradients(len(batches))
        nn.utils.clip_grad_norm_(self.masters, config.max_grad_norm)
        self.flops += self._meter("optimizers", self._step_optimizers)[1]
        self.step += 1
        self._publish()
        return self.accelerator.reduce(losses, "sum")

    def _step_optimizers(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _backward(self, batch: Batch) -> Tensor:
        """Gradients of this process's share of the micro-batch; an empty share contributes nothing."""
        if len(batch.x0) == 0:
            return torch.zeros(2, device=self.accelerator.device)
        loss, length_loss = self._diffusion_loss(batch), self._length_loss(batch)
        share = len(batch.x0) / batch.size
        ((loss + LENGTH_WEIGHT * length_loss) * share).backward()
        return torch.stack([loss, length_loss]).detach() * share

    def _diffusion_loss(self, batch: Batch) -> Tensor:
        if not self.trains_text:
            return torch.zeros((), device=batch.x0.device)
        model = self.worker
        places = batch.places
        if places is None:
            places = (batch.xt == model.config.mask_token_id).flatten().nonzero()[:, 0]
        dropped = batch.dropped if model.config.null_embedding else None
        with torch.random.fork_rng(devices=[]):  # dropout depends on the step alone
            torch.manual_seed(self.config.seed * 1_000_003 + self.step)
            modulation = model.modulation(batch.embedding, dropped, batch.noise_level, batch.hypothesis)
            x = model.hidden_states(batch.xt, modulation)
        return diffusion_loss(
            model.final_states(x, modulation, places),
            model.output_table,
            batch.x0,
            places,
            mask_token_id=model.config.mask_token_id,
            weighting=self.config.weighting,
            softmax=self._softmax,
        )

    def _length_loss(self, batch: Batch) -> Tensor:
        if not self.worker.config.length_head:
            return torch.zeros((), device=batch.x0.device)
        told = batch.any_embedding, batch.any_noise_level, batch.any_hypothesis
        return F.cross_entropy(self.worker.length_logits(*told).float(), batch.any_length - 1)

    def _collect_gradients(self, num_batches: int) -> None:
        """Worker gradients → fp32 gradients of the masters, averaged over micro-batches, summed over processes."""
        found = [torch.zeros_like(own) if own.grad is None else own.grad for own in self._workers]
        if self.accelerator.num_processes > 1:
            found = [self.accelerator.reduce(gradient.float(), "sum") for gradient in found]
        for master, weight in zip(self.masters, self._workers, strict=True):
            weight.grad, master.grad = None, torch.empty_like(master)
        gradients = [master.grad for master in self.masters]
        torch._foreach_copy_(gradients, found)
        torch._foreach_div_(gradients, num_batches)

    @torch.no_grad()
    def _publish(self) -> None:
        """Masters → worker copy and EMA (decay warmed up as in MDLM: min(decay, (1 + n) / (10 + n)))."""
        if self.worker is not self.model:
            torch._foreach_copy_(self._workers, self.masters)
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self._averages, self.masters, 1 - decay)

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


def learning_rate_factor(step: int, config: TrainingConfig, passed: float | None = None) -> float:
    """Linear warm-up, constant, then linear decay to min_lr_ratio over the last `decay_share` of the steps.

    passed: of a training that ends with its time, the share of it that is over; the decay then goes by it.
    """
    warm_up = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay_steps = max(1, round(config.decay_share * config.max_steps))
    progress = (step + 1 - (config.max_steps - decay_steps)) / decay_steps
    if passed is not None:
        progress = (passed - (1 - config.decay_share)) / max(config.decay_share, 1e-9)
    return warm_up * (1 - (1 - config.min_lr_ratio) * min(1.0, max(0.0, progress)))


def _optimizers(model: ConditionalMDLM, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW on everything, or Muon on the hidden matrices and AdamW on embeddings, modulation and biases."""
    by_muon = _hidden_matrices(model) if config.optimizer == "muon" else []
    taken = {id(weight) for weight in by_muon}
    rest = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in taken]
    groups = [
        {"params": [w for w in rest if w.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in rest if w.ndim < 2], "weight_decay": 0.0},
    ]
    adam_lr = config.lr if config.adam_lr is None else config.adam_lr
    optimizers = [torch.optim.AdamW(groups, lr=adam_lr, betas=(0.9, 0.98), fused=True)]
    if by_muon:
        # Update size matched to AdamW's (Liu et al. 2025, arXiv 2502.16982), so that one learning rate serves both.
        shared = {"lr": config.lr, "weight_decay": config.weight_decay}
        optimizers.append(torch.optim.Muon(by_muon, **shared, adjust_lr_fn="match_rms_adamw"))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _hidden_matrices(model: ConditionalMDLM) -> list[nn.Parameter]:
    parts = [part for block in model.blocks for part in (block.attn, block.ff)]
    return [weight for part in parts for weight in part.parameters() if weight.ndim == 2 and weight.requires_grad]
