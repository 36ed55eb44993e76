"""A slice of `make hostile`, and threads. Each part runs in a process of its own, without type contracts."""

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from invlib import Inverter
from tests.hostile.__main__ import QUICK
from tests.hostile.files import contents, published

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("part", QUICK)
def test_a_slice_of_every_part_holds(part):
    command = [sys.executable, "-m", f"tests.hostile.{part}", *QUICK[part]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def together(work, count: int = 8) -> list:
    """What `count` threads find that start at the same moment."""
    gate = threading.Barrier(count)

    def started(number: int):
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(started, range(count)))


def test_eight_threads_open_what_one_opens(tmp_path):
    path = published(tmp_path, contents(tmp_path, best_val_loss=np.float64(1.5)))
    opened = together(lambda number: [Inverter.load(path) for _ in range(8)])
    for inverters in opened:
        for inverter in inverters:
            assert torch.equal(inverter.model.token_embed.weight, opened[0][0].model.token_embed.weight)


def test_eight_threads_invert_as_one_does(inverter, sentences):
    vectors, before = inverter.encoder.encode(sentences), inverter.encoder.queries
    alone = inverter.invert(vectors, num_steps=4, verify=True)
    for found in together(lambda number: inverter.invert(vectors, num_steps=4, verify=True)):
        assert found.texts == alone.texts
        np.testing.assert_allclose(found.cosines, alone.cosines, atol=1e-5)
    assert inverter.encoder.queries - before == 9 * len(sentences)


def test_no_process_of_the_suite_reaches_another_machine():
    connect = 'import socket\nsocket.create_connection(("192.0.2.1", 80), timeout=1)'
    done = subprocess.run([sys.executable, "-c", connect], capture_output=True, text=True, env=os.environ)
    assert "reaches no other machine" in done.stderr
    with pytest.raises(OSError, match="reaches no other machine"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
