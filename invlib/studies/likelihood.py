"""Likelihood: what the model gives the true tokens, one row per masked token.

Read off the same rows: what the vector brings in nats per token, and whether confidence predicts correctness
(`calibration`). This is in-filling with the true text around the masks, not inversion; only ratio 1 starts where an
inversion starts.
"""

from collections.abc import Iterator, Mapping, Sequence

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
    ratios: Sequence[float] = RATIOS,
    conditions: Sequence[str] = (CONDITIONAL,),
    batch_size: int = 64,
    generator: torch.Generator | None = None,
) -> pd.DataFrame:
    """One row per masked token: sentence, position, ratio, condition, token, log_prob, confidence, right.

    log_prob: of the true token, in nats. confidence: probability of the likeliest token; right: is it the true one?
    Of every sentence and ratio round(ratio · length) tokens are masked, at least one, at random places; all conditions
    see the same masks. conditional: the sentence's own vector; null: none; shuffled: another sentence's.

    Raises `InputError` for texts that do not fit the model, a ratio outside (0, 1], an unknown condition, and for
    "null" where the checkpoint has no null embedding.
    """
    x0, lengths = _tokens(inverter, texts)
    _check(ratios, conditions)
    modulations = dict(_modulations(inverter, texts, conditions, generator))
    parts = []
    for rows in lengths.argsort(stable=True).split(batch_size):
        own = x0[rows, : int(lengths[rows].max())]
        for ratio in ratios:
            counts = (ratio * lengths[rows]).round().long().clamp(min=1)
            xt = mask_tokens(own, lengths[rows], counts, inverter.config.mask_token_id, generator)
            at = xt != own
            row, position = at.nonzero(as_tuple=True)
            places = {"sentence": rows[row], "position": position, "ratio": ratio, "token": own[at]}
            for name, found in _judged(inverter, xt, modulations, rows, lengths[rows], own[at]):
                parts.append(pd.DataFrame({**places, "condition": name, **found}))
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
    vectors = torch.from_numpy(inverter.encoder.encode(texts)).to(inverter.model.device)
    for name in conditions:
        heard = vectors[somebody_else(len(texts), generator)] if name == SHUFFLED else vectors
        null = torch.ones(len(texts), dtype=torch.bool, device=vectors.device) if name == NULL else None
        yield name, inverter.model.modulation(heard, null)


def _judged(
    inverter: Inverter,
    xt: Int[Tensor, "batch length"],
    modulations: Mapping[str, Modulation],
    rows: Int[Tensor, "batch"],
    lengths: Int[Tensor, "batch"],
    tokens: Int[Tensor, "masked"],
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Per condition log_prob, confidence and right of the masked tokens."""
    device = inverter.model.device
    tokens = tokens.to(device)
    for name, modulation in modulations.items():
        logits, parts = inverter.model(xt.to(device), modulation.rows(rows), lengths=lengths.to(device)), []
        for some, log_probs in log_probs_by_rows(logits, inverter.config.mask_token_id):
            best, true = log_probs.max(dim=1), tokens[some]
            log_prob = log_probs.gather(1, true[:, None])[:, 0]
            parts.append(torch.stack([log_prob, best.values.exp(), (best.indices == true).float()]))
        log_prob, confidence, right = torch.cat(parts, dim=1).cpu().numpy()
        yield name, {"log_prob": log_prob, "confidence": confidence, "right": right > 0}


def _tokens(inverter: Inverter, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """x0 [n, longest] and lengths [n]."""
    ids = inverter.tokenizer.encode(texts)
    top = inverter.config.max_seq_len
    for row, own in enumerate(ids):
        if not 1 <= len(own) <= top:
            raise InputError(f"text {row} has {len(own)} tokens, the model takes 1 to {top}; leave it out")
    lengths = torch.tensor([len(own) for own in ids])
    return pad_sequence([torch.tensor(own) for own in ids], batch_first=True), lengths


def _check(ratios: Sequence[float], conditions: Sequence[str]) -> None:
    for ratio in ratios:
        if not 0 < ratio <= 1:
            raise InputError(f"a mask ratio must be above 0 and at most 1, got {ratio}")
    for name in conditions:
        if name not in CONDITIONS:
            raise InputError(f"unknown condition {name!r}; there are {', '.join(CONDITIONS)}")
