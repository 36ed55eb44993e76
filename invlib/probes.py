"""What each AdaLN layer does: what the modulation says, how loudly each sublayer answers, who must hear the vector.

Every measurement takes a `Modulation` as a value, so that a change of it is measured by the same functions.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from invlib.errors import InputError
from invlib.masking import length_mask, subs_logits
from invlib.metrics import mean_interval
from invlib.model import ConditionalMDLM, Modulation

Tokens = Int[Tensor, "batch length"]
Lengths = Int[Tensor, "batch"]
PerText = Float[Tensor, "batch"]
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


def parts(modulation: Modulation) -> dict[str, Float[Tensor, "batch layer sublayer hidden"]]:
    """Gate (where the model has gates), scale and shift of the layers by name, in single precision."""
    return {name: value.float() for name in PARTS if (value := getattr(modulation, name)) is not None}


def varying_share(modulation: Modulation) -> pd.DataFrame:
    """Share of the mean square that differs between the sentences, in [0, 1]; the rest is the same for all."""
    shares = {}
    for name, value in parts(modulation).items():
        square = value.square().mean(dim=(0, 2, 3)).clamp_min(1e-12)
        shares[name] = (value.var(dim=0, correction=0).mean(dim=(1, 2)) / square).numpy()
    return pd.DataFrame(shares).rename_axis("layer")


def stacked(modulation: Modulation) -> Float[Tensor, "batch feature"]:
    """Gate, scale and shift of all layers side by side, one row per sentence."""
    return torch.cat([value.flatten(1) for value in parts(modulation).values()], dim=1)


def principal_components(values: Tensor | np.ndarray) -> Components:
    """Principal components of rows [n, d]. Raises `InputError` for fewer than two rows, or rows all the same."""
    from sklearn.decomposition import PCA  # the rest of the probes does without it

    values = np.asarray(values, np.float64)
    if len(values) < 2 or not np.ptp(values, axis=0).any():
        raise InputError(f"principal components need two different rows at least, got {len(values)} of one kind")
    found = PCA(min(len(values) - 1, values.shape[1]), svd_solver="full")  # centring costs one direction
    scores = found.fit_transform(values)
    return Components(found.explained_variance_, scores)


# ── how loudly the sublayers answer ──


@torch.inference_mode()
def effective_gain(
    model: ConditionalMDLM, xt: Tokens, modulation: Modulation, lengths: Lengths
) -> Float[Tensor, "batch layer sublayer"]:
    """RMS of what a sublayer adds, gate included, over that of the residual stream; over the real positions."""
    entered, left = {}, {}

    def keep(module, inputs, output):
        entered[module], left[module] = inputs[0], output

    with ExitStack() as hooks:
        for module in [part for block in model.blocks for part in (block, block.attn, block.ff)]:
            hooks.enter_context(module.register_forward_hook(keep))
        model.hidden_states(xt, modulation, lengths)
    visible = length_mask(lengths, xt.shape[1])
    gates = torch.ones_like(modulation.scale) if modulation.gate is None else modulation.gate
    gains = []
    for layer, block in enumerate(model.blocks):
        attended, fed = (gates[:, layer, n, None] * left[part] for n, part in enumerate((block.attn, block.ff)))
        # Behind its norm, a post-norm block's second stream is what the feed-forward part reads.
        second = entered[block.ff] if model.config.post_norm else entered[block] + attended
        gains += [_rms(attended, visible) / _rms(entered[block], visible), _rms(fed, visible) / _rms(second, visible)]
    return torch.stack(gains, dim=1).unflatten(1, (-1, 2))


def _rms(values: Float[Tensor, "batch length hidden"], visible: Tensor) -> PerText:
    squares = values.float().square().mean(dim=2) * visible
    return (squares.sum(dim=1) / visible.sum(dim=1)).sqrt()


# ── which layer reads the content ──


def all_masked(model: ConditionalMDLM, lengths: Lengths) -> Tokens:
    """Where every inversion starts: masks, and padding behind them."""
    return length_mask(lengths, int(lengths.max())).long() * model.config.mask_token_id


def changes(modulation: Modulation, other: Modulation, average: Modulation) -> Iterator[tuple[str, str, Modulation]]:
    """(what, where, modulation): each layer and the final norm hears another sentence or the average; gates at zero."""
    layers = range(modulation.scale.shape[1])
    for what, source in {"hears another sentence": other, "hears the average": average}.items():
        for layer in layers:
            yield what, str(layer), modulation.with_layer(layer, source)
        yield what, FINAL, modulation.with_final(source)
    if modulation.gate is not None:
        for sublayer, name in enumerate(SUBLAYERS):
            for layer in layers:
                yield f"{name} gate at zero", str(layer), modulation.without_gate(layer, sublayer)


def listening_effects(
    model: ConditionalMDLM, tokens: Tokens, lengths: Lengths, modulation: Modulation, changed: Iterable
) -> pd.DataFrame:
    """What each of the `changes` does to the true tokens of the fully masked text, one row per change.

    value, low, high: rise of the cross-entropy in nats per token, mean over the texts with its 95 % interval
    changed: share of the positions whose likeliest token is another one
    """
    before = _masked_log_probs(model, modulation, lengths)
    own, likeliest = _nats_per_token(before, tokens, lengths), before.argmax(dim=-1)
    records = []
    for what, where, instead in changed:
        after = _masked_log_probs(model, instead, lengths)
        rise = _nats_per_token(after, tokens, lengths) - own
        share = float((after.argmax(dim=-1) != likeliest).float().mean())
        records.append((what, where, *mean_interval(rise.tolist()), share))
    return pd.DataFrame(records, columns=["what", "where", "value", "low", "high", "changed"])


def cross_entropy(model: ConditionalMDLM, tokens: Tokens, lengths: Lengths, modulation: Modulation) -> PerText:
    """-log p(true token | all masks, modulation), mean over each text's tokens, in nats."""
    return _nats_per_token(_masked_log_probs(model, modulation, lengths), tokens, lengths)


@torch.inference_mode()
def _masked_log_probs(model: ConditionalMDLM, modulation: Modulation, lengths: Lengths) -> Float[Tensor, "rows vocab"]:
    """log p(token) at every position of the fully masked texts, row after row."""
    return _log_probs(model, model(all_masked(model, lengths), modulation, lengths=lengths))


def _log_probs(model: ConditionalMDLM, logits: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows vocab"]:
    return subs_logits(logits.float(), model.config.mask_token_id).log_softmax(dim=-1)


def _nats_per_token(log_probs: Tensor, tokens: Tensor, lengths: Tensor) -> PerText:
    nats = F.nll_loss(log_probs, tokens[length_mask(lengths, tokens.shape[1])], reduction="none")
    return torch.stack([text.mean() for text in nats.split(lengths.tolist())])


# ── token by token ──


def token_gradients(
    model: ConditionalMDLM, embedding: Float[Tensor, "embed"], tokens: Int[Tensor, "length"]
) -> Float[Tensor, "length embed"]:
    """∂ log p(token) / ∂ embedding at the fully masked text: where the vector must go to make a token likelier.

    One row per position, in nats per unit of the embedding; per standard deviation of each entry where the model
    standardises: some encoders have entries that never vary, and a unit of those would drown all others.
    """
    # A copy for each token, so that a single backward pass gives all rows.
    copies = embedding.expand(len(tokens), -1).clone().requires_grad_()
    at = torch.eye(len(tokens), dtype=torch.bool)
    masks = torch.full((len(tokens), len(tokens)), model.config.mask_token_id)
    log_probs = _log_probs(model, model(masks, model.modulation(copies), at=at))
    (gradients,) = torch.autograd.grad(log_probs.gather(1, tokens[:, None]).sum(), copies)
    return gradients * model.embedding_std if model.config.standardize else gradients


@torch.inference_mode()
def logit_lens(
    model: ConditionalMDLM, xt: Tokens, modulation: Modulation, lengths: Lengths
) -> Float[Tensor, "depth rows vocab"]:
    """log p(token) at the masked positions if the stream went straight to the modulated final norm after 0 … N layers.

    The logit lens (nostalgebraist 2020), through the final norm as the vector sets it; the last depth is the model.
    """
    at = xt == model.config.mask_token_id
    depths = []
    for depth in range(len(model.blocks) + 1):
        stream = model.hidden_states(xt, modulation, lengths, num_layers=depth)
        depths.append(_log_probs(model, model.final_states(stream, modulation, at) @ model.output_table.T))
    return torch.stack(depths)
