"""What the modulation says, how loudly sublayers answer, who must hear it: against formulas and plain computations."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from invlib import probes
from invlib.config import ModelConfig
from invlib.errors import InputError
from invlib.masking import subs_logits
from invlib.model import ConditionalMDLM, Modulation


@pytest.fixture(params=[False, True], ids=["norm before", "norm behind"])
def model(request, tiny_config) -> ConditionalMDLM:
    """A model with no zero left, so that every path is exercised."""
    return randomized(dataclasses.replace(tiny_config, post_norm=request.param))


def randomized(config: ModelConfig) -> ConditionalMDLM:
    model, random = ConditionalMDLM(config), torch.Generator().manual_seed(0)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2, generator=random)
    return model.eval()


@pytest.fixture
def lengths() -> torch.Tensor:
    return torch.tensor([5, 8, 3])


@pytest.fixture
def tokens(lengths) -> torch.Tensor:
    return torch.randint(5, 60, (3, 8), generator=torch.Generator().manual_seed(1))


def heard(model, seed: int = 2, batch: int = 3) -> Modulation:
    vectors = torch.randn(batch, 16, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        return model.modulation(vectors)


# ── what the modulation says ──


def test_the_varying_share_is_0_where_all_hear_the_same_and_1_where_the_mean_is_zero():
    same, opposite = torch.ones(2, 3, 2, 4), torch.tensor([1.0, -1.0])[:, None, None, None].expand(2, 3, 2, 4)
    share = probes.varying_share(Modulation(same, opposite, opposite + 1, same[:, 0, 0], same[:, 0, 0]))
    assert list(share.columns) == ["gate", "scale", "shift"] and len(share) == 3
    assert (share["scale"] == 0).all() and (share["shift"] == 1).all()
    np.testing.assert_allclose(share["gate"], 0.5, rtol=1e-6)  # 0 and 2: variance 1, mean square 2


def test_a_model_without_gates_has_no_column_for_them():
    value = torch.ones(2, 3, 2, 4)
    modulation = Modulation(value, value, None, value[:, 0, 0], value[:, 0, 0])
    assert list(probes.varying_share(modulation).columns) == ["scale", "shift"]
    assert probes.stacked(modulation).shape == (2, 2 * 3 * 2 * 4)


def test_principal_components_are_those_of_a_singular_value_decomposition():
    values = torch.randn(12, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = probes.principal_components(values)
    left, singular, _ = torch.linalg.svd(values - values.mean(dim=0), full_matrices=False)
    np.testing.assert_allclose(found.variance, singular[:-1].numpy() ** 2 / 11)
    np.testing.assert_allclose(np.abs(found.scores), np.abs((left * singular)[:, :-1].numpy()), atol=1e-9)


@pytest.mark.parametrize("directions", [1, 3])
def test_the_participation_ratio_counts_equal_directions(directions):
    values = np.vstack([np.eye(directions, 9), -np.eye(directions, 9)])
    assert probes.principal_components(values).participation_ratio == pytest.approx(directions)


@pytest.mark.parametrize("rows", [1, 4])
def test_components_of_one_kind_of_row_are_refused(rows):
    with pytest.raises(InputError, match=f"two different rows at least, got {rows} of one kind"):
        probes.principal_components(np.ones((rows, 5)))


# ── how loudly the sublayers answer ──


def straight_line_gains(model: ConditionalMDLM, xt: torch.Tensor, modulation: Modulation) -> torch.Tensor:
    """[layer, sublayer] for one row without padding, block by block."""
    x, gains = model.hidden_states(xt, modulation, num_layers=0), []

    def rms(values):
        return values.square().mean().sqrt()

    for layer, block in enumerate(model.blocks):
        scale, shift, gate = (getattr(modulation, n)[0, layer] for n in ("scale", "shift", "gate"))
        for n, part in enumerate((lambda x, b=block: b.attn(x, None), block.ff)):
            if model.config.post_norm:
                added = gate[n] * part(x)
                gains.append(rms(added) / rms(x))
                x = (block.norm1, block.norm2)[n](x + added) * (1 + scale[n]) + shift[n]
            else:
                added = gate[n] * part(nn.functional.layer_norm(x, x.shape[-1:]) * (1 + scale[n]) + shift[n])
                gains.append(rms(added) / rms(x))
                x = x + added
    return torch.stack(gains).view(-1, 2)


def test_the_effective_gain_is_what_a_straight_line_computation_finds(model, lengths):
    modulation, xt = heard(model), probes.all_masked(model, lengths)
    found = probes.effective_gain(model, xt, modulation, lengths)
    for row, length in enumerate(lengths):
        with torch.inference_mode():
            expected = straight_line_gains(model, xt[row : row + 1, :length], modulation.rows([row]))
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_a_gate_at_zero_has_no_gain_and_leaves_the_other_sublayer_its_own(model, lengths):
    xt, modulation = probes.all_masked(model, lengths), heard(model)
    gain = probes.effective_gain(model, xt, modulation.without_gate(0, 1), lengths)
    assert (gain[:, 0, 1] == 0).all() and (gain[:, 0, 0] > 0).all()


def test_without_gates_the_gain_is_that_of_a_gate_of_one(tiny_config, lengths):
    bare = randomized(dataclasses.replace(tiny_config, gate=False))
    modulation = heard(bare)
    with_ones = dataclasses.replace(modulation, gate=torch.ones_like(modulation.scale))
    xt = probes.all_masked(bare, lengths)
    found, expected = (probes.effective_gain(bare, xt, m, lengths) for m in (modulation, with_ones))
    torch.testing.assert_close(found, expected)


def test_measuring_the_gain_leaves_no_hook_behind(model, lengths):
    probes.effective_gain(model, probes.all_masked(model, lengths), heard(model), lengths)
    assert not any(module._forward_hooks for module in model.modules())


# ── which layer reads the content ──


def test_all_masked_is_mask_up_to_each_length_and_padding_behind(model):
    assert probes.all_masked(model, torch.tensor([1, 3])).tolist() == [[4, 0, 0], [4, 4, 4]]


def test_the_cross_entropy_is_that_of_each_true_token_at_the_fully_masked_text(model, tokens, lengths):
    modulation = heard(model)
    found = probes.cross_entropy(model, tokens, lengths, modulation)
    for row, length in enumerate(lengths):
        with torch.inference_mode():
            logits = subs_logits(model(torch.full((1, int(length)), 4), modulation.rows([row])), 4)
        expected = nn.functional.cross_entropy(logits, tokens[row, :length])
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_every_place_is_changed_in_every_way_and_a_layer_that_hears_itself_changes_nothing(model, tokens, lengths):
    own = heard(model)
    changes = probes.changes(own, own, heard(model, seed=3).mean())
    effects = probes.listening_effects(model, tokens, lengths, own, changes)
    counts = effects.groupby("what", sort=False)["where"].apply(list).to_dict()
    assert counts == {
        "hears another sentence": ["0", "1", "final norm"],
        "hears the average": ["0", "1", "final norm"],
        "attention gate at zero": ["0", "1"],
        "feed-forward gate at zero": ["0", "1"],
    }
    itself = effects["what"] == "hears another sentence"
    assert (effects[itself][["value", "low", "high", "changed"]].abs() < 1e-6).all(axis=None)
    assert (effects[~itself]["value"].abs() > 1e-4).all()
    assert ((effects["low"] <= effects["value"]) & (effects["value"] <= effects["high"])).all()
    assert effects["changed"].between(0, 1).all() and (effects["changed"] > 0).any()


def test_the_effect_of_one_change_is_the_difference_of_two_cross_entropies(model, tokens, lengths):
    own, other = heard(model), heard(model, seed=3)
    changes = probes.changes(own, other, other.mean())
    effects = probes.listening_effects(model, tokens, lengths, own, changes).set_index(["what", "where"])
    before = probes.cross_entropy(model, tokens, lengths, own)
    for key, changed in {
        ("hears another sentence", "1"): own.with_layer(1, other),
        ("hears the average", "final norm"): own.with_final(other.mean()),
        ("feed-forward gate at zero", "0"): own.without_gate(0, 1),
    }.items():
        rise = float((probes.cross_entropy(model, tokens, lengths, changed) - before).mean())
        assert effects.loc[key, "value"] == pytest.approx(rise, abs=1e-5)


def test_without_gates_none_is_set_to_zero(tiny_config):
    modulation = heard(randomized(dataclasses.replace(tiny_config, gate=False)))
    told = {what for what, _, _ in probes.changes(modulation, modulation, modulation)}
    assert told == {"hears another sentence", "hears the average"}


# ── token by token ──


@pytest.mark.parametrize("standardize", [True, False])
def test_token_gradients_are_finite_differences(tiny_config, standardize):
    model = randomized(dataclasses.replace(tiny_config, standardize=standardize)).double()
    if standardize:
        nn.init.uniform_(model.embedding_std, 0.5, 2.0, generator=torch.Generator().manual_seed(0))
        # The model standardises in single precision; exactly representable entries keep the differences clean.
        model.embedding_std.copy_((model.embedding_std * 8).round() / 8)
    embedding, tokens = torch.linspace(-1, 1, 16, dtype=torch.float64), torch.tensor([7, 9, 11])
    found = probes.token_gradients(model, embedding, tokens)

    def log_probs(vector):
        with torch.inference_mode():
            logits = subs_logits(model(torch.full((1, 3), 4), model.modulation(vector[None])).float(), 4)
        return logits.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]

    size = 1 / 64
    for entry in range(0, 16, 5):
        step = torch.zeros(16, dtype=torch.float64)
        step[entry] = size * (model.embedding_std[entry] if standardize else 1)
        difference = (log_probs(embedding + step) - log_probs(embedding - step)) / (2 * size)
        torch.testing.assert_close(found[:, entry].float(), difference, rtol=0.02, atol=2e-3)


def test_the_lens_ends_in_the_model_and_begins_in_the_embedding_tables(model, lengths):
    xt, modulation = probes.all_masked(model, lengths), heard(model)
    xt[0, 1] = 9  # a visible token is not asked about
    lens = probes.logit_lens(model, xt, modulation, lengths)
    assert lens.shape == (3, int(lengths.sum()) - 1, 60)
    with torch.inference_mode():
        expected = subs_logits(model(xt, modulation, lengths=lengths), 4).log_softmax(dim=-1)
        tables = model.final_states(model.hidden_states(xt, modulation, num_layers=0), modulation, xt == 4)
        first = subs_logits(tables @ model.output_table.T, 4).log_softmax(dim=-1)
    torch.testing.assert_close(lens[-1], expected)
    torch.testing.assert_close(lens[0], first)


# ── the modulation as a value ──


def test_a_gate_at_zero_is_that_gate_alone(model):
    modulation = heard(model)
    changed = modulation.without_gate(1, 0)
    assert (changed.gate[:, 1, 0] == 0).all()
    assert (changed.gate != modulation.gate).flatten(3).any(dim=3).sum() == len(modulation.scale)
    assert torch.equal(changed.scale, modulation.scale) and torch.equal(changed.shift, modulation.shift)


def test_a_model_without_gates_has_none_to_set_to_zero(tiny_config):
    modulation = heard(randomized(dataclasses.replace(tiny_config, gate=False)))
    with pytest.raises(InputError, match="no gates; with_layer.* sets its scale and shift to zero"):
        modulation.without_gate(0, 0)


@pytest.mark.parametrize("gate", [True, False])
def test_batches_are_joined_in_their_order(tiny_config, gate):
    modulation = heard(randomized(dataclasses.replace(tiny_config, gate=gate)))
    joined = Modulation.cat([modulation.rows([2]), modulation.rows([0, 1])])
    for field in dataclasses.fields(Modulation):
        expected = getattr(modulation, field.name)
        found = getattr(joined, field.name)
        assert found is expected is None or torch.equal(found, expected[[2, 0, 1]])


def test_a_final_norm_that_does_not_listen_is_a_plain_one(model):
    modulation = heard(model)
    modulation = modulation.with_final(modulation.zeros())
    x, at = torch.randn(3, 8, 32), torch.ones(3, 8, dtype=torch.bool)
    plain = nn.functional.layer_norm(x, (32,)).flatten(0, 1)
    torch.testing.assert_close(model.final_states(x, modulation, at), plain)


def test_the_final_norm_of_one_sentence_serves_a_batch(model):
    modulation, other = heard(model), heard(model, seed=3).rows([0])
    expected = heard(model, seed=3).rows([0, 0, 0])
    assert torch.equal(modulation.with_final(other).final_shift, expected.final_shift)
