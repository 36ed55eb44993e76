"""The same texts for the same seeds: what three ways of decoding write of every fourth of the project's own sentences.

`texts.json` beside this file holds what they wrote; `python -m tests.test_behaviour` makes it anew. Only a change of
what a policy means, or of the weights, is a reason to.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from invlib import Inverter
from invlib.policies import ancestral
from invlib.search import BestOf, SwapBeam
from tests.speed.searching import exact

KEPT = Path(__file__).with_name("texts.json")
SENTENCES = Path(__file__).resolve().parents[1] / "data" / "sentences" / "sentences.jsonl"
WAYS = {
    "top_confidence": {},
    "ancestral": {"policy": ancestral, "temperature": 1.0},
    "search": {"search": (BestOf(4), SwapBeam(width=1, breadth=4, top_k=8, max_queries=8))},
}
# Sums are split by the number of threads, and processors order them differently, so that two nearly equal candidates
# may change places: never many of them. A policy that means something else changes most of the texts.
TIES = 6


def written(way: str) -> list[str]:
    inverter = exact(Inverter.load("minilm"))  # not every processor proposes in eight bits
    sentences = [json.loads(line)["text"] for line in SENTENCES.read_text(encoding="utf-8").splitlines()[::4]]
    vectors = inverter.encoder.encode(sentences)
    generator = torch.Generator().manual_seed(0)
    return inverter.invert(vectors, keep_trajectories=False, generator=generator, **WAYS[way]).texts


@pytest.mark.parametrize("way", WAYS)
def test_the_same_texts_as_before(way):
    kept = json.loads(KEPT.read_text(encoding="utf-8"))[way]
    differs = [row for row, (now, then) in enumerate(zip(written(way), kept, strict=True)) if now != then]
    assert len(differs) <= TIES, f"{len(differs)} of {len(kept)} texts changed, the first at row {differs[0]}"


def test_the_three_ways_write_three_things():
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    texts = np.array([kept[way] for way in WAYS])
    assert texts.shape == (3, 120)
    assert (texts[0] != texts[1]).sum() > 60
    assert (texts[0] != texts[2]).sum() > 60


if __name__ == "__main__":
    KEPT.write_text(json.dumps({way: written(way) for way in WAYS}, indent=0, ensure_ascii=False) + "\n")
