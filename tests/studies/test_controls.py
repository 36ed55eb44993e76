"""Controls: nobody gets what is his own."""

import numpy as np
import pytest
import torch

from invlib.errors import InputError
from invlib.studies.controls import nearest, somebody_else


def test_everybody_gets_another_ones_row_once():
    for seed in range(5):
        other = somebody_else(7, torch.Generator().manual_seed(seed))
        assert sorted(other) == list(range(7)) and (other != np.arange(7)).all()
    with pytest.raises(InputError, match="at least two texts"):
        somebody_else(1)


def test_the_nearest_row_may_be_forbidden_to_be_the_own():
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    assert nearest(vectors, vectors).tolist() == [0, 1, 2]
    assert nearest(vectors, vectors, own_excluded=True).tolist() == [1, 0, 1]
