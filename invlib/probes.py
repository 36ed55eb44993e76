"""How the denoiser listens to a vector: what the modulation says, how loudly each sublayer answers, who must hear it.

Every measurement takes a `Modulation` as a value, so that a change of it (a layer that hears another sentence, a gate
at zero) is measured by the same functions. Texts are tokens [batch, length] with their lengths.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from invlib.errors import InputError
from invlib.masking import length_mask, subs_logits
from invlib.metrics import interval
from invlib.model import ConditionalMDLM, Modulation
from invlib.sampler import denoise
from invlib.trajectory import Step

PARTS = ("gate", "scale", "shift")
SUBLAYERS = ("attention", "feed-forward")
FINAL = "final norm"


@dataclass(frozen=True)
class Components:
    """Principal components of n rows, the largest first."""

    variance: Float[np.ndarray, "component"]
    scores: Float[np.ndarray, "n component"]  # where each row lies along each component

    @property
    def participation_ratio(self) -> float:
        """(Σλ)² / Σλ²: how many directions really take part; 1 for a line, k for k equal directions."""
        return float(self.variance.sum() ** 2 / (self.variance**2).sum())


# ── what the modulation says ──


def varying_share(modulation: Modulation) -> pd.DataFrame:
    """Share of the mean square that differs between the sentences of the batch, in [0, 1]; one row per layer.

    The rest is the same for every sentence: what the layer hears of no sentence in particular.
    """
    parts = {name: getattr(modulation, name) for name in PARTS}
    shares = {}
    for name, value in parts.items():
        if value is not None:
            value = value.float().transpose(0, 1).flatten(2)  # (layer, batch, sublayer · hidden)
            varying = value.var(dim=1, correction=0).sum(dim=-1)
            shares[name] = (varying / value.square().mean(dim=1).sum(dim=-1).clamp_min(1e-12)).numpy()
    return pd.DataFrame(shares).rename_axis("layer")


def stacked(modulation: Modulation) -> Float[Tensor, "batch feature"]:
    """Gate, scale and shift of all layers side by side, one row per sentence."""
    values = [getattr(modulation, name) for name in PARTS]
    return torch.cat([value.float().flatten(1) for value in values if value is not None], dim=1)


def principal_components(values: Tensor | np.ndarray) -> Components:
    """Principal components of rows [n, d], through their n × n products: d may be large, n is hundreds.

    Raises `InputError` for fewer than two rows, or rows that are all the same.
    """
    values = torch.as_tensor(values, dtype=torch.float64)
    centred = values - values.mean(dim=0)
    if len(values) < 2 or not centred.any():
        raise InputError(f"principal components need two different rows at least, got {len(values)} of one kind")
    squared, directions = torch.linalg.eigh(centred @ centred.T)
    squared, directions = squared.flip(0).clamp_min(0)[:-1], directions.flip(1)[:, :-1]  # centring costs one direction
    return Components((squared / (len(values) - 1)).numpy(), (directions * squared.sqrt()).numpy())


def interpolate(
    first: Float[np.ndarray, "embed"], second: Float[np.ndarray, "embed"], weights: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "n embed"]:
    """Unit vectors on the way from `first` (weight 0) to `second` (weight 1).

    Raises `InputError` where the two cancel out.
    """
    mixed = np.outer(1 - weights, first) + np.outer(weights, second)
    norms = np.linalg.norm(mixed, axis=1, keepdims=True)
    if not norms.all():
        raise InputError("the two vectors are opposite; halfway between them there is no direction")
    return (mixed / norms).astype(np.float32)


# ── how loudly the sublayers answer ──


@torch.inference_mode()
def effective_gain(
    model: ConditionalMDLM,
    xt: Int[Tensor, "batch length"],
    modulation: Modulation,
    lengths: Int[Tensor, "batch"],
) -> Float[Tensor, "batch layer sublayer"]:
    """RMS of what a sublayer adds to the residual stream, gate included, over the RMS of the stream it is added to.

    0: nothing is added; 1: as much as there was. RMS over the real positions and the channels.
    """
    visible = length_mask(lengths, xt.shape[1])[..., None]
    with _Sublayers(model) as seen:
        model.hidden_states(xt, modulation, lengths)
    gains = []
    for layer, (stream, attended, fed) in enumerate(seen.layers):
        gates = [1.0, 1.0] if modulation.gate is None else [g[:, None] for g in modulation.gate[:, layer].unbind(1)]
        added = [gate * written for gate, written in zip(gates, (attended.output, fed.output), strict=True)]
        # Behind its norm, a post-norm block's second stream is what the feed-forward part reads.
        streams = [stream, fed.input if model.config.post_norm else stream + added[0]]
        gains.append(torch.stack([_rms(a, visible) / _rms(s, visible) for a, s in zip(added, streams, strict=True)], 1))
    return torch.stack(gains, dim=1)


@dataclass
class _Seen:
    input: Tensor
    output: Tensor


class _Sublayers:
    """Inside `with`, what enters and leaves the sublayers of every block is kept."""

    def __init__(self, model: ConditionalMDLM):
        self.blocks, self.seen, self.handles = model.blocks, {}, []

    def __enter__(self) -> "_Sublayers":
        for module in [part for block in self.blocks for part in (block, block.attn, block.ff)]:
            self.handles.append(module.register_forward_hook(self._keep))
        return self

    def __exit__(self, *raised: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _keep(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self.seen[module] = _Seen(inputs[0], output)

    @property
    def layers(self) -> Iterator[tuple[Tensor, _Seen, _Seen]]:
        """Per layer: the stream that enters, attention, feed-forward."""
        return ((self.seen[b].input, self.seen[b.attn], self.seen[b.ff]) for b in self.blocks)


def _rms(values: Float[Tensor, "batch length hidden"], visible: Tensor) -> Float[Tensor, "batch"]:
    squares = (values.float().square() * visible).sum(dim=(1, 2))
    return (squares / (visible.sum(dim=(1, 2)) * values.shape[-1])).sqrt()


# ── which layer reads the content ──


def all_masked(model: ConditionalMDLM, lengths: Int[Tensor, "batch"]) -> Int[Tensor, "batch length"]:
    """Where every inversion starts: masks, and padding behind them."""
    return length_mask(lengths, int(lengths.max())).long() * model.config.mask_token_id


@torch.inference_mode()
def masked_log_probs(
    model: ConditionalMDLM, modulation: Modulation, lengths: Int[Tensor, "batch"]
) -> Float[Tensor, "rows vocab"]:
    """log p(token) at every position of the fully masked texts, row after row."""
    logits = model(all_masked(model, lengths), modulation, lengths=lengths)
    return subs_logits(logits.float(), model.config.mask_token_id).log_softmax(dim=-1)


def changes(modulation: Modulation, other: Modulation, average: Modulation) -> Iterator[tuple[str, str, Modulation]]:
    """(what, where, modulation): each layer and the final norm hears another sentence or the average; gates at zero."""
    layers = range(modulation.scale.shape[1])
    for what, heard in {"hears another sentence": other, "hears the average": average}.items():
        for layer in layers:
            yield what, str(layer), modulation.with_layer(layer, heard)
        yield what, FINAL, modulation.with_final(heard)
    if modulation.gate is not None:
        for sublayer, name in enumerate(SUBLAYERS):
            for layer in layers:
                yield f"{name} gate at zero", str(layer), modulation.without_gate(layer, sublayer)


def listening_effects(
    model: ConditionalMDLM,
    tokens: Int[Tensor, "batch length"],
    lengths: Int[Tensor, "batch"],
    modulation: Modulation,
    other: Modulation,
    average: Modulation,
) -> pd.DataFrame:
    """What each of the `changes` does to the true tokens of the fully masked text, one row per change.

    rise, low, high: rise of the cross-entropy in nats per token, mean over the texts with its 95 % interval
    changed: share of the positions whose likeliest token is another one
    """
    at = length_mask(lengths, tokens.shape[1])
    before = masked_log_probs(model, modulation, lengths)
    own, likeliest = _nats_per_token(before, tokens, at), before.argmax(dim=-1)
    records = []
    for what, where, changed in changes(modulation, other, average):
        after = masked_log_probs(model, changed, lengths)
        rise = (_nats_per_token(after, tokens, at) - own).numpy()
        records.append((what, where, *interval(rise), float((after.argmax(dim=-1) != likeliest).float().mean())))
    return pd.DataFrame(records, columns=["what", "where", "rise", "low", "high", "changed"])


def cross_entropy(
    model: ConditionalMDLM, tokens: Int[Tensor, "batch length"], lengths: Int[Tensor, "batch"], modulation: Modulation
) -> Float[Tensor, "batch"]:
    """-log p(true token | all masks, modulation), mean over each text's tokens, in nats."""
    log_probs = masked_log_probs(model, modulation, lengths)
    return _nats_per_token(log_probs, tokens, length_mask(lengths, tokens.shape[1]))


def _nats_per_token(log_probs: Tensor, tokens: Tensor, at: Tensor) -> Float[Tensor, "batch"]:
    told = -log_probs.gather(1, tokens[at][:, None])[:, 0]
    return torch.zeros(len(tokens)).index_add(0, at.nonzero()[:, 0], told) / at.sum(dim=1)


# ── token by token ──


def token_gradients(
    model: ConditionalMDLM, embedding: Float[Tensor, "embed"], tokens: Int[Tensor, "length"]
) -> Float[Tensor, "length embed"]:
    """∂ log p(token) / ∂ embedding at the fully masked text: where the vector must go to make a token likelier.

    One row per position, in nats per unit of the embedding; per standard deviation of each entry where the model
    standardises: some encoders have entries that never vary, and a unit of those would drown all others.
    """
    copies = (
        embedding.expand(len(tokens), -1).clone().requires_grad_()
    )  # one each: a single backward pass gives all rows
    at = torch.eye(len(tokens), dtype=torch.bool)
    masks = torch.full((len(tokens), len(tokens)), model.config.mask_token_id)
    logits = model(masks, model.modulation(copies), at=at)
    log_probs = subs_logits(logits.float(), model.config.mask_token_id).log_softmax(dim=-1)
    (gradients,) = torch.autograd.grad(log_probs.gather(1, tokens[:, None]).sum(), copies)
    return gradients * model.embedding_std if model.config.standardize else gradients


@torch.inference_mode()
def logit_lens(
    model: ConditionalMDLM, xt: Int[Tensor, "batch length"], modulation: Modulation, lengths: Int[Tensor, "batch"]
) -> Float[Tensor, "depth rows vocab"]:
    """log p(token) at the masked positions if the stream went straight to the modulated final norm after 0 … N layers.

    The logit lens (nostalgebraist 2020), through the final norm as the vector sets it; the last depth is the model.
    """
    at = xt == model.config.mask_token_id
    depths = []
    for depth in range(len(model.blocks) + 1):
        stream = model.hidden_states(xt, modulation, lengths, num_layers=depth)
        logits = model.final_states(stream, modulation, at) @ model.output_table.T
        depths.append(subs_logits(logits.float(), model.config.mask_token_id).log_softmax(dim=-1))
    return torch.stack(depths)


# ── the text itself ──


def write(
    model: ConditionalMDLM,
    modulation: Modulation,
    lengths: Int[Tensor, "batch"],
    *,
    num_steps: int = 8,
    top_k: int = 0,
) -> list[Step]:
    """The inversion that a modulation gives, however it was made: `Inverter.invert` from the modulation on."""

    def predict(xt: Tensor, rows: Tensor, at: Tensor) -> Tensor:
        return model(xt, modulation.rows(rows), lengths=lengths[rows], at=at)

    mask = model.config.mask_token_id
    return list(denoise(predict, lengths, mask_token_id=mask, num_steps=num_steps, top_k=top_k))
