"""Execute notebooks top to bottom: for the report, for the tests, and in place before a commit.

python notebooks/_report/execute.py --in-place                 every committed notebook
python notebooks/_report/execute.py --in-place 03_unmasking 05_decoding  these alone
"""

import argparse
import re
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from invlib.errors import InputError, command
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parents[1]
CELL_TIMEOUT = 1800  # seconds; a cell that trains on a slow CPU must fit, a hung kernel must end
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# What JupyterLab itself writes for a fresh notebook, so that opening and saving one shows no difference.
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python"}

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
REDRAWN_LINE = re.compile(r"[^\n]*\r[^\n]*\n?")  # not str.splitlines: it takes \r itself for the end of a line
PROGRESS_BAR = re.compile(r"\d+%\||\d+it \[")


class NotebookError(InputError):
    """A notebook that did not run to its end; the message is one line with notebook, cell and error."""


def execute(path: Path, out: Path) -> float:
    """Run a notebook in its own folder, write the executed copy with outputs and widget state; seconds taken."""
    notebook, seconds = executed(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out)
    return seconds


def execute_in_place(path: Path) -> float:
    """Run a notebook and keep only what belongs into the repository. A failure leaves the file as it was."""
    notebook, seconds = executed(path)
    bound(notebook)
    nbformat.write(notebook, path)
    return seconds


def executed(path: Path) -> tuple[NotebookNode, float]:
    """The notebook with every cell run, without the progress bars that it drew; seconds taken."""
    notebook, started = nbformat.read(path, as_version=4), []
    begin = time.perf_counter()
    try:
        # nbclient leaves a kernel running when the manager is not its own
        kernel_client(notebook, path.parent, started).execute(cleanup_kc=True)
    except (CellExecutionError, CellTimeoutError, RuntimeError) as error:  # RuntimeError: the kernel itself died
        raise NotebookError(f"{path.name}, code cell {len(started)}: {summary(error)}") from None
    for cell in code_cells(notebook):
        cell.outputs = without_progress(cell.outputs)
    return notebook, time.perf_counter() - begin


def kernel_client(notebook: NotebookNode, folder: Path, started: list[int]) -> NotebookClient:
    """A client that runs the notebook in `folder` and appends the index of each code cell it starts.

    The kernel is always this environment's Python, whatever kernel name the notebook was last saved with.
    """
    return NotebookClient(
        notebook,
        # Encrypted where the machine can: otherwise every kernel logs that it "runs over TCP without encryption".
        km=AsyncKernelManager(kernel_name="python3", transport_encryption="auto"),
        timeout=CELL_TIMEOUT,
        record_timing=False,
        store_widget_state=True,
        resources={"metadata": {"path": str(folder)}},
        on_cell_execute=lambda cell, cell_index: started.append(cell_index),
    )


def summary(error: Exception) -> str:
    """The error's name and message on one line. nbclient's own text is the whole cell with its traceback."""
    name, message = type(error).__name__, str(error)
    if isinstance(error, CellExecutionError):
        name, message = error.ename, error.evalue
    return f"{name}: {textwrap.shorten(ANSI.sub('', message), 300)}"


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that a kernel runs: code, and not empty."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def without_progress(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs without progress bars, which an export shows frozen or redrawn line by line. Warnings stay."""
    for output in filter(is_stderr, outputs):
        output.text = REDRAWN_LINE.sub("", output.text)
    return [output for output in outputs if not is_progress(output)]


def is_stderr(output: NotebookNode) -> bool:
    return output.output_type == "stream" and output.name == "stderr"


def is_progress(output: NotebookNode) -> bool:
    """True for what bars leave behind: nothing but cursor movements, or the widget of `tqdm.auto` as first drawn."""
    if is_stderr(output):
        return not ANSI.sub("", output.text).strip()
    data = output.get("data", {})
    return WIDGET_VIEW in data and bool(PROGRESS_BAR.search(data.get("text/plain", "")))


def bound(notebook: NotebookNode) -> None:
    """Keep what a reader of the repository needs; drop what grows the file or changes with every run."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.update(kernelspec=KERNELSPEC, language_info=LANGUAGE)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    for cell in code_cells(notebook):
        cell.outputs = static_outputs(cell.outputs)


def static_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs that show something without a kernel; a lone widget leaves its plain text.

    A view without its state is worse than none: JupyterLab prefers it to the HTML beside it and shows
    "model not found".
    """
    kept = [output for output in outputs if not is_only_live(output)] or outputs
    for output in kept:
        output.get("data", {}).pop(WIDGET_VIEW, None)
    return kept


def is_only_live(output: NotebookNode) -> bool:
    """True for a widget with no static picture of itself (its plain text is only a constructor call)."""
    formats = output.get("data", {}).keys()
    return WIDGET_VIEW in formats and not formats - {WIDGET_VIEW, "text/plain"}


def find_notebooks(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Notebooks of a folder in order, all of them or those named (with or without `.ipynb`)."""
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    wanted = [Path(name).stem for name in names] or list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise NotebookError(f"no notebook {', '.join(unknown) or 'at all'} in {folder}; there: {', '.join(known)}")
    return [known[name] for name in wanted]


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Re-execute committed notebooks in place, bounded for a commit.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 01_load_the_checkpoint; none means all")
    parser.add_argument("--in-place", action="store_true", required=True, help="overwrite the notebooks (required)")
    parser.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="their folder")
    args = parser.parse_args(arguments)
    for path in find_notebooks(args.notebooks, args.names):
        seconds = execute_in_place(path)
        print(f"{path.stem}  {seconds:.1f} s  {path.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    sys.exit(main())
