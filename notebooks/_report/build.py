"""Build the report: execute every notebook afresh, then render the executed copies as web pages.

Saved notebooks are never rendered as they are: the report shows what the code of today gives.
"""

import argparse
import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from execute import NOTEBOOKS, NotebookError, code_cells, execute, find_notebooks, is_only_live

HERE = Path(__file__).resolve().parent
# jupyter_execute: myst-nb's scratch folder, which it puts beside the pages without asking.
OWN_FOLDERS = ("executed", "report", "jupyter_execute")
LIVE_ONLY = "<p><em>A live control: open this notebook in JupyterLab to use it.</em></p>"
FOREIGN_TAG = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'\s>]+""")


class ReportError(Exception):
    """A report that could not be rendered; the message is one line."""


def build(notebooks: Path, out: Path) -> Path:
    """Execute `notebooks` into `out/executed`, render them into `out/report`; the entry page."""
    paths = find_notebooks(notebooks, [])
    clean(out)
    execute_all(paths, out / "executed")
    shutil.copy(HERE / "index.md", out / "executed")
    render(out / "executed", out / "report")
    shutil.rmtree(out / "jupyter_execute", ignore_errors=True)
    refuse_foreign_requests(out / "report")
    return out / "report" / "index.html"


def clean(out: Path) -> None:
    """Remove what an earlier build left: a page of a renamed notebook, or a stale report after a failure."""
    for name in OWN_FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def execute_all(paths: list[Path], executed: Path) -> None:
    """Execute each notebook, one printed line with its time per notebook. The first failure ends the report."""
    width = max(len(path.stem) for path in paths)
    for path in paths:
        seconds = execute(path, executed / path.name)
        settle_widgets(executed / path.name)
        print(f"{path.stem:{width}}  {seconds:6.1f} s", flush=True)


def settle_widgets(path: Path) -> None:
    """Say where a widget can be used, when it brings no static picture of itself: its place would stay empty."""
    notebook = nbformat.read(path, as_version=4)
    # No page reads the state, and myst-nb writes it into a <script> as it is: a token </script> would break out.
    notebook.metadata.pop("widgets", None)
    for cell in code_cells(notebook):
        for output in filter(is_only_live, cell.outputs):
            output.data["text/html"] = LIVE_ONLY
    nbformat.write(notebook, path)


def render(source: Path, report: Path) -> None:
    """Render with Sphinx; a warning (a dead link, a formula it cannot read) is an error, and all are shown."""
    flags = ["--quiet", "--fail-on-warning", "--keep-going", "--builder", "html"]
    folders = ["--conf-dir", HERE, "--doctree-dir", source / ".doctrees", source, report]
    if subprocess.run([sys.executable, "-m", "sphinx", *flags, *folders]).returncode:
        raise ReportError("the report was not rendered: see the warnings above")


def refuse_foreign_requests(report: Path) -> None:
    """Raise when a page would ask another host for anything: the report must read the same offline, and privately."""
    for page in sorted(report.rglob("*.html")):
        # Unescaped, because a player inside an iframe's srcdoc is escaped HTML.
        found = FOREIGN_TAG.search(html.unescape(page.read_text(encoding="utf-8")))
        if found:
            raise ReportError(f"{page.name} would load from another host: {found.group()[:200]}")


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Execute the notebooks and render them as a report.")
    parser.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="folder of the notebooks")
    parser.add_argument("--out", type=Path, default=NOTEBOOKS.parent / "build", help="where executed/ and report/ go")
    args = parser.parse_args()
    index = build(args.notebooks, args.out)
    print(f"{index}  {megabytes(index.parent):.1f} MB")


if __name__ == "__main__":
    try:
        main()
    except (NotebookError, ReportError) as error:
        sys.exit(str(error))
