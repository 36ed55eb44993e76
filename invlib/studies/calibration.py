"""Calibration: does confidence predict correctness? And the one temperature that mends what can be mended.

`python -m invlib.studies.calibration --text FILE` fits a temperature on the first sentences of a held-out text, judges
it on the next ones, and writes it into the checkpoint's config.yaml if it helps.
"""

import argparse
import copy
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from invlib.checkpoint import locate, write_atomically
from invlib.config import dump_config, load_config
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.metrics import interval, token_f1
from invlib.studies.likelihood import CHUNK, RATIOS, masked_likelihood, masked_logits, resampled
from invlib.studies.score import usable
from invlib.training.pairs import read_texts
from invlib.trajectory import Trajectory

BINS = 10  # of equal width on [0, 1]
LOG_RANGE = 1.5  # temperatures are sought from e^-1.5 to e^1.5


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


def reliability(tokens: pd.DataFrame, right: str = "right", *, seed: int = 0) -> pd.DataFrame:
    """The reliability curve, one row per bin that is not empty: confidence, accuracy, low, high, share, n.

    tokens: rows with `sentence`, `confidence`, and whether each was right. Bins are of equal width; accuracy has a
    95 % interval, bootstrap over sentences.
    """
    sums = _bin_sums(tokens, right)
    count, confidence, hits = sums.sum(axis=0)
    drawn = resampled(sums, seed)
    with np.errstate(invalid="ignore"):  # a rare bin may be empty in some draws
        low, high = np.nanpercentile((drawn[:, 2] / drawn[:, 0])[:, count > 0], [2.5, 97.5], axis=0)
    count, confidence, hits = (values[count > 0] for values in (count, confidence, hits))
    columns = {"confidence": confidence / count, "accuracy": hits / count, "low": low, "high": high}
    return pd.DataFrame(columns | {"share": count / count.sum(), "n": count.astype(int)})


def expected_calibration_error(
    tokens: pd.DataFrame, right: str = "right", *, seed: int = 0
) -> tuple[float, float, float]:
    """ECE = Σ share of bin · |accuracy - confidence| (Guo et al. 2017, arXiv 1706.04599), and its 95 % interval.

    Noise cannot cancel under the absolute value: for few tokens the ECE of a perfectly calibrated model is above 0.
    """
    sums = _bin_sums(tokens, right)
    low, high = np.percentile(_ece(resampled(sums, seed)), [2.5, 97.5])
    return float(_ece(sums.sum(axis=0))), float(low), float(high)


def fit_temperature(logits: Float[Tensor, "rows vocab"], tokens: Int[Tensor, "rows"]) -> float:
    """The T that minimises the mean of -log softmax(logits / T)[token]."""

    def nats(log_temperature: float) -> float:
        chunks = zip(logits.split(CHUNK), tokens.split(CHUNK), strict=True)
        total = (F.cross_entropy(rows.float() / np.exp(log_temperature), own, reduction="sum") for rows, own in chunks)
        return float(sum(total)) / len(tokens)

    found = minimize_scalar(nats, bounds=(-LOG_RANGE, LOG_RANGE), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def temperature_of(inverter: Inverter, texts: Sequence[str], generator: torch.Generator | None = None) -> float:
    """The temperature at masked positions of `texts`, all mask ratios alike; each sentence is masked once."""
    plain, tokens, logits = with_temperature(inverter, 1.0), [], []
    for start, ratio in enumerate(RATIOS):
        for rows, own in masked_logits(plain, texts[start :: len(RATIOS)], ratios=[ratio], generator=generator):
            tokens.append(torch.tensor(rows["token"].tolist(), device=own.device))
            logits.append(own)
    return fit_temperature(torch.cat(logits), torch.cat(tokens))


def with_temperature(inverter: Inverter, temperature: float) -> Inverter:
    """The same inverter, same weights, its logits divided by `temperature`."""
    model = copy.copy(inverter.model)
    model.config = dataclasses.replace(model.config, logit_temperature=temperature)
    return Inverter(model, inverter.tokenizer, inverter.encoder)


def compare(
    before: Inverter, after: Inverter, texts: Sequence[str], *, num_steps: int = 8, seed: int = 0
) -> pd.DataFrame:
    """What the second inverter changes: one row per measure with before, after, change, low, high (95 %, paired).

    Nats per token and ECE at masked positions (all mask ratios, the same masks), ECE of the tokens of full inversions,
    and token F1.
    """
    pair, vectors = (before, after), before.encoder.encode(texts)
    masked = [masked_likelihood(one, texts, generator=torch.Generator().manual_seed(seed)) for one in pair]
    found = [one.invert(vectors, num_steps=num_steps) for one in pair]
    written = [inverted_tokens(before, texts, result.trajectories) for result in found]
    f1 = [np.array([token_f1(text, own) for text, own in zip(texts, r.texts, strict=True)]) for r in found]
    rows = {
        "nats per masked token": _change(*(_nat_sums(table) for table in masked), lambda s: s[..., 0] / s[..., 1]),
        "ECE, masked tokens": _change(*(_bin_sums(table, "right") for table in masked), _ece),
        "ECE, inverted tokens": _change(*(_bin_sums(table, "right") for table in written), _ece),
        "token F1, inverted": (f1[0].mean(), f1[1].mean(), *interval(f1[1] - f1[0])),
    }
    return pd.DataFrame(rows, ["before", "after", "change", "low", "high"]).T


def helps(comparison: pd.DataFrame) -> bool:
    """Fewer nats per masked token, beyond doubt (95 %), and a smaller calibration error there."""
    nats, ece = (comparison.loc[name] for name in ("nats per masked token", "ECE, masked tokens"))
    return bool(nats["high"] < 0 and ece["change"] < 0)


def store_temperature(folder: Path, temperature: float) -> None:
    """Write it into a checkpoint's config.yaml; the weights stay as they are."""
    config = load_config(folder / "config.yaml")
    model = dataclasses.replace(config.model, logit_temperature=round(temperature, 4))
    text = dump_config(dataclasses.replace(config, model=model))
    write_atomically(folder / "config.yaml", lambda path: Path(path).write_text(text))


def _bin_sums(tokens: pd.DataFrame, right: str) -> Float[np.ndarray, "sentence 3 bin"]:
    """Number of tokens, sum of confidences and number of right ones, per sentence and bin."""
    if tokens.empty:
        raise InputError("there is no token to judge; give at least one text")
    confidence = tokens["confidence"].to_numpy(float)
    sentences, row = np.unique(tokens["sentence"].to_numpy(), return_inverse=True)
    sums = np.zeros((len(sentences), 3, BINS))
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    for what, values in enumerate((1.0, confidence, tokens[right].to_numpy(float))):
        np.add.at(sums, (row, what, bins), values)
    return sums


def _ece(sums: Float[np.ndarray, "*draws 3 bin"]) -> np.ndarray | np.floating:
    count, confidence, hits = np.moveaxis(sums, -2, 0)
    # The bin's share times |accuracy - confidence|, multiplied out: an empty bin divides nothing.
    return np.abs(hits - confidence).sum(axis=-1) / count.sum(axis=-1)


def _nat_sums(table: pd.DataFrame) -> Float[np.ndarray, "sentence 2"]:
    sums = table.groupby("sentence")["log_prob"].agg(["sum", "size"]).to_numpy(float)
    return sums * [-1, 1]


def _change(before: np.ndarray, after: np.ndarray, statistic) -> tuple[float, float, float, float, float]:
    """A statistic of sums over sentences, before and after, and the interval of its change over the same draws."""
    values = [statistic(sums.sum(axis=0)) for sums in (before, after)]
    low, high = np.percentile(statistic(resampled(after)) - statistic(resampled(before)), [2.5, 97.5])
    return float(values[0]), float(values[1]), float(values[1] - values[0]), float(low), float(high)


def _fit_and_judge(inverter: Inverter, path: Path, limit: int, judges: int) -> tuple[list[str], list[str]]:
    """The first `limit` usable texts of a file, and the next ones."""
    texts = usable(inverter, read_texts(path))[: limit + judges]
    if min(limit, len(texts)) < len(RATIOS) or len(texts) < limit + 2:
        raise InputError(
            f"{path} has {len(texts)} sentences that fit; {limit} to fit on (at least {len(RATIOS)}) and some more to "
            "judge on are needed: choose another --limit or give more text"
        )
    return texts[:limit], texts[limit:]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m invlib.studies.calibration", description="Fit a temperature and keep it if it helps."
    )
    parser.add_argument("--text", type=Path, required=True, help="held-out .jsonl or .txt, plain or .gz; not the test")
    parser.add_argument("--checkpoint", default="minilm", help="a checkpoint folder, or the name of a bundled one")
    parser.add_argument("--limit", type=int, default=1000, help="sentences to fit on (default: 1000)")
    parser.add_argument("--judges", type=int, default=300, help="sentences to judge on, behind those (default: 300)")
    chosen = parser.parse_args(arguments)
    try:
        folder = locate(chosen.checkpoint)
        if not folder.is_dir():
            raise InputError(f"{folder} is a single file; a temperature can be stored in a checkpoint folder only")
        inverter = Inverter.load(folder)  # fp32: in bf16 the rounding of scaled states outweighs a temperature near 1
        fit_on, judges = _fit_and_judge(inverter, chosen.text, chosen.limit, chosen.judges)
        temperature = temperature_of(inverter, fit_on, torch.Generator().manual_seed(0))
        plain = with_temperature(inverter, 1.0)
        comparison = compare(plain, with_temperature(inverter, temperature), judges)
        kept = temperature if helps(comparison) else 1.0
        store_temperature(folder, kept)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(comparison.round(4).to_string())
    print(f"temperature {temperature:.4f}, fitted on {len(fit_on)} sentences, judged on the next {len(judges)}")
    print(f"it {'helps' if kept != 1 else 'does not help'}: logit_temperature {kept:.4f} written to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
