"""Calibration: does confidence predict correctness? Of masked tokens (`likelihood`) and of full inversions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.studies.likelihood import resampled
from invlib.trajectory import Trajectory

BINS = 10  # of equal width on [0, 1]


def inverted_tokens(inverter: Inverter, texts: Sequence[str], trajectories: Sequence[Trajectory]) -> pd.DataFrame:
    """One row per token of full inversions of `texts`: sentence, position, confidence, right, in_sentence.

    confidence: probability of the token when it was uncovered. right: the true token of this position; a token behind
    the end of the true sentence is wrong. in_sentence: the true sentence has it anywhere.
    """
    rows = []
    for sentence, (true, found) in enumerate(zip(inverter.tokenizer.encode(texts), trajectories, strict=True)):
        for position, (token, confidence) in enumerate(zip(found.tokens[-1], found.confidence[-1], strict=True)):
            right = position < len(true) and int(token) == true[position]
            rows.append((sentence, position, float(confidence), right, int(token) in true))
    return pd.DataFrame(rows, columns=["sentence", "position", "confidence", "right", "in_sentence"])


def reliability(tokens: pd.DataFrame, right: str = "right") -> pd.DataFrame:
    """The reliability curve, one row per bin that is not empty: confidence, accuracy, low, high, share, n.

    tokens: rows with `sentence`, `confidence`, and whether each was right. Bins are of equal width; accuracy has a
    95 % interval, bootstrap over sentences.
    """
    drawn = resampled(_bin_sums(tokens, right))
    count, confidence, hits = drawn[0]
    with np.errstate(invalid="ignore"):  # a rare bin may be empty in some draws
        low, high = np.nanpercentile(drawn[1:, 2] / drawn[1:, 0], [2.5, 97.5], axis=0)
    columns = {"confidence": confidence / count, "accuracy": hits / count, "low": low, "high": high}
    return pd.DataFrame(columns | {"share": count / count.sum(), "n": count.astype(int)})


def expected_calibration_error(tokens: pd.DataFrame, right: str = "right") -> tuple[float, float, float]:
    """ECE = Σ share of bin · |accuracy - confidence| (Guo et al. 2017, arXiv 1706.04599), and its 95 % interval.

    Noise cannot cancel under the absolute value: for few tokens the ECE of a perfectly calibrated model is above 0.
    """
    count, confidence, hits = np.moveaxis(resampled(_bin_sums(tokens, right)), 1, 0)
    # The bin's share times |accuracy - confidence|, multiplied out: an empty bin divides nothing.
    error = np.abs(hits - confidence).sum(axis=1) / count.sum(axis=1)
    low, high = np.percentile(error[1:], [2.5, 97.5])
    return float(error[0]), float(low), float(high)


def _bin_sums(tokens: pd.DataFrame, right: str) -> Float[np.ndarray, "sentence 3 bin"]:
    """Number of tokens, sum of confidences and number of right ones, per sentence and bin that holds a token."""
    if tokens.empty:
        raise InputError("there is no token to judge; give at least one text")
    place = (tokens["confidence"] * BINS).astype(int).clip(upper=BINS - 1)
    values = pd.DataFrame({"count": 1.0, "confidence": tokens["confidence"], "hits": tokens[right].astype(float)})
    sums = values.groupby([tokens["sentence"], place.rename("bin")]).sum().unstack(fill_value=0.0)
    return sums.to_numpy().reshape(len(sums), 3, -1)
