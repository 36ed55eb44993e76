"""ConditionalMDLM against an independent computation, and what AdaLN-Zero promises."""

import dataclasses

import pytest
import torch
from torch import nn

from invlib.config import ModelConfig
from invlib.errors import InputError
from invlib.model import ConditionalMDLM
from invlib.products.linear import ROUND

PUBLISHED = ModelConfig(
    vocab_size=61,
    max_seq_len=8,
    hidden_dim=32,
    num_layers=3,
    num_heads=4,
    ff_dim=48,
    embedding_cond_dim=16,
    mask_token_id=60,
    encoder_model="-",
    decoder_tokenizer="-",
)
GATED = dataclasses.replace(
    PUBLISHED, gate=True, tie_embeddings=True, length_head=True, null_embedding=True, standardize=True
)


def randomized(config: ModelConfig, seed: int = 0) -> ConditionalMDLM:
    """A model with no zero left, so that every path is exercised."""
    model, random = ConditionalMDLM(config), torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2, generator=random)
    if config.standardize:
        nn.init.normal_(model.embedding_mean, generator=random)
        nn.init.uniform_(model.embedding_std, 0.5, 2.0, generator=random)
    return model.eval()


def tokens(batch: int = 3, length: int = 8, masked: float = 0.5) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    xt = torch.randint(0, 60, (batch, length), generator=random)
    return torch.where(torch.rand(batch, length, generator=random) < masked, 60, xt)


def vectors(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 16, generator=torch.Generator().manual_seed(2))


def straight_line_logits(w: dict, config: ModelConfig, xt: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """The architecture written out once more, with torch's own MultiheadAttention."""
    if config.standardize:
        embedding = (embedding - w["embedding_mean"]) / w["embedding_std"]
    c = nn.functional.gelu(embedding @ w["cond_proj.0.weight"].T + w["cond_proj.0.bias"])
    c = c @ w["cond_proj.2.weight"].T + w["cond_proj.2.bias"]

    def adaln(x, name):
        heard = (c @ w[f"{name}.proj.weight"].T + w[f"{name}.proj.bias"])[:, None]
        scale, shift, *gate = heard.split(config.hidden_dim, dim=-1)
        normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        return normed * (1 + scale) + shift, gate[0] if gate else 1

    x = w["token_embed.weight"][xt] + w["pos_embed.weight"][torch.arange(xt.shape[1])]
    for n in range(config.num_layers):
        attention = nn.MultiheadAttention(config.hidden_dim, config.num_heads, batch_first=True)
        attention.load_state_dict({k.split("attn.")[1]: v for k, v in w.items() if k.startswith(f"blocks.{n}.attn.")})
        h, gate = adaln(x, f"blocks.{n}.adaln1")
        x = x + gate * attention(h, h, h, need_weights=False)[0]
        h, gate = adaln(x, f"blocks.{n}.adaln2")
        h = nn.functional.gelu(h @ w[f"blocks.{n}.ff.0.weight"].T + w[f"blocks.{n}.ff.0.bias"])
        x = x + gate * (h @ w[f"blocks.{n}.ff.3.weight"].T + w[f"blocks.{n}.ff.3.bias"])
    return adaln(x, "final_norm")[0] @ w["token_embed.weight" if config.tie_embeddings else "output_proj.weight"].T


@pytest.mark.parametrize("config", [PUBLISHED, GATED], ids=["published", "every option"])
def test_logits_equal_a_straight_line_computation(config):
    model, xt = randomized(config), tokens()
    with torch.no_grad():
        expected = straight_line_logits(model.state_dict(), config, xt, vectors())
        everywhere = model(xt, model.modulation(vectors()), at=torch.ones_like(xt, dtype=torch.bool))
        masked_only = model(xt, model.modulation(vectors()))
    torch.testing.assert_close(everywhere.view(3, 8, -1), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(masked_only, expected[xt == 60], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [3, 12])
def test_logits_are_the_same_with_and_without_gradients(dtype, batch):
    """Without them, fp32 goes through another library, and many rows are padded."""
    model, xt = randomized(PUBLISHED).to(dtype), tokens(batch)
    assert ((xt == 60).sum() > ROUND) == (batch == 12) and (xt == 60).sum() % ROUND
    modulation = model.modulation(vectors(batch))
    with_gradients = model(xt, modulation)
    with torch.no_grad():
        torch.testing.assert_close(model(xt, modulation), with_gradients.detach(), rtol=1e-5, atol=1e-5)
    assert with_gradients.requires_grad


@pytest.mark.parametrize("config", [GATED, dataclasses.replace(PUBLISHED, gate=True)])
def test_with_gates_the_embedding_cannot_move_the_logits_at_initialisation(config):
    model, xt = ConditionalMDLM(config), tokens()
    one, other = (model(xt, model.modulation(factor * vectors())) for factor in (1.0, -7.0))
    assert torch.equal(one, other)
    without_blocks = model.token_embed(xt) + model.pos_embed.weight
    states = model.final_states(without_blocks, model.modulation(vectors()), xt == 60)
    torch.testing.assert_close(one, states @ model.output_table.T)


def test_the_gradient_reaches_the_embedding_path_from_the_first_step():
    model, xt = ConditionalMDLM(GATED), tokens()
    model(xt, model.modulation(vectors())).square().sum().backward()
    assert model.blocks[0].adaln1.proj.weight.grad.abs().sum() > 0
    assert model.final_norm.proj.weight.grad.abs().sum() > 0


def test_modulation_depends_on_the_embedding_alone_and_can_be_reused():
    model = randomized(GATED)
    modulation = model.modulation(vectors())
    for masked in (0.2, 0.9):
        xt = tokens(masked=masked)
        torch.testing.assert_close(model(xt, modulation), model(xt, model.modulation(vectors())))


def test_padding_changes_nothing():
    model, short = randomized(GATED), tokens(length=5)
    padded = torch.cat([short, torch.zeros(3, 3, dtype=torch.long)], dim=1)
    modulation, lengths = model.modulation(vectors()), torch.full((3,), 5)
    found = model(padded, modulation, lengths=lengths)
    torch.testing.assert_close(found, model(short, modulation), atol=1e-5, rtol=1e-5)


def test_a_batch_equals_its_rows():
    model, xt, modulation = randomized(GATED), tokens(), randomized(GATED).modulation(vectors())
    rows = [model(xt[[row]], modulation.rows([row])) for row in range(3)]
    torch.testing.assert_close(model(xt, modulation), torch.cat(rows), atol=1e-5, rtol=1e-5)


def test_the_null_embedding_hides_the_vector():
    model, xt, null = randomized(GATED), tokens(), torch.ones(3, dtype=torch.bool)
    one, other = (model(xt, model.modulation(factor * vectors(), null)) for factor in (1.0, -7.0))
    assert torch.equal(one, other)


def test_the_null_embedding_replaces_the_marked_rows_and_no_others():
    model, null = randomized(GATED), torch.tensor([True, False, True])
    found, nothing = model.condition(vectors(), null), model.cond_proj(model.null_embedding)
    torch.testing.assert_close(found, torch.stack([nothing, model.condition(vectors())[1], nothing]))


def test_zeroing_a_layer_with_gates_takes_it_out():
    model, xt, modulation = randomized(GATED), tokens(), randomized(GATED).modulation(vectors())
    two_layers = model.hidden_states(xt, modulation, num_layers=2)
    torch.testing.assert_close(model.hidden_states(xt, modulation.with_layer(2, modulation.zeros())), two_layers)
    assert not torch.allclose(model.hidden_states(xt, modulation), two_layers), "the third layer does nothing"


def test_zeroing_a_layer_without_gates_leaves_plain_norms():
    model, xt, plain = randomized(PUBLISHED), tokens(), randomized(PUBLISHED)
    for norm in (plain.blocks[1].adaln1, plain.blocks[1].adaln2):
        nn.init.zeros_(norm.proj.weight)
        nn.init.zeros_(norm.proj.bias)
    found = model(xt, model.modulation(vectors()).with_layer(1, model.modulation(vectors()).zeros()))
    torch.testing.assert_close(found, plain(xt, plain.modulation(vectors())))


@pytest.mark.parametrize("config", [PUBLISHED, GATED], ids=["published", "every option"])
def test_the_mean_modulation_is_one_row_that_any_layer_can_hear(config):
    modulation = randomized(config).modulation(vectors())
    mean = modulation.mean()
    assert (len(modulation.scale), len(mean.scale)) == (3, 1)
    for name in ("scale", "shift", "gate", "final_scale", "final_shift"):
        value = getattr(modulation, name)
        if value is not None:
            torch.testing.assert_close(getattr(mean, name)[0], value.sum(dim=0) / 3)
    assert torch.equal(modulation.with_layer(1, mean).shift[2, 1], mean.shift[0, 1])


def test_swapping_every_layer_and_the_final_norm_swaps_the_sentence():
    model, xt = randomized(GATED), tokens()
    one, other = model.modulation(vectors()), model.modulation(-vectors())
    before, swapped = model(xt, one), one
    for layer in range(GATED.num_layers):
        swapped = swapped.with_layer(layer, other)
    assert not torch.equal(model(xt, swapped), model(xt, other)), "the final norm still hears the first"
    assert torch.equal(model(xt, swapped.with_final(other)), model(xt, other))
    assert torch.equal(model(xt, one), before), "the original must not change"


def test_standardising_centres_the_embedding():
    model = randomized(GATED)
    model.embedding_mean.copy_(vectors()[0])  # so that this vector becomes the origin
    plain = nn.functional.linear(torch.zeros(1, 16), model.cond_proj[0].weight, model.cond_proj[0].bias)
    torch.testing.assert_close(model.condition(vectors()[:1]), model.cond_proj[2](nn.functional.gelu(plain)))


@pytest.mark.parametrize("sublayer", [0, 1], ids=["attention", "feed-forward"])
def test_dropout_acts_in_training_only(sublayer):
    model, xt = randomized(dataclasses.replace(GATED, dropout=0.5)), tokens()
    modulation = model.modulation(vectors())
    modulation.gate[:, :, 1 - sublayer] = 0  # so that only one sublayer is heard
    assert torch.equal(model(xt, modulation), model(xt, modulation))
    model.train()
    assert not torch.equal(model(xt, modulation), model(xt, modulation))


def test_a_vector_of_another_dimension_is_refused():
    with pytest.raises(InputError, match="12 dimensions.*16-dimensional"):
        ConditionalMDLM(PUBLISHED).modulation(torch.zeros(1, 12))


def test_no_null_embedding_no_prior():
    with pytest.raises(InputError, match="no null embedding"):
        ConditionalMDLM(PUBLISHED).modulation(vectors(), torch.ones(3, dtype=torch.bool))


def test_the_stored_temperature_divides_the_logits_in_training_and_inference():
    model, warm = (randomized(dataclasses.replace(GATED, logit_temperature=t)) for t in (1.0, 2.0))
    xt, modulation = tokens(), model.modulation(vectors())
    torch.testing.assert_close(warm(xt, modulation), model(xt, modulation) / 2)
    states = warm.final_states(warm.hidden_states(xt, modulation), modulation, xt == 60)
    torch.testing.assert_close(states @ warm.output_table.T, model(xt, modulation) / 2)
