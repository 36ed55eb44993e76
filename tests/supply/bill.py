"""The bill of materials: what is installed, as CycloneDX 1.6. `python -m tests.supply.bill` writes build/sbom.json."""

import hashlib
import importlib.metadata
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "data" / "checkpoints" / "minilm" / "model.safetensors"


def canonical(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(package: importlib.metadata.Distribution) -> str:
    """What a package says of its licence: the expression, else the classifiers, else the first line of the field."""
    told = package.metadata
    classified = [line.split(" :: ")[-1] for line in told.get_all("Classifier", []) if line.startswith("License ::")]
    return told.get("License-Expression") or "; ".join(classified) or (told.get("License") or "").partition("\n")[0]


def installed() -> dict[str, importlib.metadata.Distribution]:
    """Every installed package by its canonical name: the first on the path, and none that setuptools brings along."""
    found = [own for own in importlib.metadata.distributions() if "_vendor" not in str(own.locate_file(""))]
    return {canonical(package.metadata["Name"]): package for package in reversed(found)}


def bill() -> dict:
    """The packages, and the weights that are bundled."""
    packages = [
        {
            "type": "library",
            "name": name,
            "version": package.version,
            "purl": f"pkg:pypi/{name}@{package.version}",
            "licenses": [{"license": {"name": licence(package)}}],
        }
        for name, package in sorted(installed().items())
    ]
    sum256 = hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest()
    weights = {"type": "machine-learning-model", "name": "invlib/minilm", "version": sum256[:12]}
    weights["hashes"] = [{"alg": "SHA-256", "content": sum256}]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [*packages, weights]}


def main() -> None:
    path = ROOT / "build" / "sbom.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(bill(), indent=1) + "\n")
    print(f"{len(bill()['components'])} components; written to {path}")


if __name__ == "__main__":
    main()
