"""The notebooks: each runs from top to bottom, and what is committed is small, complete and free of noise."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.pages import CHROMIUM, ROOT, program

NOTEBOOKS = ROOT / "notebooks"
MAX_BYTES = 1_000_000
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
execute = program("execute")

every_notebook = pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)


def write_notebook(path, *sources):
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Title"), *map(new_code_cell, sources)]), path)
    return path


def kernel_outputs(notebook):
    return [output for cell in execute.code_cells(notebook) for output in cell.outputs]


def assert_bounded(path):
    notebook = nbformat.read(path, as_version=4)
    cells, outputs = execute.code_cells(notebook), kernel_outputs(notebook)
    repair = f"run: python notebooks/_report/execute.py --in-place {path.stem}"
    assert path.stat().st_size <= MAX_BYTES, f"{path.name} is too large to review"
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), repair
    assert not [output for output in outputs if output.output_type == "error"], repair
    assert not [output.text for output in outputs if execute.is_stderr(output)], f"a warning or a bar; {repair}"
    assert "widgets" not in notebook.metadata, repair


@every_notebook
@pytest.mark.skipif(CHROMIUM is not None, reason="JupyterLab runs it, in the browser tests")
def test_notebook_runs_top_to_bottom(path, tmp_path):
    execute.execute(path, tmp_path / path.name)
    executed = nbformat.read(tmp_path / path.name, as_version=4)
    assert all(cell.execution_count for cell in execute.code_cells(executed))


@every_notebook
def test_committed_notebook_is_bounded(path):
    assert_bounded(path)


def test_failing_notebook_is_named_in_one_line_with_its_cell_and_error(tmp_path):
    path = write_notebook(tmp_path / "09_broken.ipynb", "x = 1", "raise ValueError('no such\\npolicy')", "x = 2")
    with pytest.raises(execute.NotebookError) as failure:
        execute.execute(path, tmp_path / "executed" / path.name)
    assert str(failure.value) == "09_broken.ipynb, code cell 2: ValueError: no such policy"


def test_failing_notebook_is_left_as_it_was_when_executed_in_place(tmp_path):
    path = write_notebook(tmp_path / "09_broken.ipynb", "print('seen')", "1 / 0")
    before = path.read_bytes()
    with pytest.raises(execute.NotebookError, match="code cell 2: ZeroDivisionError"):
        execute.execute_in_place(path)
    assert path.read_bytes() == before


def test_executed_copy_holds_widget_state_and_the_committed_one_does_not(tmp_path):
    path = write_notebook(tmp_path / "08_slider.ipynb", "import ipywidgets\nipywidgets.IntSlider(3)")
    execute.execute(path, tmp_path / "copy.ipynb")
    execute.execute_in_place(path)
    assert "widgets" in nbformat.read(tmp_path / "copy.ipynb", as_version=4).metadata
    assert_bounded(path)


def test_progress_is_dropped_and_a_warning_between_two_bars_stays():
    bar = new_output(
        "stream", name="stderr", text="\r  0%|    | 0/2\r 50%|##  | 1/2\nUserWarning: old\n\r100%|####| 2/2\n"
    )
    rest = new_output("stream", name="stderr", text="\n\x1b[A")
    widget = new_output("display_data", {WIDGET_VIEW: {}, "text/plain": "epoch:   0%|          | 0/5"})
    (kept,) = execute.without_progress([bar, rest, widget])
    assert kept.text == "UserWarning: old\n"


@pytest.mark.parametrize(
    ("formats", "left"),
    [
        ([[WIDGET_VIEW, "text/plain"], ["image/png"]], [["image/png"]]),
        ([[WIDGET_VIEW, "text/plain", "text/html"]], [["text/plain", "text/html"]]),
        ([[WIDGET_VIEW, "text/plain"]], [["text/plain"]]),
    ],
    ids=["picture beside it", "picture of itself", "alone"],
)
def test_widget_gives_way_to_what_shows_without_a_kernel(formats, left):
    outputs = [new_output("display_data", dict.fromkeys(keys, "")) for keys in formats]
    assert [list(output.data) for output in execute.static_outputs(outputs)] == left
