"""The house: imports run downwards, and `import invlib` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import invlib

FLOORS = (  # top first; a module or folder imports only from floors below its own
    ("__init__", "__main__", "audit"),
    ("studies", "widgets"),
    ("plots", "training", "inverter"),
    ("search", "probes"),
    ("sampler", "checkpoint"),
    ("model", "encoder", "tokenizer", "policies", "perturb"),
    ("config", "masking", "trajectory", "metrics"),
    ("errors",),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
PACKAGE = Path(invlib.__file__).parent


def imported(path: Path) -> set[str]:
    """Names of the invlib modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "invlib":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("invlib.")}
    return found


def module_name(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_a_floor():
    assert {module_name(path) for path in PACKAGE.rglob("*.py")} <= set(FLOOR)


def test_imports_run_downwards():
    upward = [
        f"{path.name} imports {name}"
        for path in PACKAGE.rglob("*.py")
        for name in imported(path) & set(FLOOR)
        if FLOOR[name] <= FLOOR[module_name(path)] and name != module_name(path)
    ]
    assert not upward


def test_importing_invlib_loads_neither_matplotlib_nor_a_widget_library():
    code = "import sys, invlib; print([m for m in ('matplotlib', 'ipywidgets', 'anywidget') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
