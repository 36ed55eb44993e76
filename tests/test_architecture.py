"""The house: imports run downwards, folders stay small, functions fit one look, and `import invlib` stays light."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import invlib

PACKAGE = Path(invlib.__file__).parent

# The floors of each folder, top first: what stands on one imports only from those below it, so there is no cycle.
FLOORS = {
    "": (
        "audit widgets/lab __init__ __main__",
        "studies widgets",
        "inverter training plots",
        "search probes alignment words",
        "sampler checkpoint",
        "model encoder tokenizer policies perturb",
        "corrector",
        "config products masking trajectory metrics sources",
        "door",
        "errors",
    ),
    "door": ("__init__", "files options tokenfile torchfile vectors"),
    "audit": (
        "__main__",
        "__init__",
        "report firstpass trial",
        "audit verdict",
        "precision confidence membership watch",
        "origin survey",
        "decoding",
    ),
    "products": ("__init__ int8 linear",),
    "sources": ("__init__", "opening", "arrays databases texts", "tables", "records source", "cells"),
    "perturb": ("__init__", "unpaired", "mix noise quantise reduce secret", "perturbation"),
    "plots": ("__init__", "cells lines picture", "style"),
    "search": ("__init__", "rewrite swap_beam", "edits strategy", "target", "ledger"),
    "studies": (
        "__init__ __main__",
        "documents",
        "chunks claims frontier unpaired",
        "ablations alignment calibration search vanishing",
        "foreign tables",
        "attackers likelihood sweep utility",
        "score",
        "leaks results",
    ),
    "training": (
        "__init__ __main__",
        "adapt loop pack words",
        "cuts drafts",
        "packed run start",
        "trainer",
        "batches losses timebox vocabulary",
        "compute pairs",
    ),
    "widgets": ("__init__", "lab", "picture", "mixer player", "page"),
    "widgets/lab": (
        "__init__",
        "lab",
        "comparison",
        "session",
        "outcome take",
        "run verdict",
        "alignment settings sentences upload",
    ),
}
MODEL_AND_SAMPLER = {
    *("__init__", "__main__", "errors", "config", "corrector", "masking", "model", "tokenizer"),
    *("encoder", "checkpoint", "trajectory", "policies", "sampler", "inverter", "alignment"),
}
LONGEST_FUNCTION = 40  # lines: one look
MOST_PARAMETERS = 8  # more need a reason, in a comment on the line above or beside the first line
HEAVY = [
    *("sentence_transformers", "transformers", "scipy", "pandas"),
    *("matplotlib", "sklearn", "anywidget", "ipywidgets"),
]
LAZY = ["metrics", "perturb", "plots", "policies", "search", "widgets"]


# ── imports ──


def place(path: Path) -> str:
    """The module of a file: `search/target` for invlib/search/target.py."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


SOURCES = {place(path): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def imported(source: str) -> Iterator[str]:
    """The modules of invlib that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (found(alias.name) for alias in node.names if alias.name.split(".")[0] == "invlib")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import of {node.module}"
            if node.module.split(".")[0] == "invlib":
                yield from (found(f"{node.module}.{alias.name}") for alias in node.names)


def found(dotted: str) -> str:
    """`search/target` for invlib.search.target.Target, `search/__init__` for invlib.search.Target."""
    parts = dotted.split(".")[1:]
    while parts and "/".join(parts) not in SOURCES and "/".join([*parts, "__init__"]) not in SOURCES:
        parts.pop()
    name = "/".join(parts)
    return name if name in SOURCES else "/".join([*parts, "__init__"])


IMPORTS = [(module, other) for module, source in SOURCES.items() for other in imported(source)]


def floor(folder: str, module: str) -> int | None:
    """On which floor of a folder a module stands, 0 at the top: the longest name in the table decides."""
    names = {name: level for level, names in enumerate(FLOORS.get(folder, ())) for name in names.split()}
    parts = module.removeprefix(folder).strip("/").split("/")
    known = [names.get("/".join(parts[:length])) for length in range(len(parts), 0, -1)]
    return next((level for level in known if level is not None), None)


def is_above(module: str, other: str) -> bool:
    """Does a module stand above another, in the innermost folder that holds both?"""
    folder = os.path.commonpath([os.path.dirname(module), os.path.dirname(other)])
    floors = floor(folder, module), floor(folder, other)
    return None in floors or floors[0] < floors[1]  # who has no floor is told by the test above


def test_every_module_stands_on_a_floor_and_every_name_of_a_floor_is_a_module():
    without = [module for module in SOURCES if floor(module.rpartition("/")[0], module) is None]
    assert not without, "give them a floor in FLOORS"
    named = [f"{folder}/{name}".strip("/") for folder, floors in FLOORS.items() for name in " ".join(floors).split()]
    assert [name for name in named if name not in SOURCES and f"{name}/__init__" not in SOURCES] == []


def test_imports_run_downwards():
    upward = [f"{module} imports {other}" for module, other in IMPORTS if not is_above(module, other)]
    assert upward == []


# ── sizes ──


@pytest.mark.parametrize(
    ("most", "belongs"),
    [
        (2576, lambda module: module in MODEL_AND_SAMPLER),
        (3110, lambda module: "/" not in module),
        (15613, lambda module: True),
    ],
    ids=["model and sampler", "top of invlib", "all of invlib"],
)
def test_the_package_stays_thin(most, belongs):
    assert sum(len(source.splitlines()) for module, source in SOURCES.items() if belongs(module)) <= most


@dataclass(frozen=True)
class Function:
    """A function of the package, with its place and the lines of its file."""

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef
    text: list[str]

    @property
    def length(self) -> int:
        return self.node.end_lineno - self.node.lineno + 1

    @property
    def parameters(self) -> list[str]:
        given = self.node.args
        names = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
        return [one.arg for one in names if one is not None and one.arg not in ("self", "cls")]

    @property
    def has_a_reason(self) -> bool:
        """A comment on the line above the function (or its first decorator), or in its head."""
        first = min([self.node.lineno, *(decorator.lineno for decorator in self.node.decorator_list)])
        head = self.text[first - 1 : self.node.body[0].lineno - 1]
        said = [line.partition("#")[2].strip() for line in (*head, *self.text[max(first - 2, 0) : first - 1])]
        return any(words and not words.startswith(("noqa", "fmt:", "type:")) for words in said)


def functions() -> list[Function]:
    return [
        Function(f"{module}:{node.lineno} {node.name}", node, source.splitlines())
        for module, source in SOURCES.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_every_function_fits_one_look():
    assert [f"{one.name}: {one.length} lines" for one in functions() if one.length > LONGEST_FUNCTION] == []


def test_a_long_list_of_parameters_has_a_reason():
    long = [one for one in functions() if len(one.parameters) > MOST_PARAMETERS and not one.has_a_reason]
    assert [f"{one.name}: {len(one.parameters)} parameters" for one in long] == []


# ── what an import costs ──

LOOK = f"""
loaded = [name for name in {HEAVY} if name in sys.modules]
missing = [name for name in {LAZY} if getattr(getattr(invlib, name, None), "__name__", "") != "invlib." + name]
print(json.dumps([loaded, missing]))
"""
INVERT = f"""
inverter = invlib.Inverter.load("minilm")
inverter.invert([1.0] * inverter.config.embedding_cond_dim, num_steps=1)
print(json.dumps([name for name in {[*HEAVY, "torch._dynamo"]} if name in sys.modules]))
"""


def seen(program: str) -> list:
    """What a program prints behind `import invlib`, in a process of its own."""
    command = [sys.executable, "-c", f"import json, sys, invlib\n{program}"]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def fresh() -> list[list[str]]:
    """What `import invlib` has loaded, then what is not there as an attribute."""
    return seen(LOOK)


def test_importing_invlib_loads_nothing_heavy_beside_torch(fresh):
    assert fresh[0] == []


def test_the_rooms_are_there_as_attributes_without_an_import(fresh):
    assert fresh[1] == []


def test_a_vector_is_inverted_without_anything_heavy():
    assert seen(INVERT) == []
