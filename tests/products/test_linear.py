"""Products by oneDNN: torch's own numbers, and torch's own business wherever oneDNN would not do."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invlib.products import linear as products
from invlib.products.int8 import Int8
from invlib.products.linear import EveryLinear, Linear, linear


def matrix(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def rows(monkeypatch):
    """How many rows each product by oneDNN had."""
    seen, product = [], torch.ops.mkldnn._linear_pointwise

    def watched(x, *others):
        seen.append(len(x))
        return product(x, *others)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", watched)
    return seen


@torch.no_grad()
@pytest.mark.parametrize("shape", [(64,), (1, 64), (5, 64), (33, 64), (3, 50, 64), (2, 3, 4, 64), (0, 64)])
@pytest.mark.parametrize("bias", [None, matrix(40)])
def test_it_is_the_product_of_torch(shape, bias):
    x, weight = matrix(*shape), matrix(40, 64)
    found = linear(x, weight, bias)
    assert found.shape == (*shape[:-1], 40)
    torch.testing.assert_close(found, F.linear(x, weight, bias))


@torch.no_grad()
def test_parts_of_tensors_and_bf16_are_multiplied_too(rows):
    x, weight = matrix(6, 128)[:, ::2], matrix(64, 40).T
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight))
    low = [own.bfloat16() for own in (x, weight)]
    assert linear(*low).dtype == torch.bfloat16 and rows == [6, 6]
    torch.testing.assert_close(linear(*low), F.linear(*low))


@torch.no_grad()
def test_many_rows_are_rounded_so_that_few_products_are_compiled(rows):
    for count in range(1, 200):
        linear(matrix(count, 8), matrix(4, 8))
    assert len(set(rows)) == products.ROUND + len(range(2 * products.ROUND, 225, products.ROUND))


@torch.no_grad()
def test_a_row_does_not_depend_on_the_others():
    x, weight = matrix(200, 384), matrix(40, 384)
    assert torch.equal(linear(x, weight)[:3], linear(torch.cat([x[:3], 1000 * x[3:]]), weight)[:3])


def test_gradients_autocast_and_other_kinds_of_numbers_are_torchs_business(rows):
    x, module = matrix(5, 64), Linear(64, 40)
    module(x).sum().backward()
    assert module.weight.grad is not None
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert module(x).dtype == torch.bfloat16
        assert linear(x.double(), module.weight.double()).dtype == torch.float64
        assert not torch.equal(linear(x, Int8(module.weight)), F.linear(x, module.weight)), "eight bits stay eight bits"
        assert not rows
        module(x)
    assert rows == [5]


@torch.no_grad()
def test_other_peoples_modules_multiply_so_while_the_context_lasts(rows):
    module, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), matrix(2, 3, 8)
    expected = module(x)
    with EveryLinear():
        found = module(x)
    assert rows == [6, 6]
    torch.testing.assert_close(found, expected)
    module(x)
    assert rows == [6, 6]


def test_encoder_and_model_ask_for_such_products(inverter, rows):
    vectors = inverter.encoder.encode(["The keeper opened the old gate slowly."])
    encoding = len(rows)
    inverter.invert(vectors, num_steps=1, verify=False)
    assert encoding >= 36 and len(rows) >= encoding + 48  # six layers, and at least twelve


def test_a_copy_keeps_its_kind():
    assert type(copy.deepcopy(Linear(3, 2))) is Linear
