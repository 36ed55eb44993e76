"""Compute: operations are counted right, and the peak is one that this machine reaches."""

import torch

from invlib.products.linear import linear
from invlib.training.compute import FlopMeter, matmul_peak


def test_a_product_of_matrices_costs_two_operations_per_multiply_add_and_its_gradients_as_much_again():
    x, w = torch.ones(3, 5), torch.ones(5, 7, requires_grad=True)
    meter = FlopMeter()
    result, flops = meter("forward", lambda: x @ w)
    assert result.shape == (3, 7) and flops == 2 * 3 * 5 * 7
    _, flops = meter("both", lambda: (x @ w).sum().backward())
    assert flops == 2 * 2 * 3 * 5 * 7, "x asks for no gradient"


@torch.no_grad()
def test_products_that_torch_does_not_count_by_itself_are_counted():
    x, w = torch.ones(3, 5), torch.ones(7, 5)
    result, flops = FlopMeter()("oneDNN", lambda: linear(x, w))
    assert result.shape == (3, 7) and flops == 2 * 3 * 5 * 7


def test_a_kind_of_step_is_counted_once_and_done_every_time():
    meter, done = FlopMeter(), []
    counts = [meter("step", lambda n=n: done.append(torch.ones(n, n) @ torch.ones(n, n)))[1] for n in (2, 4)]
    assert len(done) == 2 and counts == [16, 16]
    assert meter("other", lambda: torch.ones(4, 4) @ torch.ones(4, 4))[1] == 128


def test_the_peak_is_that_of_the_best_product_by_the_clock_that_is_given():
    clock = iter([0.0, 9.0, 10.0, 12.0, 20.0, 21.0, 30.0, 34.0])
    peak = matmul_peak(size=100, repeats=3, clock=lambda: next(clock))
    assert peak == 2e6, "the product that warms up does not count; the best took 1 s"
    assert matmul_peak(size=100, repeats=1) > 0
