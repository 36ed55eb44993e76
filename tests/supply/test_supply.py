"""What comes with this: licences that allow it, versions that are pinned, and the weights that were published."""

import re
import shutil
from pathlib import Path

import pytest

from invlib import InputError, Inverter, checkpoint
from tests.supply.bill import bill, canonical, installed, licence

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data" / "checkpoints" / "minilm"
ALLOWED = {
    *("MIT", "MIT License", "MIT-0", "MIT-CMU", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "3-Clause BSD License"),
    *("0BSD", "ISC", "ISC License (ISCL)", "Zlib", "CC0-1.0", "BSL-1.0", "Unlicense", "PSF-2.0", "CNRI-Python"),
    *("Apache-2.0", "Apache 2.0", "Apache 2.0 License", "Apache Software License", "Apache License, Version 2.0"),
    *("Python Software Foundation License", "LLVM-exception", "MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)"),
}
# docutils is in the public domain but for two files, one of them an Emacs mode under the GPL that nothing here runs.
EXCEPTIONS = {"docutils": "Public Domain; BSD License; GNU General Public License (GPL)"}


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in ("#", "")]
    return {canonical(name): version for name, version in (line.split("==") for line in lines)}


def test_every_installed_package_has_a_licence_that_allows_it():
    refused = {}
    for name, package in installed().items():
        told = licence(package)
        parts = [told] if told in ALLOWED else re.split(r" AND | OR | WITH |; ", told.replace("(", "").replace(")", ""))
        if EXCEPTIONS.get(name) != told and not ALLOWED.issuperset(parts):
            refused[name] = told
    assert refused == {}


def test_what_is_pinned_is_what_is_installed():
    here = installed()
    assert {name: here[name].version.partition("+")[0] for name in pinned().keys() & here.keys()} == {
        name: version for name, version in pinned().items() if name in here
    }


def test_the_bill_names_every_package_and_the_weights():
    told = bill()
    names = {part["name"] for part in told["components"]}
    assert told["bomFormat"] == "CycloneDX" and {"torch", "numpy", "invlib/minilm"} <= names
    assert all(part.get("purl", "pkg:").startswith("pkg:") and part["version"] for part in told["components"])


def test_the_bundled_checkpoint_is_the_one_its_sums_were_made_of():
    """After a change, in its folder: sha256sum config.yaml model.safetensors tokenizer.json > SHA256SUMS"""
    names = [line.split()[1] for line in (FOLDER / "SHA256SUMS").read_text().splitlines()]
    assert names == ["config.yaml", "model.safetensors", "tokenizer.json"]
    checkpoint.read("minilm")


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "tokenizer.json"])
def test_a_file_that_was_changed_is_named_when_it_opens(name, tmp_path):
    for own in ("config.yaml", "model.safetensors", "tokenizer.json", "SHA256SUMS"):
        shutil.copy(FOLDER / own, tmp_path)
    with open(tmp_path / name, "ab") as file:
        file.write(b"\n")
    with pytest.raises(InputError, match=f"{name} is not the file that .*SHA256SUMS was made of"):
        Inverter.load(tmp_path)


def test_the_bundled_configuration_bears_the_fingerprint_of_its_vocabulary():
    """`invlib.checkpoint.identity(config, tokenizer)` says what it must be."""
    inverter = Inverter.load("minilm")
    assert inverter.config.fingerprint == checkpoint.identity(inverter.config, inverter.tokenizer)
