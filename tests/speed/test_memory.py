"""A stream of vectors: what comes out is what `invert` gives, and nothing of it stays behind."""

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.speed import memory

TINY = str(Path(__file__).parents[2] / "configs/tiny.yaml")


@pytest.fixture
def inverter(small_inverter):
    return small_inverter


def test_a_stream_gives_what_inverting_all_at_once_gives(inverter):
    batches = list(memory.random_batches(25, 10, 384))
    assert [len(batch) for batch in batches] == [10, 10, 5]
    streamed = [text for inversion in memory.stream(inverter, batches, num_steps=3) for text in inversion.texts]
    assert streamed == inverter.invert(np.concatenate(batches), num_steps=3).texts
    assert len(set(streamed)) == 25


def test_a_stream_reads_one_batch_at_a_time_and_keeps_no_trajectory_unless_asked(inverter):
    read = []
    batches = (read.append(len(read)) or batch for batch in memory.random_batches(30, 10, 384))
    stream = memory.stream(inverter, batches, num_steps=1)
    assert next(stream).trajectories == [] and read == [0]
    next(stream)
    assert read == [0, 1]
    (inversion,) = memory.stream(inverter, [np.ones(384)], keep_trajectories=True)
    assert len(inversion.trajectories) == 1


def test_random_drafts_of_a_stream_differ_from_batch_to_batch(inverter):
    same = [np.ones((2, 384))] * 2
    options = {"temperature": 1.0, "generator": torch.Generator().manual_seed(0)}
    first, second = (inversion.texts for inversion in memory.stream(inverter, same, **options))
    assert set(first).isdisjoint(second)


def test_memory_does_not_grow_with_the_number_of_batches(inverter):
    held = []
    tracemalloc.start()
    try:
        for _ in memory.stream(inverter, memory.random_batches(600, 50, 384), num_steps=1):
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    grown = float(np.median(np.diff(held)))
    assert grown < 2_000, f"{grown:.0f} bytes a batch; to keep its vectors would take {50 * 384 * 4}"


def test_the_memory_benchmark_reports_machine_peaks_and_growth(capsys):
    assert memory.main(["--config", TINY, "--vectors", "200", "--batch", "20", "--steps", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("machine: ") and "after a tenth of 200 vectors" in lines[1]
    assert lines[2].startswith("growth: ")


def test_too_few_vectors_for_a_tenth_are_refused(capsys):
    assert memory.main(["--config", TINY, "--vectors", "10", "--batch", "5"]) == 2
    assert capsys.readouterr().err.startswith("error: --vectors must be ten batches")
