"""Products in eight bits: near the exact ones, whatever else stands in the batch; the weights stay what they are."""

import copy

import pytest
import torch
from torch.nn import functional as F

import invlib
from invlib.checkpoint import fingerprint
from invlib.errors import InputError
from invlib.model import ConditionalMDLM
from invlib.products import int8
from invlib.products.int8 import Int8
from invlib.training.compute import FlopMeter

SENTENCES = ["The keeper opened the old gate slowly.", "Which of the two trains stops at the harbour?"]


def matrix(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("bias", [None, matrix(40)])
def test_a_product_lies_within_the_rounding_of_both_sides(bias):
    x, weight = matrix(3, 5, 64), matrix(40, 64)
    exact, found = F.linear(x, weight, bias), F.linear(x, Int8(weight), bias)
    assert found.shape == exact.shape and not torch.equal(found, exact)
    assert (found - exact).norm() / exact.norm() < 0.02


def test_a_row_does_not_depend_on_the_others():
    x, weight = matrix(8, 64), Int8(matrix(40, 64))
    beside = torch.cat([1000 * x[:1], x[1:]])
    assert torch.equal(F.linear(x, weight)[1:], F.linear(beside, weight)[1:])


def test_rows_of_zeros_give_zeros():
    assert not F.linear(torch.zeros(2, 8), Int8(torch.zeros(4, 8))).any()


def test_whoever_asks_for_more_than_a_product_gets_the_weight():
    weight = matrix(40, 64)
    ids = torch.tensor([3, 1])
    assert torch.equal(F.embedding(ids, Int8(weight)), weight[ids])
    assert Int8(weight).shape == (40, 64) and copy.deepcopy(own := Int8(weight)) is own


def test_a_copy_shares_the_weights_and_leaves_the_original_exact(tiny_config):
    model = ConditionalMDLM(tiny_config).eval()
    rounded = int8.denoiser(model)
    assert (model.precision, rounded.precision) == ("float32", "int8")
    assert fingerprint(model) == fingerprint(rounded)
    assert {id(v) for v in model.parameters()} == {id(v) for v in rounded.parameters()}


@pytest.mark.parametrize("known, precision", [({"avx512_vnni": True}, "int8"), ({"avx2": True}, "float32")])
def test_eight_bits_are_for_processors_that_multiply_them(known, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert invlib.Inverter.load("minilm", dtype=torch.int8).model.precision == precision


def test_the_bundled_inverter_writes_nearly_the_same(inverter):
    rounded = invlib.Inverter(int8.denoiser(inverter.model), inverter.tokenizer)
    vectors = inverter.encoder.encode(SENTENCES)
    xt = torch.full((2, 9), inverter.config.mask_token_id)
    with torch.inference_mode():
        exact, found = (
            own.model(xt, own.model.modulation(torch.from_numpy(vectors))).log_softmax(dim=-1).exp()
            for own in (inverter, rounded)
        )
    assert (exact - found).abs().sum(dim=-1).mean() / 2 < 0.05  # total variation


def test_no_weight_is_stored_in_eight_bits():
    with pytest.raises(InputError, match=r"torch\.int8"):
        invlib.Inverter.load("minilm", dtype=torch.uint8)


def test_operations_are_counted_like_the_exact_ones(tiny_config):
    model, meter = ConditionalMDLM(tiny_config).eval(), FlopMeter()
    xt = torch.full((2, 4), tiny_config.mask_token_id)

    def operations(own):
        modulation = own.modulation(torch.zeros(2, tiny_config.embedding_cond_dim))
        return meter(own.precision, lambda: own(xt, modulation))[1]

    with torch.inference_mode():
        assert operations(int8.denoiser(model)) == operations(model) > 0
