"""Every notebook as a person meets it: JupyterLab in a real browser, all cells run, its widgets answer.

With SCREENS=1, screenshots of every notebook, light and dark, land in build/screens/.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.pages import ROOT, copy_without_outputs, free_port, jupyterlab, own_folders, screenshot, serving

NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
RUN_ALL = 600  # seconds; a slow machine may be slow, a hung cell must end
SETTLED = """() => {
  document.querySelector(".jp-WindowedPanel-outer").scrollTop = 0;
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
IDLE = """() => {
  const kernel = window.jupyterapp?.shell?.currentWidget?.context?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
RUN = """() => {
  window.finished = false;
  jupyterapp.commands.execute("notebook:run-all-cells").then(() => { window.finished = true; });
}"""


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory) -> Iterator[str]:
    """The address of a JupyterLab on the notebooks without their outputs, beside the data that they read."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "data").symlink_to(ROOT / "data", target_is_directory=True)
    for stem in NOTEBOOKS:
        copy_without_outputs(ROOT / "notebooks" / f"{stem}.ipynb", folder / "notebooks" / f"{stem}.ipynb")
    with jupyterlab(folder, tmp_path_factory.mktemp("jupyter")) as url:
        yield url


@pytest.fixture
def run_in_lab(chromium, lab):
    """Opens a notebook, runs all its cells, and gives the page; no request may have left this machine."""
    contexts, requests = [], []

    def run(stem: str) -> Page:
        context = chromium.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{lab}/lab/workspaces/{stem}/tree/notebooks/{stem}.ipynb?reset")
        page.wait_for_function(IDLE, timeout=120_000)
        page.evaluate(RUN)
        page.wait_for_function("window.finished", timeout=1000 * RUN_ALL)
        return page

    yield run
    for context in contexts:
        # The kernel goes with its notebook: the next one needs the memory.
        context.pages[0].evaluate("jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
        context.close()
    assert [url for url in requests if not url.startswith((lab, lab.replace("http", "ws"), "data:", "blob:"))] == []


def assert_ran(page: Page) -> None:
    """Every code cell has run, none ended in an error or wrote to stderr."""
    notebook = nbformat.from_dict(page.evaluate("jupyterapp.shell.currentWidget.context.model.toJSON()"))
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output.evalue for output in outputs if output.output_type == "error"] == []
    assert cells and all(cell.execution_count for cell in cells)
    assert [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr" and "Error" in o.text] == []


def screenshots(page: Page, name: str) -> None:
    """The whole notebook, in the light and in the dark, for whoever wants to look (`tests.pages.screenshot`)."""
    if "SCREENS" not in os.environ:
        return
    height = page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    page.set_viewport_size({"width": 1280, "height": min(height + 120, 15_000)})
    for theme in ("Light", "Dark"):
        page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', { theme })", f"JupyterLab {theme}")
        expect(page.locator("body")).to_have_attribute("data-jp-theme-light", str(theme == "Light").lower())
        expect(page.locator("#jupyterlab-splash")).to_have_count(0)
        page.evaluate(SETTLED)
        screenshot(page, f"lab-{name}-{theme.lower()}", full_page=False)
    page.set_viewport_size({"width": 1280, "height": 1000})


WITH_WIDGETS = {"02_adaln_modulation", "03_unmasking", "10_inversion_lab"}  # the last in widgets/test_lab.py


@pytest.mark.parametrize("stem", [stem for stem in NOTEBOOKS if stem not in WITH_WIDGETS])
def test_the_notebook_runs_in_jupyterlab(run_in_lab, stem):
    page = run_in_lab(stem)
    assert_ran(page)
    screenshots(page, stem)


def test_the_mixer_answers_in_notebook_02(run_in_lab):
    page = run_in_lab("02_adaln_modulation")
    assert_ran(page)
    mixer = page.get_by_role("group", name="Mixer")
    status, text = mixer.get_by_role("status"), mixer.locator(".text")
    expect(status).to_contain_text("the vector of A")
    before = text.text_content()

    mixer.get_by_role("slider", name="Way from A to B").press("End")
    expect(status).to_contain_text("the vector of B")
    assert text.text_content() != before

    mixer.get_by_role("button", name="Reset").click()
    expect(text).to_have_text(before)

    last = mixer.get_by_role("group", name="layer 5")
    last.get_by_role("radio", name="hears nothing").click()
    expect(status).to_contain_text("layer 5 is off")
    last.get_by_role("radio", name="hears nothing").press("ArrowUp")
    expect(status).to_contain_text("layer 5 hears B")
    mixer.get_by_role("button", name="Reset").click()

    sentence = mixer.get_by_role("textbox", name="Sentence A")
    sentence.fill("  ")
    sentence.press("Enter")
    expect(status).to_have_text("the first sentence is empty; write one")
    sentence.fill("Rain fell all night long.")
    sentence.press("Enter")
    expect(status).to_contain_text("the vector of A")
    assert text.text_content() != before
    screenshots(page, "02_adaln_modulation")


def test_the_player_answers_in_notebook_03(run_in_lab):
    page = run_in_lab("03_unmasking")
    assert_ran(page)
    player = page.get_by_role("group", name="Player")
    status, tokens = player.get_by_role("status"), player.get_by_role("listbox", name="Tokens").get_by_role("option")
    expect(status).to_contain_text("Step 0 of 10")
    expect(tokens.first.locator(".word")).to_have_text("[MASK]")

    slider = player.get_by_role("slider", name="Step")
    slider.press("End")
    expect(status).to_contain_text("Step 10 of 10 · nothing masked")
    slider.press("Home")
    player.get_by_role("button", name="Next step").click()
    expect(status).to_contain_text("Step 1 of 10")

    tokens.nth(2).hover()
    alternatives = player.get_by_role("region", name="Alternatives")
    expect(alternatives.locator(".heading")).to_contain_text("position 2")
    expect(alternatives.get_by_role("listitem").first).to_contain_text("0.")

    player.get_by_role("combobox", name="Speed").select_option("4")
    player.get_by_role("button", name="Play").click()
    expect(status).to_contain_text("Step 10 of 10", timeout=20_000)
    expect(player.get_by_role("button", name="Play")).to_be_visible()
    screenshots(page, "03_unmasking")


def test_make_lab_opens_beside_data_and_readme_and_no_pop_up_covers_the_page(chromium, tmp_path):
    told = subprocess.run(["make", "-n", "lab"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    options = shlex.split(re.search(r"-m jupyterlab (.*)", told)[1])
    assert options[-1] == "notebooks/01_load_the_checkpoint.ipynb"
    url, folders = f"http://127.0.0.1:{(port := free_port())}", ("WORKSPACES", "SETTINGS")
    env = own_folders(tmp_path) | {f"JUPYTERLAB_{name}_DIR": str(tmp_path / name.lower()) for name in folders}
    ours = ["--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=", "--expose-app-in-browser"]
    command = [sys.executable, "-m", "jupyterlab", *ours, *options]
    with serving(command, f"{url}/api", tmp_path / "log.txt", env):
        page = chromium.new_page()
        page.goto(f"{url}/lab/tree/notebooks/01_load_the_checkpoint.ipynb?reset")
        page.wait_for_function(IDLE, timeout=120_000)
        page.evaluate("jupyterapp.commands.execute('filebrowser:go-to-path', { path: '/' })")
        files = page.get_by_role("region", name="File Browser Section")
        for name in ("README.md", "data"):
            expect(files.get_by_text(name, exact=True)).to_be_visible()
        page.wait_for_timeout(3000)  # the question about news comes late
        assert page.locator(".Toastify__toast").all_inner_texts() == []
        page.close()
