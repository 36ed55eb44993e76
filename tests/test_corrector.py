"""What a denoiser hears of a hypothesis: nothing from a new corrector, and every part of it from a trained one."""

import dataclasses

import pytest
import torch

from invlib.corrector import Hypothesis
from invlib.errors import InputError
from invlib.model import ConditionalMDLM
from tests.test_model import GATED, PUBLISHED, randomized, tokens, vectors

CONFIG = dataclasses.replace(GATED, corrector_dim=24, length_dim=16, noise_condition=True)


def hypothesis(seed: int = 4, **changes) -> Hypothesis:
    random = torch.Generator().manual_seed(seed)
    parts = {
        "tokens": torch.randint(0, 60, (3, 8), generator=random),
        "lengths": torch.tensor([5, 8, 6]),
        "vectors": torch.nn.functional.normalize(torch.randn(3, 16, generator=random), dim=1),
    }
    return Hypothesis(**parts | changes)


def said(model: ConditionalMDLM, heard: Hypothesis | None) -> list[torch.Tensor]:
    """Logits of the tokens, and of the lengths."""
    with torch.no_grad():
        told = model.modulation(vectors(), hypothesis=heard)
        return [model(tokens(), told), model.length_logits(vectors(), hypothesis=heard)]


def test_a_new_corrector_says_nothing():
    model = ConditionalMDLM(CONFIG)
    for alone, told in zip(said(model, None), said(model, hypothesis()), strict=True):
        assert torch.equal(alone, told)


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"tokens": torch.full((3, 8), 7)}, [True, False]),
        ({"lengths": torch.tensor([4, 7, 5])}, [True, True]),
        ({"vectors": torch.eye(16)[:3]}, [True, True]),
    ],
)
def test_every_part_of_a_hypothesis_is_heard(changes, changed):
    model = randomized(CONFIG)
    pairs = zip(said(model, hypothesis()), said(model, hypothesis(**changes)), strict=True)
    assert [not torch.allclose(one, other, atol=1e-4) for one, other in pairs] == changed


def test_what_stands_behind_the_last_token_is_not_heard():
    model, heard = randomized(CONFIG), hypothesis()
    inside = torch.arange(8) < heard.lengths[:, None]
    other = dataclasses.replace(heard, tokens=torch.where(inside, heard.tokens, 59))
    assert not torch.equal(heard.tokens, other.tokens)
    for one, same in zip(said(model, heard), said(model, other), strict=True):
        torch.testing.assert_close(one, same)


def test_a_batch_of_hypotheses_equals_its_rows():
    model, heard, xt = randomized(CONFIG), hypothesis(), tokens()
    with torch.no_grad():
        whole = model(xt, model.modulation(vectors(), hypothesis=heard))
        rows = [model(xt[[row]], model.modulation(vectors()[[row]], hypothesis=heard.rows([row]))) for row in range(3)]
    torch.testing.assert_close(whole, torch.cat(rows), atol=1e-5, rtol=1e-5)


def test_a_shorter_canvas_hears_what_stands_at_its_places():
    model, heard, short = randomized(CONFIG), hypothesis(), tokens(length=5)
    with torch.no_grad():
        padded = torch.cat([short, torch.zeros(3, 3, dtype=torch.long)], dim=1)
        told = model.modulation(vectors(), hypothesis=heard)
        found = model(padded, told, lengths=torch.full((3,), 5))
        torch.testing.assert_close(found, model(short, told), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [PUBLISHED, GATED])
def test_a_checkpoint_without_a_corrector_hears_no_hypothesis(config):
    with pytest.raises(InputError, match="has no corrector"):
        randomized(config).modulation(vectors(), hypothesis=hypothesis())
