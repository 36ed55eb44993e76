"""The noise condition: the model may be told how noisy a vector is; level 0 is the clean model."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from invlib import checkpoint
from invlib.config import Config, ModelConfig, TrainingConfig
from invlib.errors import InputError
from invlib.inverter import Inverter
from invlib.model import ConditionalMDLM
from invlib.training.batches import EqualLengthBatches, Mix, make_batch
from invlib.training.pairs import Pairs
from invlib.training.start import initial_model
from invlib.training.trainer import Trainer

TRAINING = TrainingConfig(batch_size=64, max_steps=2, lr=1e-3, noise_share=0.5, max_noise=1.2)


@pytest.fixture(scope="module")
def told(tiny_config) -> ConditionalMDLM:
    """A model that hears the noise level, with no zero left in it."""
    model = ConditionalMDLM(dataclasses.replace(tiny_config, noise_condition=True))
    random = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=random)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(1)), dim=1)


def test_level_zero_is_the_clean_model(told, vectors):
    assert torch.equal(told.condition(vectors, noise_level=torch.zeros(4)), told.condition(vectors))
    assert torch.equal(told.length_logits(vectors, torch.zeros(4)), told.length_logits(vectors))


def test_the_level_is_heard_row_by_row_before_the_first_nonlinearity(told, vectors):
    level = torch.tensor([0.0, 0.3, 0.6, 1.2])
    features = 1 - torch.exp(-level[:, None] * torch.tensor([0.25, 0.5, 1, 2, 4, 8, 16, 32]))
    first, gelu, last = told.cond_proj
    x = first((vectors - told.embedding_mean) / told.embedding_std) + features @ told.noise_proj.weight.T
    torch.testing.assert_close(told.condition(vectors, noise_level=level), last(gelu(x)))
    assert not torch.equal(told.modulation(vectors, noise_level=level).shift[1], told.modulation(vectors).shift[1])


def test_a_new_noise_condition_says_nothing(tiny_config, vectors):
    model = ConditionalMDLM(dataclasses.replace(tiny_config, noise_condition=True))
    assert torch.equal(model.condition(vectors, noise_level=torch.ones(4)), model.condition(vectors))


def test_a_checkpoint_without_the_condition_says_so(tiny_config, vectors):
    model = ConditionalMDLM(tiny_config)
    with pytest.raises(InputError, match="no noise condition.*omit noise_level"):
        model.condition(vectors, noise_level=torch.ones(4))


@pytest.fixture(scope="module")
def corpus(minilm, pruned, tmp_path_factory) -> Pairs:
    folder = tmp_path_factory.mktemp("noise")
    lines = [f"the {a} {b} sees the {c}" for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvwx"]
    (folder / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    return Pairs.build(folder / "pairs", folder / "lines.txt", minilm, pruned, 16)


def batch_of(pairs: Pairs, training: TrainingConfig, number: int = 0):
    model = ModelConfig(2304, 16, 32, 1, 2, 32, 384, 4, "minilm", "pruned", noise_condition=True)
    batches = EqualLengthBatches(pairs.lengths, Mix([np.arange(len(pairs))], [1.0], training.seed), training.batch_size)
    return make_batch(pairs, batches, number, Config(model, training), Accelerator(cpu=True))


def test_the_drawn_noise_has_the_level_that_the_model_is_told(corpus):
    training = dataclasses.replace(TRAINING, batch_size=512)
    batch, clean = batch_of(corpus, training), batch_of(corpus, dataclasses.replace(training, noise_share=0.0))
    assert clean.noise_level is None and clean.any_noise_level is None
    noisy = batch.noise_level > 0
    assert 0.4 < noisy.float().mean() < 0.6
    assert 1.0 < batch.noise_level.max() < 1.2 and abs(batch.noise_level[noisy].mean() - 0.6) < 0.1
    torch.testing.assert_close(batch.embedding.norm(dim=1), torch.ones(len(noisy)))
    cosines = (batch.embedding * torch.nn.functional.normalize(clean.embedding, dim=1)).sum(dim=1)
    assert cosines[~noisy].min() > 1 - 1e-6
    expected = 1 / (1 + batch.noise_level[noisy] ** 2).sqrt()
    assert (cosines[noisy] - expected).abs().max() < 0.2 and abs((cosines[noisy] - expected).mean()) < 0.01


def test_the_length_head_hears_the_noise_of_its_own_vectors(corpus):
    batch = batch_of(corpus, TRAINING)
    assert (batch.any_noise_level > 0).any() and not torch.equal(batch.any_noise_level, batch.noise_level)


def test_noise_is_a_function_of_the_batch_number(corpus):
    one, again, other = (batch_of(corpus, TRAINING, number) for number in (0, 0, 1))
    assert torch.equal(one.embedding, again.embedding) and torch.equal(one.noise_level, again.noise_level)
    assert not torch.equal(one.noise_level, other.noise_level)


def test_a_training_step_teaches_the_condition(corpus):
    config = ModelConfig(
        *(2304, 16, 32, 1, 2, 32, 384, 4, "minilm", "pruned"),
        length_head=True,
        tie_embeddings=True,
        noise_condition=True,
    )
    for seen in ("noise_level", "any_noise_level"):  # by the text and by the length head, each alone
        with torch.random.fork_rng():
            trainer = Trainer(ConditionalMDLM(config), TRAINING, Accelerator(cpu=True))
        torch.nn.init.normal_(trainer.worker.final_norm.proj.weight)
        batch = batch_of(corpus, TRAINING)
        hidden = "any_noise_level" if seen == "noise_level" else "noise_level"
        trainer.update([dataclasses.replace(batch, **{hidden: torch.zeros_like(batch.noise_level)})])
        assert trainer.model.noise_proj.weight.abs().max() > 0


@pytest.fixture(scope="module")
def start(minilm, pruned, tmp_path_factory):
    """A checkpoint without a noise condition, with its tokenizer, and the configuration that continues it."""
    folder = tmp_path_factory.mktemp("start")
    model = ModelConfig(
        *(2304, 16, 32, 1, 2, 32, 384, 4, "minilm", "pruned"), length_head=True, tie_embeddings=True, standardize=True
    )
    training = dataclasses.replace(TRAINING, start_from=str(folder))
    with torch.random.fork_rng():
        checkpoint.write(folder, ConditionalMDLM(model), Config(model, training), dtype=torch.float32)
    pruned.save(folder / "tokenizer.json")
    return folder, Config(dataclasses.replace(model, noise_condition=True), training)


def test_a_run_starts_from_a_checkpoint_and_may_add_the_condition(start, minilm, pruned, corpus):
    folder, config = start
    model, (before, _) = initial_model(config, minilm, pruned, corpus), checkpoint.read(folder)
    weights = model.state_dict()
    assert not weights.pop("noise_proj.weight").any()
    assert weights.keys() == before.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in before.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_temperature_fitted_to_the_weights_before_is_not_that_of_the_weights_to_come(start, minilm, pruned, corpus):
    folder, config = start
    calibrated = shutil.copytree(folder, folder.with_name("calibrated"))
    stored = (calibrated / "config.yaml").read_text(encoding="utf-8")
    (calibrated / "config.yaml").write_text(stored.replace("logit_temperature: 1.0", "logit_temperature: 1.25"))
    assert checkpoint.read(calibrated)[1].logit_temperature == 1.25
    training = dataclasses.replace(config.training, start_from=str(calibrated))
    model = initial_model(dataclasses.replace(config, training=training), minilm, pruned, corpus)
    assert model.config.logit_temperature == 1


def test_a_checkpoint_of_another_shape_is_not_continued(start, minilm, pruned, corpus):
    _, config = start
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, num_layers=2))
    with pytest.raises(InputError, match="has num_layers 1, the configuration 2"):
        initial_model(other, minilm, pruned, corpus)


@pytest.fixture(scope="module")
def inverter(start, told, minilm, pruned, corpus) -> Inverter:
    """A random model that hears the noise level."""
    model = initial_model(start[1], minilm, pruned, corpus).requires_grad_(False).eval()
    random = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=random)
    return Inverter(model, pruned, minilm)


def test_an_inverter_tells_the_model_the_noise_of_each_vector(inverter, minilm, sentences):
    vectors = minilm.encode(sentences[:4])
    levels = np.array([0.0, 0.4, 0.8, 1.2])
    together = inverter.invert(vectors, noise_level=levels, batch_size=2, num_steps=3)
    alone = [inverter.invert(vectors[i], noise_level=levels[i], num_steps=3).texts[0] for i in range(4)]
    assert together.texts == alone
    clean = inverter.invert(vectors, num_steps=3).texts
    assert clean[0] == alone[0] and clean[3] != alone[3]
    assert inverter.invert(vectors, noise_level=0.8, num_steps=3).texts[2] == alone[2]


@pytest.mark.parametrize("level", [-0.1, np.nan, np.inf, [0.1, 0.2, 0.3]])
def test_a_noise_level_outside_its_domain_is_refused(inverter, minilm, sentences, level):
    with pytest.raises(InputError, match="noise_level"):
        inverter.invert(minilm.encode(sentences[:2]), noise_level=level)
