"""Likelihood: what the model gives the true tokens, one row per masked token.

Read off the same rows: what the vector brings in nats per token, and whether confidence predicts correctness
(`calibration`). This is in-filling with the true text around the masks, not inversion; only ratio 1 starts where an
inversion starts.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.masking import mask_tokens, subs_logits
from invlib.metrics import RESAMPLES
from invlib.model import Modulation

CONDITIONAL, NULL, SHUFFLED = CONDITIONS = ("conditional", "null", "shuffled")
RATIOS = tuple(eighths / 8 for eighths in range(1, 9))
CHUNK = 128  # rows of logits that stay in the cache


def masked_likelihood(inverter: Inverter, texts: Sequence[str], **options) -> pd.DataFrame:
    """One row per masked token: sentence, position, ratio, condition, token, log_prob, confidence, right.

    log_prob: of the true token, in nats. confidence: probability of the likeliest token; right: is it the true one?
    Options are those of `masked_logits`.
    """
    parts = [_judged(rows, logits) for rows, logits in masked_logits(inverter, texts, **options)]
    return pd.concat(parts, ignore_index=True)


@torch.inference_mode()
def masked_logits(
    inverter: Inverter,
    texts: Sequence[str],
    *,
    ratios: Sequence[float] = RATIOS,
    conditions: Sequence[str] = (CONDITIONAL,),
    batch_size: int = 64,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[pd.DataFrame, Tensor]]:
    """Rows (sentence, position, ratio, condition, token) with their logits [rows, vocab], batch by batch.

    Of every sentence and ratio round(ratio · length) tokens are masked, at least one, at random places; all conditions
    see the same masks. conditional: the sentence's own vector; null: none; shuffled: another sentence's.

    Raises `InputError` for texts that do not fit the model, a ratio outside (0, 1], an unknown condition, and for
    "null" where the checkpoint has no null embedding.
    """
    x0, lengths = _tokens(inverter, texts)
    _check(ratios, conditions, len(texts))
    embedding = torch.from_numpy(inverter.encoder.encode(texts)).to(inverter.model.device)
    order = torch.randperm(len(texts), generator=generator)
    other = torch.empty_like(order)
    other[order] = order.roll(1)  # a cyclic shift of a random order: nobody keeps the own vector
    for rows in lengths.argsort(stable=True).split(batch_size):
        top = int(lengths[rows].max())
        x0_rows, lengths_rows = x0[rows, :top], lengths[rows]
        heard = {name: _modulation(inverter, embedding, rows, other, name) for name in conditions}
        for ratio in ratios:
            counts = (ratio * lengths_rows).round().long().clamp(min=1)
            xt = mask_tokens(x0_rows, lengths_rows, counts, inverter.config.mask_token_id, generator)
            at = xt != x0_rows
            row, position = at.nonzero(as_tuple=True)
            places = {"sentence": rows[row], "position": position, "ratio": ratio, "token": x0_rows[at]}
            for name, modulation in heard.items():
                device = inverter.model.device
                logits = inverter.model(xt.to(device), modulation, lengths=lengths_rows.to(device))
                yield pd.DataFrame(places).assign(condition=name), subs_logits(logits, inverter.config.mask_token_id)


def nats_per_token(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Mean -log p of the masked tokens: ratio, condition, value, low, high, n (sentences); bootstrap over sentences."""
    value, drawn = _nats(table, seed)
    return _tidy(value, drawn, table)


def information(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """What the vector brings: nats per token without it (null), or with another's (shuffled), less those with it.

    Columns as in `nats_per_token`; `condition` names what it is compared with. Paired: the masks are the same.
    """
    value, drawn = _nats(table, seed)
    others = [name for name in value.columns if name != CONDITIONAL]
    gain = value[others].sub(value[CONDITIONAL], axis=0)
    at = [value.columns.get_loc(name) for name in others]
    return _tidy(gain, drawn[..., at] - drawn[..., [value.columns.get_loc(CONDITIONAL)]], table)


def resampled(sums: Shaped[np.ndarray, "sentence ..."], seed: int = 0) -> Float[np.ndarray, "draw ..."]:
    """Totals over 1,000 bootstrap samples of sentences: the tokens of a sentence stay together, for they are alike."""
    n = len(sums)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return np.tensordot(weights.astype(float), sums, axes=1)


def _nats(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, Float[np.ndarray, "draw ratio condition"]]:
    """Nats per token, [ratio, condition], and the same of every bootstrap sample."""
    cells = table.groupby(["sentence", "ratio", "condition"], sort=True)["log_prob"].agg(["sum", "size"])
    ratios, conditions = (cells.index.unique(level) for level in ("ratio", "condition"))
    shape = (-1, len(ratios), len(conditions))
    total, count = (cells[name].to_numpy().reshape(shape) for name in ("sum", "size"))
    value = pd.DataFrame(-total.sum(axis=0) / count.sum(axis=0), ratios, conditions)
    return value, -resampled(total, seed) / resampled(count, seed)


def _tidy(value: pd.DataFrame, drawn: Float[np.ndarray, "draw ratio condition"], table: pd.DataFrame) -> pd.DataFrame:
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    tidy = value.stack().rename("value").reset_index()
    return tidy.assign(low=low.ravel(), high=high.ravel(), n=table["sentence"].nunique())


def _judged(rows: pd.DataFrame, logits: Float[Tensor, "rows vocab"]) -> pd.DataFrame:
    tokens = torch.tensor(rows["token"].tolist(), device=logits.device)
    parts = []
    for own, token in zip(logits.split(CHUNK), tokens.split(CHUNK), strict=True):
        own = own.float()
        log_sum, best = own.logsumexp(dim=1), own.max(dim=1)
        log_prob = own.gather(1, token[:, None])[:, 0] - log_sum
        parts.append(torch.stack([log_prob, (best.values - log_sum).exp(), (best.indices == token).float()]))
    log_prob, confidence, right = torch.cat(parts, dim=1).cpu().numpy()
    return rows.assign(log_prob=log_prob, confidence=confidence, right=right > 0)


def _modulation(inverter: Inverter, embedding: Tensor, rows: Tensor, other: Tensor, condition: str) -> Modulation:
    if condition == SHUFFLED:
        return inverter.model.modulation(embedding[other[rows]])
    null = torch.ones(len(rows), dtype=torch.bool, device=embedding.device) if condition == NULL else None
    return inverter.model.modulation(embedding[rows], null)


def _tokens(inverter: Inverter, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """x0 [n, longest] and lengths [n]."""
    ids = inverter.tokenizer.encode(texts)
    top = inverter.config.max_seq_len
    for row, own in enumerate(ids):
        if not 1 <= len(own) <= top:
            raise InputError(f"text {row} has {len(own)} tokens, the model takes 1 to {top}; see studies.usable")
    lengths = torch.tensor([len(own) for own in ids])
    return pad_sequence([torch.tensor(own) for own in ids], batch_first=True), lengths


def _check(ratios: Sequence[float], conditions: Sequence[str], count: int) -> None:
    for ratio in ratios:
        if not 0 < ratio <= 1:
            raise InputError(f"a mask ratio must be above 0 and at most 1, got {ratio}")
    for name in conditions:
        if name not in CONDITIONS:
            raise InputError(f"unknown condition {name!r}; there are {', '.join(CONDITIONS)}")
    if SHUFFLED in conditions and count < 2:
        raise InputError("shuffled vectors need at least two texts")
