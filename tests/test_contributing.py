"""CONTRIBUTING.md to the letter: every file is created, every change made, every command run, in a copy of the tree.

A recipe is a section of numbered steps. In a step a `diff` block changes the file that was named last, a `python` or
`yaml` block is that file, new, and a `bash` block is run.
"""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECIPES = ["Add a policy", "Add a perturbation", "Add an encoder", "Add a notebook"]
BLOCK = re.compile(r"^(?P<indent> *)```(?P<kind>\w+)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w./]+\.(?:py|md|yaml))`")


def sections() -> dict[str, str]:
    """Heading → what stands below it."""
    _, *parts = re.split(r"^## (.+)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def steps(recipe: str) -> Iterator[tuple[str, str, str | None]]:
    """Kind and text of each block, with the file that was named last before it."""
    end, file = 0, None
    for block in BLOCK.finditer(recipe):
        file = (FILE.findall(recipe[end : block.start()]) or [file])[0]
        yield block["kind"], textwrap.dedent(block["text"]), file
        end = block.end()


def follow(kind: str, text: str, file: Path) -> None:
    if kind == "bash":
        run(text)
    elif kind == "diff":
        change(file, text)
    else:
        assert not file.exists(), f"{file} is there already"
        file.write_text(text, encoding="utf-8")


def change(file: Path, diff: str) -> None:
    """What the lines with a blank or a minus say, once in the file, becomes what those with a blank or a plus say."""
    before, after = (
        "".join(line[1:] for line in diff.splitlines(keepends=True) if line[0] in signs) for signs in (" -", " +")
    )
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{file.name} has {text.count(before)} times:\n{before}"
    file.write_text(text.replace(before, after), encoding="utf-8")


def run(commands: str) -> None:
    """The commands of one block, in the copy, with this Python; the first that fails ends it."""
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        ["bash", "-euc", commands], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout[-3000:]}"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the repository; of its data only the folders are new, the files are those of the original."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("invlib", "tests", "configs", "notebooks"):
        shutil.copytree(ROOT / name, folder / name)
    for path in filter(Path.is_file, ROOT.iterdir()):
        shutil.copy(path, folder)
    (folder / "data").mkdir()
    for path in (ROOT / "data").iterdir():
        if path.name not in ("pairs", "runs"):  # what is trained here is written there
            (folder / "data" / path.name).symlink_to(path)
    return folder


def test_the_four_recipes_are_there_and_each_is_numbered_from_one():
    assert [heading for heading in sections() if heading.startswith("Add ")] == RECIPES
    for heading in RECIPES:
        numbers = [int(number) for number in re.findall(r"^(\d+)\. ", sections()[heading], re.MULTILINE)]
        assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 1


@pytest.mark.parametrize("heading", RECIPES)
def test_the_recipe_leads_where_it_says(tree, heading, monkeypatch):
    monkeypatch.chdir(tree)
    blocks = list(steps(sections()[heading]))
    assert [kind for kind, _, _ in blocks].count("bash"), "a recipe ends with a command that proves it"
    for kind, text, file in blocks:
        follow(kind, text, tree / (file or ""))


def test_what_was_added_has_the_style_of_the_house(tree, monkeypatch):
    monkeypatch.chdir(tree)
    run("python -m ruff check invlib tests notebooks && python -m ruff format --check invlib tests notebooks")
