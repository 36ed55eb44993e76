"""Likelihood: what the model gives the true tokens, one row per masked token.

Read off the same rows: what the vector brings in nats per token, and whether confidence predicts correctness
(`calibration`). This is in-filling with the true text around the masks, not inversion; only ratio 1 starts where an
inversion starts.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from invlib.inverter import Inverter
from invlib.masking import log_probs_by_rows, mask_tokens
from invlib.metrics import RESAMPLES
from invlib.studies.score import somebody_else

CONDITIONAL, NULL, SHUFFLED = ("conditional", "null", "shuffled")
RATIOS = tuple(eighths / 8 for eighths in range(1, 9))


@torch.inference_mode()
def masked_likelihood(
    inverter: Inverter, texts: Sequence[str], *, batch_size: int = 64, generator: torch.Generator | None = None
) -> pd.DataFrame:
    """One row per masked token: sentence, position, ratio, condition, token, log_prob, confidence, right.

    log_prob: of the true token, in nats. confidence: probability of the likeliest token; right: is it the true one?
    Of every sentence and each of RATIOS round(ratio · length) tokens are masked, at least one, at random places; all
    conditions see the same masks. conditional: the sentence's own vector; null: none; shuffled: another sentence's.

    Raises `InputError` for fewer than two texts, and for a checkpoint without a null embedding.
    """
    ids = [torch.tensor(own) for own in inverter.tokenizer.encode(texts)]
    lengths = torch.tensor([len(own) for own in ids], device=inverter.model.device)
    x0 = pad_sequence(ids, batch_first=True).to(lengths.device)
    vectors, mask = torch.from_numpy(inverter.encoder.encode(texts)).to(x0.device), inverter.config.mask_token_id
    modulations = {
        CONDITIONAL: inverter.model.modulation(vectors),
        NULL: inverter.model.modulation(vectors, torch.ones(len(texts), dtype=torch.bool, device=x0.device)),
        SHUFFLED: inverter.model.modulation(vectors[somebody_else(len(texts), generator)]),
    }
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


def nats_per_token(table: pd.DataFrame) -> pd.DataFrame:
    """Mean -log p of the masked tokens: ratio, condition, value, low, high, n (sentences); bootstrap over sentences."""
    return _tidy(_nats(table), table)


def information(table: pd.DataFrame) -> pd.DataFrame:
    """What the vector brings: nats per token without it (null), or with another's (shuffled), less those with it.

    Columns as in `nats_per_token`; `condition` names what it is compared with. Paired: the masks are the same.
    """
    nats = _nats(table)
    return _tidy(nats.drop(columns=CONDITIONAL).sub(nats[CONDITIONAL], axis=0), table)


def resampled(sums: Shaped[np.ndarray, "sentence ..."]) -> Float[np.ndarray, "sample ..."]:
    """Totals over the sentences, then over 1,000 bootstrap samples of them.

    The tokens of a sentence stay together, for they are alike.
    """
    n = len(sums)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return np.tensordot(np.vstack([np.ones(n), drawn]), sums, axes=1)


def _nats(table: pd.DataFrame) -> pd.DataFrame:
    """Nats per token, [sample · ratio, condition]; sample 0 is the table itself, the others are drawn from it."""
    cells = table.groupby(["sentence", "ratio", "condition"])["log_prob"].agg(["sum", "size"])
    ratios, conditions = (cells.index.unique(level) for level in ("ratio", "condition"))
    shape = (-1, len(ratios), len(conditions))
    total, count = (resampled(cells[name].to_numpy().reshape(shape)) for name in ("sum", "size"))
    index = pd.MultiIndex.from_product([range(len(total)), ratios], names=["sample", "ratio"])
    return pd.DataFrame((-total / count).reshape(len(index), -1), index, conditions)


def _tidy(nats: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    value, drawn = nats.loc[0], nats.drop(index=0, level="sample").groupby("ratio")
    columns = {"value": value, "low": drawn.quantile(0.025), "high": drawn.quantile(0.975)}
    tidy = pd.concat({name: own.stack() for name, own in columns.items()}, axis=1).reset_index()
    return tidy.assign(n=table["sentence"].nunique())


def _judged(
    logits: Float[Tensor, "masked vocab"], tokens: Int[Tensor, "masked"], mask_token_id: int
) -> dict[str, np.ndarray]:
    parts = []
    for some, log_probs in log_probs_by_rows(logits, mask_token_id):
        best, true = log_probs.max(dim=1), tokens[some]
        parts.append([log_probs.gather(1, true[:, None])[:, 0], best.values.exp(), best.indices == true])
    log_prob, confidence, right = (torch.cat(own).cpu().numpy() for own in zip(*parts, strict=True))
    return {"log_prob": log_prob, "confidence": confidence, "right": right}
