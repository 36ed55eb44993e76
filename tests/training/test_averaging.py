"""Averaging: weight by weight, and nothing else."""

import dataclasses

import pytest
import torch

from invlib import checkpoint
from invlib.config import Config
from invlib.errors import InputError
from invlib.model import ConditionalMDLM
from invlib.training import averaging


@pytest.fixture(scope="module")
def folders(tiny_config, pruned, tmp_path_factory):
    """Two checkpoints; the later one has a length head of its own and a noise condition."""
    made = []
    for seed, changes in enumerate(({"length_dim": 8, "noise_condition": True}, {})):
        folder, config = tmp_path_factory.mktemp("checkpoint"), dataclasses.replace(tiny_config, **changes)
        model, random = ConditionalMDLM(config), torch.Generator().manual_seed(seed)
        for weight in [*model.parameters(), model.embedding_mean]:
            torch.nn.init.normal_(weight, generator=random)
        checkpoint.write(folder, model, Config(config), dtype=torch.float32)
        pruned.save(folder / "tokenizer.json")
        made.append(folder)
    return made


def test_common_weights_are_averaged_and_the_rest_is_the_later_ones(folders, tmp_path):
    arguments = [str(folder) for folder in folders]
    assert averaging.main([*arguments, "--share", "0.25", "--out", str(tmp_path / "average")]) == 0
    (result, config), (later, _), (earlier, _) = (checkpoint.read(f) for f in (tmp_path / "average", *folders))
    found, own, other = (model.state_dict() for model in (result, later, earlier))
    assert config.noise_condition and (tmp_path / "average" / "tokenizer.json").is_file()
    for name, value in found.items():
        kept = name.startswith(("length_head", "noise_proj", "embedding_"))
        expected = own[name] if kept else 0.75 * own[name] + 0.25 * other[name]
        torch.testing.assert_close(value, expected.to(torch.bfloat16))


@pytest.mark.parametrize("share", ["-0.1", "1.1", "nan"])
def test_a_share_outside_its_domain_is_one_line(folders, tmp_path, capsys, share):
    assert averaging.main([*map(str, folders), "--share", share, "--out", str(tmp_path)]) == 2
    assert "share must be between 0 and 1" in capsys.readouterr().err


def test_models_without_a_common_weight_are_refused(tiny_config):
    model, other = ConditionalMDLM(tiny_config), ConditionalMDLM(tiny_config)
    for name in list(dict(other.named_children())):
        delattr(other, name)
    del other.null_embedding
    with pytest.raises(InputError, match="no weights of the same name and shape"):
        averaging.averaged(model, other, 0.5)
