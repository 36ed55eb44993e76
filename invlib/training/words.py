"""`python -m invlib.training words --text FILE`: fit the linear map from a vector to the words of its text."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from tqdm.auto import tqdm

from invlib.door.options import Parser
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.training.pairs import Corpus, read_corpus
from invlib.words import WordMap

RANK = 256
FEWEST = 20  # texts in which a piece of the map stands
BATCH, RATE, EPOCHS, STEPS = 2048, 4e-3, 2, 200  # so many steps at least
SHARE = 0.05  # of the texts' number, in chunks beside them
LONGEST = 25  # sentences of a chunk
FLAT = 1e-4  # of the largest variance: a direction of less is one that the encoder does not use
MOST, FAINT = 2000, -7.0  # words on which chances are calibrated; log-odds from which on they are
NAME = 0.7  # share of its uses inside of sentences with a capital, from which on a word is a name
READ = 8192  # texts that are read at once
_INSIDE = re.compile(r"(?<=[a-z,] )[^\W\d_]+")


def main(arguments: Sequence[str]) -> None:
    """The command line: a map into OUT, calibrated on texts and chunks that the fit has not seen."""
    parser = Parser(prog="python -m invlib.training words", description=__doc__.partition(": ")[2])
    parser.add_argument("--text", type=Path, required=True, nargs="+", help=".jsonl or .txt, plain or .gz")
    parser.add_argument("--valid", type=Path, required=True, nargs="+", help="held-out text")
    parser.add_argument("--encoder", default="minilm", help="'minilm', a folder, or a hub name")
    parser.add_argument("--out", type=Path, required=True, help="folder of the map")
    chosen = parser.parse_args(arguments)
    encoder, random = Encoder.load(chosen.encoder, dtype=torch.bfloat16), np.random.default_rng(0)
    corpora = map(joined, (chosen.text, chosen.valid))
    texts, held_out = ([*own.texts, *chunks(own, round(SHARE * len(own.texts)), random)] for own in corpora)
    found = fit(encoder.encode(texts, progress=True), bags(texts, encoder), names(texts), encoder)
    found = calibrated(found, encoder.encode(held_out), bags(held_out, encoder), held_out)
    found.save(chosen.out)
    print(f"{len(found.ids):,} pieces of {len(texts):,} texts and chunks; in {chosen.out}")
    print(*(f"{name}: {value}" for name, value in found.about.items()), sep="\n")


def joined(paths: Sequence[Path]) -> Corpus:
    """Several corpora as one."""
    read = [read_corpus(path) for path in paths]
    return Corpus([text for own in read for text in own.texts], [source for own in read for source in own.sources])


def chunks(corpus: Corpus, count: int, random: np.random.Generator) -> list[str]:
    """Texts of 2 to 25 sentences of one source each, as stores hold them; short ones are as frequent as long ones."""
    _, sources = np.unique(corpus.sources, return_inverse=True)
    order = np.lexsort((random.random(len(sources)), sources))
    ends = np.cumsum(np.round(2 ** random.uniform(1, np.log2(LONGEST), len(order))).astype(int))
    spans = itertools.pairwise([0, *ends[ends <= len(order)].tolist()])
    found = [order[start:end] for start, end in spans if sources[order[start]] == sources[order[end - 1]]]
    return [" ".join(corpus.texts[row] for row in found[k]) for k in random.permutation(len(found))[:count]]


def bags(texts: Sequence[str], encoder: Encoder) -> sp.csr_array:
    """Which pieces stand in what the encoder reads of each text: 1 for each, [n, pieces]."""
    fast, rows = encoder.tokenizer, []
    for start in range(0, len(texts), READ):
        part = fast(texts[start : start + READ], truncation=True, max_length=encoder.model.max_seq_length)
        rows += [set(ids).difference(fast.all_special_ids) for ids in part["input_ids"]]
    pieces = np.fromiter((piece for row in rows for piece in row), np.int64)
    ends = np.cumsum([0, *map(len, rows)])
    return sp.csr_array((np.ones(len(pieces), np.float32), pieces, ends), shape=(len(rows), len(fast)))


def names(texts: Sequence[str]) -> set[str]:
    """Words that are written with a capital inside of sentences: people and places, days and products."""
    seen = Counter(word for text in texts for word in _INSIDE.findall(text))
    capital = Counter(word.lower() for word in seen.elements() if word[0].isupper())
    every = Counter(word.lower() for word in seen.elements())
    return {word for word, count in capital.items() if count >= NAME * every[word]}


def fit(vectors: np.ndarray, counts: sp.csr_array, named: set[str], encoder: Encoder) -> WordMap:
    """Logistic regression of the bags [n, pieces] on unit vectors [n, d], for the pieces that enough texts have."""
    ids = np.flatnonzero(np.diff(counts.tocsc().indptr) >= FEWEST)
    if not len(ids):
        raise InputError(f"no piece stands in {FEWEST} texts; give a larger corpus")
    counts = sp.csr_array(counts[:, ids])
    pieces = encoder.tokenizer.convert_ids_to_tokens(ids.tolist())
    mean, start = moments(vectors, counts)
    down, up, bias = refined(vectors - mean, counts, *start)
    return WordMap(
        encoder.tokenizer, torch.from_numpy(ids), down, up, scale=torch.ones(len(ids)),
        bias=bias - up @ (torch.from_numpy(mean) @ down), share=torch.from_numpy(counts.mean(axis=0)).float(),
        is_name=torch.tensor([piece in named for piece in pieces]), sure=torch.tensor([[0.0, 1.0]] * 2),
        about={"encoder": encoder.name, "texts": counts.shape[0]},
    )  # fmt: skip


def moments(vectors: np.ndarray, counts: sp.csr_array) -> tuple[np.ndarray, list[torch.Tensor]]:
    """Mean vector, and a start in closed form (linear discriminants): `down`, `up`, `bias` for centred vectors.

    The mean vector of the texts with a piece, whitened, is the direction of that piece. That of a rare piece is mostly
    noise and is shortened.
    """
    total, mean = np.asarray(counts.sum(axis=0)), vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread, axes = np.linalg.eigh(np.cov(vectors, rowvar=False))
    white = axes * np.where(spread > FLAT * spread.max(), spread.clip(1e-12) ** -0.5, 0)
    means = (counts.T @ vectors / total[:, None] - mean) @ white * (0.15 * total / (total + 200))[:, None]
    _, turned = np.linalg.eigh((means * total[:, None]).T @ means)
    turned = turned[:, ::-1][:, :RANK]
    up = means @ turned
    bias = np.log(total / len(vectors)) - (up**2).sum(axis=1) / 2
    return mean, [torch.from_numpy(own).float() for own in (white @ turned, up, bias)]


def refined(vectors: np.ndarray, counts: sp.csr_array, *start: torch.Tensor) -> list[torch.Tensor]:
    """Adam on the likelihood, its gradient written out: the chances are the only large array, and in bf16."""
    held, state = list(start), [(torch.zeros_like(own), torch.zeros_like(own)) for own in start]
    steps, random = max(STEPS, round(EPOCHS * len(vectors) / BATCH)), np.random.default_rng(0)
    for step in tqdm(range(1, steps + 1), desc="fit", unit=" steps"):
        rows = random.integers(len(vectors), size=BATCH)
        own, x, (down, up, bias) = counts[rows].tocoo(), torch.from_numpy(vectors[rows]), held
        inner = torch.cat([x @ down, torch.ones(BATCH, 1)], dim=1).bfloat16()
        outer = torch.cat([up, bias[:, None]], dim=1).bfloat16()
        chances = (inner @ outer.T).sigmoid_()
        place = tuple(torch.from_numpy(axis.astype(np.int64)) for axis in own.coords)
        chances[place] -= 1
        inside, outside = x.T @ (chances @ outer[:, :-1]).float(), (chances.T @ inner).float()
        rate = RATE * min(1, step / 50) * (1 - step / (steps + 1))
        for value, (mean, square), slope in zip(held, state, (inside, outside[:, :-1], outside[:, -1]), strict=True):
            mean.lerp_(slope / BATCH, 0.1)
            square.lerp_((slope / BATCH) ** 2, 0.02)
            value.addcdiv_(mean / (1 - 0.9**step), (square / (1 - 0.98**step)).sqrt_().add_(1e-8), value=-rate)
    return held


def calibrated(found: WordMap, vectors: np.ndarray, counts: sp.csr_array, texts: Sequence[str]) -> WordMap:
    """The map with chances that hold on texts it has not seen: of single pieces, and of words of several.

    about["off"]: how many texts with a word there are for one that is told, at the least and the most.
    """
    spelled = {word: found.rows_of(word) for text in texts for word in text.split()}
    several = [rows for rows in spelled.values() if rows and len(rows) > 1]
    kinds = [[row] for row in range(len(found.ids))], several or [[0]]
    there, lines, off = (counts[:, found.ids.numpy()] > 0).tocsc(), [], []
    for own in (kind[:: max(1, len(kind) // MOST)] for kind in kinds):
        odds = found.odds(vectors, own)
        inside = np.column_stack([there[:, rows].toarray().all(axis=1) for rows in own])
        near = odds > FAINT
        line = [0.0, 1.0]  # where all that is told is so, or nothing
        if 0 < inside[near].sum() < near.sum():
            fitted = LogisticRegression(C=np.inf).fit(odds[near, None], inside[near])
            line = [float(fitted.intercept_[0]), float(fitted.coef_[0, 0])]
        lines.append(line)
        told = expit(lines[-1][0] + lines[-1][1] * odds)
        off += [inside[part].sum() / told[part].sum() for part in np.split(range(len(texts)), [len(texts) * 19 // 20])]
    return replace(found, sure=torch.tensor(lines), about={**found.about, "off": [min(off), max(off)]})
