"""The files by which people install this."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_has_the_right_shape_which_does_not_prove_that_conda_can_solve_it():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[a-z]+:.*|\s*- .+", line) for line in lines), "a line of another form"
    values = yaml.safe_load("\n".join(lines))
    assert set(values) == {"name", "channels", "dependencies"} and values["channels"] == ["conda-forge"]
    *conda, pip = values["dependencies"]
    assert [Requirement(spec).name for spec in conda] == ["python", "pip"]
    options = {"--constraint": "constraints.txt", "--editable": ".[lab,report,dev]"}
    for line in pip["pip"]:
        option, _, value = line.partition(" ")
        assert options.get(option) == value or Requirement(line)


def test_environment_yml_asks_for_the_same_as_make():
    installs = re.findall(r"pip install (.+)", (ROOT / "Makefile").read_text())
    by_make = {word.strip('"') for line in installs for word in line.split() if word[0] != "-"}
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {line.split()[-1] for line in pip["pip"]} == by_make
    assert str(Requirement(conda[0]).specifier) == PROJECT["requires-python"]
    assert f".[{','.join(PROJECT['optional-dependencies'])}]" in by_make


def test_every_dependency_is_pinned_by_the_constraints():
    wanted = [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]
    by_make = re.findall(r"[\w-]+==[\w.]+", (ROOT / "Makefile").read_text())
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    versions = {pin.name.lower().replace("_", "-"): str(pin.specifier).removeprefix("==") for pin in pins}
    for line in wanted + by_make:
        requirement = Requirement(line)
        assert requirement.specifier.contains(versions[requirement.name.lower()]), line


def test_the_readme_shows_commands_that_exist():
    readme, recipe = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z]+)", readme))
    assert {"lab", "test", "report"} <= targets
    assert all(re.search(rf"^{target}:", recipe, re.MULTILINE) for target in targets)
    assert "make lab" in "\n".join(readme.splitlines()[:30]) and "make test" in "\n".join(readme.splitlines()[:30])


def test_the_readme_names_files_that_exist():
    readme = (ROOT / "README.md").read_text()
    names = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme) + re.findall(r"configs/\w+\.yaml", readme)
    assert len(names) > 8
    assert [name for name in names if not (ROOT / name).is_file()] == []


def test_what_the_readme_says_about_python_is_what_is_required():
    (version,) = re.findall(r"Python (\d+\.\d+) or newer", (ROOT / "README.md").read_text())
    assert PROJECT["requires-python"] == f">={version}"
    assert f"sys.version_info < ({version.replace('.', ', ')})" in (ROOT / "Makefile").read_text()
