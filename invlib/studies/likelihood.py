"""Likelihood: what the model gives the true tokens, one row per masked token.

Read off the same rows: what the vector brings in nats per token, and whether confidence predicts correctness
(`calibration`). This is in-filling with the true text around the masks, not inversion; only ratio 1 starts where an
inversion starts.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.masking import log_probs_by_rows, mask_tokens
from invlib.metrics import RESAMPLES
from invlib.model import Modulation
from invlib.studies.controls import somebody_else

CONDITIONAL, NULL, SHUFFLED = CONDITIONS = ("conditional", "null", "shuffled")
RATIOS = tuple(eighths / 8 for eighths in range(1, 9))


@torch.inference_mode()
def masked_likelihood(
    inverter: Inverter,
    texts: Sequence[str],
    *,
    conditions: Sequence[str] = (CONDITIONAL,),
    batch_size: int = 64,
    generator: torch.Generator | None = None,
) -> pd.DataFrame:
    """One row per masked token: sentence, position, ratio, condition, token, log_prob, confidence, right.

    log_prob: of the true token, in nats. confidence: probability of the likeliest token; right: is it the true one?
    Of every sentence and each of RATIOS round(ratio · length) tokens are masked, at least one, at random places; all
    conditions see the same masks. conditional: the sentence's own vector; null: none; shuffled: another sentence's.

    Raises `InputError` for texts that do not fit the model, an unknown condition, and for "null" where the checkpoint
    has no null embedding.
    """
    x0, lengths = _tokens(inverter, texts)
    modulations, mask = dict(_modulations(inverter, texts, conditions, generator)), inverter.config.mask_token_id
    parts = []
    for rows in lengths.argsort(stable=True).split(batch_size):
        own, n = x0[rows, : int(lengths[rows].max())], lengths[rows]
        for ratio in RATIOS:
            xt = mask_tokens(own, n, (ratio * n).round().long().clamp(min=1), mask, generator)
            at = xt != own
            row, position = at.nonzero(as_tuple=True)
            places = {"sentence": rows[row].cpu(), "position": position.cpu(), "ratio": ratio, "token": own[at].cpu()}
            for name, modulation in modulations.items():
                logits = inverter.model(xt, modulation.rows(rows), lengths=n)
                parts.append(pd.DataFrame({**places, "condition": name, **_judged(logits, own[at], mask)}))
    return pd.concat(parts, ignore_index=True)


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


def _modulations(
    inverter: Inverter, texts: Sequence[str], conditions: Sequence[str], generator: torch.Generator | None
) -> Iterator[tuple[str, Modulation]]:
    """What each condition tells the layers about every text."""
    if unknown := set(conditions) - set(CONDITIONS):
        raise InputError(f"unknown condition {min(unknown)!r}; there are {', '.join(CONDITIONS)}")
    vectors = torch.from_numpy(inverter.encoder.encode(texts)).to(inverter.model.device)
    for name in conditions:
        embedding = vectors[somebody_else(len(texts), generator)] if name == SHUFFLED else vectors
        null = torch.ones(len(texts), dtype=torch.bool, device=vectors.device) if name == NULL else None
        yield name, inverter.model.modulation(embedding, null)


def _judged(
    logits: Float[Tensor, "masked vocab"], tokens: Int[Tensor, "masked"], mask_token_id: int
) -> dict[str, np.ndarray]:
    parts = []
    for some, log_probs in log_probs_by_rows(logits, mask_token_id):
        best, true = log_probs.max(dim=1), tokens[some]
        parts.append([log_probs.gather(1, true[:, None])[:, 0], best.values.exp(), best.indices == true])
    log_prob, confidence, right = (torch.cat(own).cpu().numpy() for own in zip(*parts, strict=True))
    return {"log_prob": log_prob, "confidence": confidence, "right": right}


def _tokens(inverter: Inverter, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """x0 [n, longest] and lengths [n], on the model's device."""
    ids = inverter.tokenizer.encode(texts)
    top = inverter.config.max_seq_len
    for row, own in enumerate(ids):
        if not 1 <= len(own) <= top:
            raise InputError(f"text {row} has {len(own)} tokens, the model takes 1 to {top}; leave it out")
    lengths = torch.tensor([len(own) for own in ids], device=inverter.model.device)
    return pad_sequence([torch.tensor(own) for own in ids], batch_first=True).to(lengths.device), lengths
