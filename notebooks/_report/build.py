"""Build the report: execute every notebook afresh, render the executed copies as web pages, and one PDF if asked.

Saved notebooks are never rendered as they are: the report shows what the code of today gives.
"""

import argparse
import html
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
from invlib import plots
from invlib.checkpoint import BUNDLED
from invlib.errors import InputError, command
from playwright.sync_api import sync_playwright

from execute import NOTEBOOKS, NotebookError, code_cells, execute, find_notebooks, is_only_live

HERE = Path(__file__).resolve().parent
# jupyter_execute: myst-nb's scratch folder, which it puts beside the pages without asking.
OWN_FOLDERS = ("executed", "report", "print", "jupyter_execute")
MAX_MEGABYTES = 25  # what can be sent by mail
QUIET = ("disable-gpu", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
MARGIN = {"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
FOOTER = {
    "display_header_footer": True,
    "header_template": "<span></span>",
    "footer_template": '<span class="pageNumber" style="margin: auto; font: 9px sans-serif; color: #666"></span>',
}
LIVE_ONLY = "<p><em>A live control: open this notebook in JupyterLab to use it.</em></p>"
FOREIGN_TAG = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'\s>]+""")


class ReportError(InputError):
    """A report that could not be rendered; the message is one line."""


def build(notebooks: Path, out: Path, *, pdf: bool = False) -> list[Path]:
    """Execute `notebooks` into `out/executed`, render them into `out/report`; its entry page, and the PDF if asked."""
    paths = find_notebooks(notebooks)
    clean(out)
    execute_all(paths, out / "executed")
    return render_all(out, pdf=pdf)


def render_all(out: Path, *, pdf: bool = False) -> list[Path]:
    """Render what lies in `out/executed`: `out/report/index.html`, and `out/report/report.pdf` if asked."""
    executed, report = out / "executed", out / "report"
    for name in ("index.md", "inversion.svg"):
        shutil.copy(HERE / name, executed)
    (executed / "headline.svg").write_text(headline(), encoding="utf-8")
    made = [report / "index.html"]
    render(executed, report, "html")
    if pdf:
        still = (HERE / "inversion.svg").read_text(encoding="utf-8").replace("infinite", "0")  # paper shows its end
        (executed / "inversion.svg").write_text(still, encoding="utf-8")
        render(executed, out / "print", "singlehtml")
        made.append(report / "report.pdf")
        print_pdf(out / "print" / "index.html", made[-1])
        shutil.rmtree(out / "print")
    shutil.rmtree(out / "jupyter_execute", ignore_errors=True)
    refuse_foreign_requests(report)
    refuse_large(report)
    return made


def headline() -> str:
    """The figure of the front page: what a search finds for how many encoder queries, in two domains."""
    curve = pd.read_csv(BUNDLED / "minilm" / "search.csv")
    curve = curve[(curve["metric"] == "exact_match") & (curve["group"] == "all")]
    curve = curve[curve["n"] == curve["n"].max()]  # a few sentences that were searched on are another curve
    with plt.style.context(plots.style.STYLE):
        ax = plots.plot_intervals(curve, "queries", "text")
        labels = {"xlabel": "questions to the encoder (log scale)", "ylabel": "exact sentences, 95 % interval"}
        ax.set(xscale="log", ylim=(0, 1.03), **labels)
        return plots.picture(ax, "Searching", "Two rising lines").svg


def clean(out: Path) -> None:
    """Remove what an earlier build left: a page of a renamed notebook, or a stale report after a failure."""
    for name in OWN_FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def execute_all(paths: list[Path], executed: Path) -> None:
    """Execute each notebook, one line per notebook: its name when it starts, its time when it is done.

    The first failure ends the report.
    """
    width = max(len(path.stem) for path in paths)
    for path in paths:
        print(f"{path.stem:{width}}  ", end="", flush=True)
        try:
            seconds = execute(path, executed / path.name)
        except NotebookError:
            print("failed", flush=True)
            raise
        settle(executed / path.name)
        print(f"{seconds:6.1f} s", flush=True)


def settle(path: Path) -> None:
    """Make an executed copy fit for a page: numbered, its code folded, and words where a widget shows nothing."""
    notebook = nbformat.read(path, as_version=4)
    title, number = notebook.cells[0], path.stem.partition("_")[0]
    title.source = re.sub(r"^# ", f"# {number}. " if number.isdigit() else "# Appendix: ", title.source)
    # No page reads the state, and myst-nb writes it into a <script> as it is: a token </script> would break out.
    notebook.metadata.pop("widgets", None)
    for cell in code_cells(notebook):
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
        for output in filter(is_only_live, cell.outputs):
            output.data["text/html"] = LIVE_ONLY
    nbformat.write(notebook, path)


def render(source: Path, report: Path, builder: str) -> None:
    """Render with Sphinx; a warning (a dead link, a formula it cannot read) is an error, and all are shown."""
    flags = ["--quiet", "--fail-on-warning", "--keep-going", "--builder", builder]
    folders = ["--conf-dir", HERE, "--doctree-dir", source / f".doctrees-{builder}", source, report]
    if subprocess.run([sys.executable, "-m", "sphinx", *flags, *folders]).returncode:
        raise ReportError("the report was not rendered: see the warnings above")


def refuse_foreign_requests(report: Path) -> None:
    """Raise when a page would ask another host for anything: the report must read the same offline, and privately."""
    for page in sorted(report.rglob("*.html")):
        # Unescaped, because a player inside an iframe's srcdoc is escaped HTML.
        found = FOREIGN_TAG.search(html.unescape(page.read_text(encoding="utf-8")))
        if found:
            raise ReportError(f"{page.name} would load from another host: {found.group()[:200]}")


def print_pdf(page: Path, pdf: Path) -> None:
    """Print a page through Chromium, without its scripts: a player shows its steps below each other, as on paper."""
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        raise ReportError("a PDF needs Chromium, and there is none; install one: apt-get install chromium")
    with sync_playwright() as playwright:
        # Root has no sandbox, as in a container; the page is our own and runs no script.
        args = ["--no-sandbox", *(f"--{name}" for name in QUIET)]
        browser = playwright.chromium.launch(executable_path=chromium, args=args)
        opened = browser.new_page(java_script_enabled=False, offline=True)
        opened.goto(page.resolve().as_uri())
        opened.pdf(path=pdf, format="A4", margin=MARGIN, outline=True, tagged=True, **FOOTER)
        browser.close()


def refuse_large(report: Path) -> None:
    """Raise when the report is too large to be passed on."""
    if megabytes(report) > MAX_MEGABYTES:
        largest = max(report.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
        raise ReportError(
            f"the report has {megabytes(report):.1f} MB, at most {MAX_MEGABYTES} are allowed; "
            f"the largest file is {largest.relative_to(report)}: draw fewer or smaller pictures there"
        )


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Execute the notebooks and render them as a report.")
    parser.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="folder of the notebooks")
    parser.add_argument("--out", type=Path, default=NOTEBOOKS.parent / "build", help="where executed/ and report/ go")
    parser.add_argument("--pdf", action="store_true", help="also print one PDF, through Chromium")
    args = parser.parse_args(arguments)
    for made in build(args.notebooks, args.out, pdf=args.pdf):
        size = megabytes(made.parent) if made.suffix == ".html" else made.stat().st_size / 1e6
        print(f"{made}  {size:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
