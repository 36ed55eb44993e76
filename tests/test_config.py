"""The configuration: what is read is what was written, and a mistake is told where it stands."""

import dataclasses
import math
from pathlib import Path

import pytest
import yaml

from invlib.config import Config, DataConfig, TrainingConfig, dump_config, from_dict, load_config, to_dict
from invlib.errors import InputError

SHIPPED = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.yaml"))
TRAINING = {"batch_size": 8, "max_steps": 100, "lr": 0.001}


@pytest.fixture
def values(tiny_config) -> dict:
    """A whole configuration as plain values."""
    return {"model": to_dict(tiny_config), "training": dict(TRAINING), "data": {"val_split": 0.1}}


@pytest.fixture
def write(tmp_path):
    """Write text or plain values to a YAML file; returns its path."""

    def _write(contents: str | bytes | dict) -> Path:
        path = tmp_path / "config.yaml"
        if isinstance(contents, dict):
            contents = yaml.safe_dump(contents)
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        return path

    return _write


@pytest.mark.parametrize("training", [None, TrainingConfig(batch_size=3, max_steps=7, lr=1e-5, mixed_precision="no")])
def test_a_dumped_configuration_is_read_back_equal(tiny_config, training, write):
    config = Config(tiny_config, training, DataConfig("somewhere/else", 0.25))
    assert load_config(write(dump_config(config))) == config


def test_absent_sections_take_their_defaults(tiny_config, write):
    assert load_config(write({"model": to_dict(tiny_config)})) == Config(tiny_config, None, DataConfig())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_loads_and_can_be_trained(path):
    assert load_config(path).training is not None


def test_the_shipped_configurations_are_found():
    assert {path.stem for path in SHIPPED} >= {"minilm", "tiny", "v2_qwen3"}


@pytest.mark.parametrize(
    ("section", "key", "nearest"),
    [("model", "hiden_dim", "hidden_dim"), ("training", "learning_rate", "lr"), ("data", "val_spilt", "val_split")],
)
def test_an_unknown_key_is_an_error_that_shows_the_way_to_a_known_one(section, key, nearest, values, write):
    values[section][key] = 1
    with pytest.raises(InputError, match=rf"{section}: unknown key '{key}'.*\b{nearest}\b"):
        load_config(write(values))


def test_the_nearest_key_is_named_alone_when_there_is_one(values):
    values["model"]["num_heds"] = 4
    with pytest.raises(InputError, match="unknown key 'num_heds'; did you mean 'num_heads'[?]$"):
        from_dict(Config, values)


def test_an_unknown_section_is_an_error(values):
    with pytest.raises(InputError, match="unknown key 'trainning'; did you mean 'training'"):
        from_dict(Config, {**values, "trainning": {}})


@pytest.mark.parametrize(("section", "key"), [("model", "vocab_size"), ("model", "encoder_model"), ("training", "lr")])
def test_a_missing_key_is_named_with_its_section(section, key, values, write):
    del values[section][key]
    with pytest.raises(InputError, match=f"{section}: the key '{key}' is missing"):
        load_config(write(values))


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("model", "num_layers", True, "int"),
        ("model", "num_layers", "6", "int"),
        ("model", "num_layers", 6.0, "int"),
        ("model", "gate", 1, "bool"),
        ("model", "dropout", "none", "float"),
        ("model", "dropout", False, "float"),
        ("model", "encoder_model", 384, "str"),
        ("training", "mixed_precision", 16, "bool or str"),
        ("training", "lr", None, "float"),
    ],
)
def test_a_value_of_another_type_is_an_error(section, key, value, expected, values):
    values[section][key] = value
    with pytest.raises(InputError, match=f"{section}: {key} must be {expected}, got {value!r}"):
        from_dict(Config, values)


def test_a_whole_number_is_a_number_where_a_fraction_may_stand(values):
    values["model"]["dropout"] = 0
    dropout = from_dict(Config, values).model.dropout
    assert dropout == 0.0 and type(dropout) is float


@pytest.mark.parametrize(("written", "meant"), [("1e-4", 0.0001), ("2E-3", 0.002), ("+3e2", 300.0), ("1.5e-2", 0.015)])
def test_scientific_notation_without_a_point_is_a_number(written, meant, tiny_config, write):
    text = dump_config(Config(tiny_config)) + f"training: {{batch_size: 1, max_steps: 1, lr: {written}}}\n"
    assert load_config(write(text)).training.lr == meant


def test_ordinary_yaml_files_are_still_read_the_ordinary_way():
    load_config(SHIPPED[0])
    assert yaml.safe_load("1e-4") == "1e-4"  # our loader has not changed anybody else's


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("vocab_size", 0, "vocab_size must be an integer from 2 to 16777216, got 0"),
        ("num_layers", -1, "num_layers must be an integer from 1 to 512, got -1"),
        ("num_layers", 10**9, "num_layers must be an integer from 1 to 512, got 1000000000"),
        ("num_heads", 5, "hidden_dim 32 is not divisible by num_heads 5"),
        ("mask_token_id", 60, "mask_token_id 60 is outside the vocabulary; expected 0 … 59"),
        ("mask_token_id", -1, "mask_token_id must be an integer from 0 to"),
        *(
            ("logit_temperature", t, "logit_temperature must be a finite number > 0")
            for t in (0.0, -1.0, math.nan, math.inf)
        ),
        ("dropout", 1.0, "dropout must be a finite number ≥ 0 and < 1, got 1.0"),
    ],
)
def test_a_model_that_cannot_be_is_an_error(key, value, complaint, tiny_config):
    with pytest.raises(InputError, match=complaint):
        dataclasses.replace(tiny_config, **{key: value})


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("batch_size", 0, "batch_size must be an integer from 1 to"),
        ("lr", -0.1, "lr must be a finite number > 0"),
        ("ema_decay", 1.0, "ema_decay must be a finite number"),
        ("condition_dropout", -0.1, "condition_dropout must be a finite number"),
        ("optimizer", "sgd", "optimizer must be one of .*adamw.*muon.*, got 'sgd'"),
        ("weighting", "uniform", "weighting must be one of .*nelbo.*, got 'uniform'"),
        ("mixed_precision", "fp8", "mixed_precision must be one of .*bf16.*, got 'fp8'"),
    ],
)
def test_a_training_that_cannot_be_is_an_error(key, value, complaint):
    with pytest.raises(InputError, match=complaint):
        TrainingConfig(**{**TRAINING, key: value})


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_validation_needs_a_share_between_none_and_all(share):
    with pytest.raises(InputError, match="val_split must be a finite number > 0 and < 1"):
        DataConfig(val_split=share)


@pytest.mark.parametrize(("value", "is_bf16"), [(True, True), ("bf16", True), (False, False), ("no", False)])
def test_the_two_spellings_of_mixed_precision_mean_the_same(value, is_bf16):
    assert TrainingConfig(**TRAINING, mixed_precision=value).bf16 is is_bf16


def test_a_configuration_cannot_be_changed(tiny_config):
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_config.num_layers = 3


def test_a_missing_file_is_an_error_that_says_where_the_shipped_ones_are(tmp_path):
    with pytest.raises(InputError, match="no configuration at .*none.yaml; the ones that ship are in configs/"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("contents", ["model: {vocab_size: 3", "model: [1, 2\n", b"\xff\xfe\x00", "a: b: c"])
def test_broken_yaml_is_one_line_that_names_the_file(contents, write):
    with pytest.raises(InputError, match="config.yaml is not readable YAML ") as caught:
        load_config(write(contents))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("contents", ["", "- 1\n- 2\n", "just words", "model: 3\n"])
def test_a_file_that_is_no_mapping_is_an_error(contents, write):
    with pytest.raises(InputError, match="config.yaml: .*expected a mapping of keys to values"):
        load_config(write(contents))


def test_yaml_cannot_build_objects(write):
    with pytest.raises(InputError, match="not readable YAML"):
        load_config(write("model: !!python/object/apply:os.getcwd []\n"))


def test_a_notebook_shows_an_input_error_as_one_line():
    with pytest.raises(InputError) as caught:
        DataConfig(val_split=2.0)
    # What IPython prints in place of the traceback, if an exception has it.
    assert caught.value._render_traceback_() == ["InputError: val_split must be a finite number > 0 and < 1, got 2.0"]


def test_a_key_given_twice_is_an_error(write):
    with pytest.raises(InputError, match="'lr' is given twice"):
        load_config(write("training:\n  lr: 1.0\n  lr: 2.0\n"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", float("nan")), ("lr", float("inf")), ("warmup_steps", -1), ("decay_share", 7.0), ("weight_decay", -0.1)],
)
def test_rates_and_shares_have_bounds(key, value):
    with pytest.raises(InputError, match=key):
        TrainingConfig(**{"batch_size": 1, "max_steps": 1, "lr": 1.0, key: value})
