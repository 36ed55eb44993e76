"""ConditionalMDLM: a masked diffusion language model that listens to a vector through AdaLN(-Zero).

The architecture of the published Qwen3 checkpoint (scale and shift only), with the gates of AdaLN-Zero (Peebles & Xie
2023), a length head, tied embeddings and a null embedding as options. Parameter names are the published ones.
There is no time input, so the modulation depends on the embedding alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from invlib.config import ModelConfig
from invlib.corrector import NOISE_RATES, Corrector, Hypothesis, Lengths, Vectors, rates_of
from invlib.errors import InputError
from invlib.masking import length_mask
from invlib.products.linear import Linear, linear

BERT_NORM_EPS = 1e-12

Condition = Float[Tensor, "batch hidden"]
Told = Float[Tensor, "batch layer sublayer hidden"]  # sublayer 0: attention, 1: feed-forward
Stream = Float[Tensor, "batch length hidden"]
Tokens = Int[Tensor, "batch length"]
Positions = Bool[Tensor, "batch length"]
Places = Int[Tensor, "rows"]  # in a flattened batch of tokens
Rows = Bool[Tensor, "batch"]
Levels = Float[Tensor, "batch"]
Logits = Float[Tensor, "rows vocab"]


@dataclass(frozen=True)
class Modulation:
    """What an embedding tells every layer; computed once per vector, reused at every step."""

    scale: Told
    shift: Told
    gate: Told | None  # None in a model without gates
    final_scale: Condition
    final_shift: Condition
    places: Stream | None = None  # what a hypothesis says at every place; None without one

    @staticmethod
    def cat(parts: Sequence["Modulation"]) -> "Modulation":
        """The batches of several modulations of one model, one after the other."""
        return parts[0]._map(lambda *values: torch.cat(values), *parts[1:])

    def rows(self, index) -> "Modulation":
        """The modulation of some rows of the batch (slice, index or boolean mask), or rows repeated."""
        return self._map(lambda value: value[index])

    def layer(self, layer: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scale, shift and gate of one layer, each [batch, sublayer, hidden]; no gate where the model has none."""
        return self.scale[:, layer], self.shift[:, layer], None if self.gate is None else self.gate[:, layer]

    def layers(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """`layer` of every layer; taken apart at once, so that their gradients are put together at once as well."""
        gates = repeat(None) if self.gate is None else self.gate.unbind(dim=1)
        return zip(self.scale.unbind(dim=1), self.shift.unbind(dim=1), gates, strict=False)

    def mean(self) -> "Modulation":
        """The average over the batch, kept as a batch of one: what the layers hear of no sentence in particular."""
        return self._map(lambda value: value.mean(dim=0, keepdim=True))

    def zeros(self) -> "Modulation":
        """Scale, shift and gate of zero everywhere."""
        return self._map(torch.zeros_like)

    def with_layer(self, layer: int, other: "Modulation") -> "Modulation":
        """This modulation, except that `layer` hears `other` (same batch size, or a batch of one)."""
        changed = self._map(torch.clone)
        for own, told in zip(changed.layer(layer), other.layer(layer), strict=True):
            if own is not None:
                own.copy_(told)
        return changed

    def with_final(self, other: "Modulation") -> "Modulation":
        """This modulation, except that the final norm hears `other` (same batch size, or a batch of one)."""
        scale, shift = other.final_scale.expand_as(self.final_scale), other.final_shift.expand_as(self.final_shift)
        return replace(self, final_scale=scale, final_shift=shift)

    def without_gate(self, layer: int, sublayer: int) -> "Modulation":
        """This modulation with one gate set to zero; raises `InputError` where the model has none."""
        if self.gate is None:
            raise InputError("this checkpoint has no gates; with_layer(…, zeros()) sets its scale and shift to zero")
        gate = self.gate.clone()
        gate[:, layer, sublayer] = 0
        return replace(self, gate=gate)

    def _map(self, function: Callable[..., Tensor], *others: "Modulation") -> "Modulation":
        values = zip(*(vars(each).values() for each in (self, *others)), strict=True)
        return Modulation(*(None if own[0] is None else function(*own) for own in values))


class AdaLN(nn.Module):
    """The projection by which a sublayer listens: hidden → scale, shift (and gate), zero-initialised."""

    def __init__(self, hidden_dim: int, parts: int):
        super().__init__()
        self.proj = Linear(hidden_dim, parts * hidden_dim)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, condition: Condition) -> tuple[Tensor, ...]:
        return self.proj(condition).split(condition.shape[-1], dim=-1)


class Attention(nn.MultiheadAttention):
    """Torch's parameters; written as matmul, softmax, matmul: the fused kernel is slow to train on CPU at 32 tokens."""

    def forward(self, x: Stream, visible: Positions | None) -> Stream:
        qkv = linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (batch, heads, length, head)
        scores = (q * (q.shape[-1] ** -0.5)) @ k.transpose(-2, -1)
        if visible is not None:
            scores = scores.masked_fill(~visible[:, None, None, :], -torch.inf)
        weights = F.dropout(scores.softmax(dim=-1), self.dropout, self.training)
        return linear((weights @ v).transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)


class Block(nn.Module):
    """x += gate · attn(adaln1(x)); x += gate · ff(adaln2(x)), with gate = 1 where the model has none.

    With `post_norm` it is BERT's block with its own affine norms, x = adaln1(norm1(x + gate · attn(x))) and so on,
    where adaln(x) = x · (1 + scale) + shift: pretrained layers fit in and compute what they did.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        hidden, parts = config.hidden_dim, 3 if config.gate else 2
        self.adaln1 = AdaLN(hidden, parts)
        self.attn = Attention(hidden, config.num_heads, config.dropout)
        self.adaln2 = AdaLN(hidden, parts)
        widen, narrow = Linear(hidden, config.ff_dim), Linear(config.ff_dim, hidden)
        self.ff = nn.Sequential(widen, nn.GELU(), nn.Dropout(config.dropout), narrow)
        self.post_norm = config.post_norm
        if config.post_norm:
            self.norm1 = nn.LayerNorm(hidden, eps=BERT_NORM_EPS)
            self.norm2 = nn.LayerNorm(hidden, eps=BERT_NORM_EPS)
            for adaln in (self.adaln1, self.adaln2):
                nn.init.ones_(adaln.proj.bias[2 * hidden :])  # behind scale and shift: the gate, if any

    def forward(self, x: Stream, told: tuple[Tensor, Tensor, Tensor | None], visible: Positions | None) -> Stream:
        """told: scale, shift and gate of this layer, see `Modulation.layer`."""
        for sublayer in (0, 1):
            scale, shift, gate = (None if part is None else part[:, sublayer, None] for part in told)
            heard = x if self.post_norm else modulated_norm(x, scale, shift)
            change = self.ff(heard) if sublayer else self.attn(heard, visible)
            x = x + change if gate is None else torch.addcmul(x, gate, change)
            if self.post_norm:
                x = torch.addcmul(shift, (self.norm2 if sublayer else self.norm1)(x), 1 + scale)
        return x


class ConditionalMDLM(nn.Module):
    """logits = model(xt, model.modulation(embedding)): one row of logits per masked position."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        hidden = config.hidden_dim
        self.token_embed = nn.Embedding.from_pretrained(_drawn(config.vocab_size, hidden), freeze=False)
        self.pos_embed = nn.Embedding.from_pretrained(_drawn(config.max_seq_len, hidden), freeze=False)
        self.cond_proj = _feed_forward(config.embedding_cond_dim, hidden, hidden)
        if config.post_norm:
            self.embed_norm = nn.LayerNorm(hidden, eps=BERT_NORM_EPS)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = AdaLN(hidden, parts=2)
        if not config.tie_embeddings:
            self.output_proj = Linear(hidden, config.vocab_size, bias=False)
            self.output_proj.weight = nn.Parameter(_drawn(config.vocab_size, hidden))
        if config.length_head:
            inputs = config.embedding_cond_dim + len(NOISE_RATES) * config.noise_condition
            widths = (inputs, config.length_dim, config.length_dim) if config.length_dim else (hidden, hidden)
            self.length_head = _feed_forward(*widths, config.max_seq_len)
        if config.noise_condition:
            self.noise_proj = Linear(len(NOISE_RATES), hidden, bias=False)
            nn.init.zeros_(self.noise_proj.weight)
        if config.corrector_dim:
            self.corrector = Corrector(config)
        if config.null_embedding:
            self.null_embedding = nn.Parameter(torch.zeros(config.embedding_cond_dim))
        if config.standardize:
            self.register_buffer("embedding_mean", torch.zeros(config.embedding_cond_dim))
            self.register_buffer("embedding_std", torch.ones(config.embedding_cond_dim))

    @property
    def device(self) -> torch.device:
        return self.token_embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.token_embed.weight.dtype

    @property
    def precision(self) -> str:
        """Of its products: of its weights, such as "bfloat16", or "int8" (`invlib.products.int8`)."""
        weight = self.blocks[0].ff[0].weight
        return str(weight.dtype).removeprefix("torch.") if isinstance(weight, Tensor) else "int8"

    def condition(
        self,
        embedding: Vectors,
        null: Rows | None = None,
        noise_level: Levels | None = None,
        hypothesis: Hypothesis | None = None,
    ) -> Condition:
        """The projected embedding; rows marked in `null` get the learned null embedding instead.

        noise_level: σ√d, the length of the Gaussian noise in a vector beside its own length of 1 (before the sum was
          brought back to unit length). Zero, and None, say that the vectors are clean.
        hypothesis: the last try at the texts, which a corrector hears too.

        Raises `InputError` for a wrong dimension, or for what the model was trained without.
        """
        standard = self._standardized(embedding)
        if null is not None:
            if not self.config.null_embedding:
                raise InputError("this checkpoint has no null embedding, so it has no unconditional prior")
            standard = torch.where(null[:, None], self.null_embedding, standard)
        x = self.cond_proj[0](standard)
        if noise_level is not None:
            features = self._noise_features(noise_level)  # before the projection, which not every model has
            x = x + self.noise_proj(features)
        x = self.cond_proj[1:](x)
        if hypothesis is not None:
            heard = self._corrections(embedding, hypothesis)  # before the projection, which not every model has
            x = x + self.corrector.to_condition(heard)
        return x

    def _corrections(self, embedding: Vectors, hypothesis: Hypothesis) -> Float[Tensor, "batch corrector"]:
        if not self.config.corrector_dim:
            raise InputError("this checkpoint has no corrector, it hears no hypothesis; omit it")
        residual = embedding.float() - hypothesis.vectors.float()
        return self.corrector(residual, self._standardized(hypothesis.vectors), hypothesis.lengths)

    def _standardized(self, embedding: Vectors) -> Vectors:
        config, found = self.config, embedding.shape[-1]
        if found != config.embedding_cond_dim:
            wanted = f"{config.embedding_cond_dim}-dimensional vectors of {config.encoder_model!r}"
            raise InputError(f"the vectors have {found} dimensions, this checkpoint inverts {wanted}")
        if config.standardize:
            # Before the cast: a unit vector's entries are about 1/√d, their spread smaller still.
            embedding = (embedding.float() - self.embedding_mean) / self.embedding_std
        return embedding.to(self.dtype)

    def _noise_features(self, noise_level: Levels) -> Float[Tensor, "batch rate"]:
        """1 - exp(-rate · level): all zero at level 0, so that the condition says nothing of a clean vector."""
        if not self.config.noise_condition:
            raise InputError("this checkpoint has no noise condition, it takes vectors for clean; omit noise_level")
        return rates_of(noise_level).to(self.dtype)

    def modulation(
        self,
        embedding: Vectors,
        null: Rows | None = None,
        noise_level: Levels | None = None,
        hypothesis: Hypothesis | None = None,
    ) -> Modulation:
        """What `embedding` tells every layer, see `condition`. Compute it once, pass it to every step."""
        condition = self.condition(embedding, null, noise_level, hypothesis)
        layers = (zip(block.adaln1(condition), block.adaln2(condition), strict=True) for block in self.blocks)
        kinds = zip(*layers, strict=True)  # scale, shift (and gate): of every layer, of both sublayers
        scale, shift, *gate = (torch.stack([torch.stack(both, dim=1) for both in kind], dim=1) for kind in kinds)
        places = None if hypothesis is None else self._said_at_places(hypothesis)
        return Modulation(scale, shift, *(gate or [None]), *self.final_norm(condition), places)

    def _said_at_places(self, hypothesis: Hypothesis) -> Stream:
        inside = length_mask(hypothesis.lengths, hypothesis.tokens.shape[1])
        return self.corrector.to_places(self.token_embed(hypothesis.tokens) * inside[..., None])

    def length_logits(
        self, embedding: Vectors, noise_level: Levels | None = None, hypothesis: Hypothesis | None = None
    ) -> Float[Tensor, "batch length"]:
        """Logits of the number of tokens; column l stands for a length of l + 1."""
        if self.config.length_dim:
            inputs = self._standardized(embedding)
            if self.config.noise_condition:
                noise_level = embedding.new_zeros(len(embedding)) if noise_level is None else noise_level
                inputs = torch.cat([inputs, self._noise_features(noise_level)], dim=1)
        else:
            inputs = self.condition(embedding, noise_level=noise_level)
        x = self.length_head[0](inputs)
        if hypothesis is not None:
            heard = self._corrections(embedding, hypothesis)
            x = x + self.corrector.to_length(heard)
        return self.length_head[1:](x)

    def predicted_lengths(self, embedding: Vectors, noise_level: Levels | None = None) -> Lengths:
        """The number of tokens to decode: the median, which has the least expected distance to the true one.

        Neighbouring lengths share their probability, so that the likeliest one alone is further off on average.
        """
        log_probs = self.length_logits(embedding, noise_level).float().log_softmax(dim=1)
        return (log_probs.exp().cumsum(dim=1) < 0.5).sum(dim=1).clamp(max=log_probs.shape[1] - 1) + 1

    def forward(
        self, xt: Tokens, modulation: Modulation, *, lengths: Lengths | None = None, at: Positions | None = None
    ) -> Logits:
        """Logits at the masked positions of xt (or where `at` says), in row-major order.

        lengths: number of real tokens per row; the padding behind them is hidden from attention.
        The logits are raw: that [MASK] is never predicted is the sampler's and the loss's business.
        """
        at = xt == self.config.mask_token_id if at is None else at
        x = self.hidden_states(xt, modulation, lengths)
        return linear(self.final_states(x, modulation, at), self.output_table)

    def predictor(self, modulation: Modulation, lengths: Lengths) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """What `sampler.denoise` asks: (xt of some rows of the batch, which rows, at which positions) → logits."""
        return lambda xt, rows, at: self(xt, modulation.rows(rows), lengths=lengths[rows], at=at)

    def hidden_states(
        self, xt: Tokens, modulation: Modulation, lengths: Lengths | None = None, *, num_layers: int | None = None
    ) -> Stream:
        """The residual stream after `num_layers` blocks (all of them by default)."""
        visible = None if lengths is None else length_mask(lengths, xt.shape[1])
        x = self.token_embed(xt) + self.pos_embed.weight[: xt.shape[1]]
        if modulation.places is not None:
            x = x + modulation.places[:, : xt.shape[1]]
        if self.config.post_norm:
            x = self.embed_norm(x)
        for block, told in zip(self.blocks[:num_layers], modulation.layers(), strict=False):
            x = block(x, told, visible)
        return x

    def final_states(self, x: Stream, modulation: Modulation, at: Positions | Places) -> Float[Tensor, "rows hidden"]:
        """The final modulated norm at the chosen positions, over the logit temperature, in training as in inference."""
        places = at.flatten().nonzero()[:, 0] if at.dtype == torch.bool else at
        told = (part.index_select(0, places // x.shape[1]) for part in (modulation.final_scale, modulation.final_shift))
        states = modulated_norm(x.flatten(0, 1).index_select(0, places), *told)
        return states if self.config.logit_temperature == 1 else states / self.config.logit_temperature

    @property
    def output_table(self) -> Any:
        """Rows of the output projection [vocab, hidden]: one per token; a tensor, or an `Int8`."""
        return self.token_embed.weight if self.config.tie_embeddings else self.output_proj.weight


def _drawn(rows: int, width: int) -> Float[Tensor, "rows width"]:
    """N(0, 0.02²); left undrawn on the meta device, where torch would import its compiler for it (a second)."""
    table = torch.empty(rows, width)
    return table if table.is_meta else nn.init.normal_(table, std=0.02)


def _feed_forward(*widths: int) -> nn.Sequential:
    layers = [layer for sizes in pairwise(widths) for layer in (Linear(*sizes), nn.GELU())]
    return nn.Sequential(*layers[:-1])


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LN(x) · (1 + scale) + shift, with a LayerNorm that has no parameters of its own."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)
