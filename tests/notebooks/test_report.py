"""The report: what stops it, and what a reader meets who opens it from a file with the network off."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import expect

from tests.pages import REPORT, ROOT, program, screenshot

NOTEBOOKS = ROOT / "notebooks"
STEMS = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
build = program("build")


def run_build(folder: Path, *sources: list[str], options: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """`make report` on small notebooks of the given code cells."""
    (folder / "notebooks").mkdir()
    for number, cells in enumerate(sources, start=1):
        notebook = new_notebook(cells=[new_markdown_cell(f"# Title {number}"), *map(new_code_cell, cells)])
        nbformat.write(notebook, folder / "notebooks" / f"{number:02d}_part.ipynb")
    command = [sys.executable, REPORT / "build.py", "--notebooks", folder / "notebooks", "--out", folder / "build"]
    return subprocess.run([*command, *options], capture_output=True, text=True)


# ── building ──


def test_each_notebook_is_one_line_with_its_time_and_the_end_names_what_was_made(tmp_path):
    done = run_build(tmp_path, ["1 + 1"], ["print('<b>')"], options=("--pdf",))
    first, second, site, pdf = done.stdout.splitlines()
    assert re.fullmatch(r"01_part +\d+\.\d s", first) and re.fullmatch(r"02_part +\d+\.\d s", second)
    assert re.fullmatch(rf"{tmp_path}/build/report/index.html +\d+\.\d MB", site)
    assert re.fullmatch(rf"{tmp_path}/build/report/report.pdf +\d+\.\d MB", pdf)
    printed = (tmp_path / "build" / "report" / "report.pdf").read_bytes()
    assert all(b"/Title (%02d. Title %d)" % (number, number) in printed for number in (1, 2))
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 3, "the front page, and each notebook on its own"
    assert done.returncode == 0
    assert {path.name for path in (tmp_path / "build").iterdir()} == {"executed", "report"}


def test_a_notebook_that_fails_stops_the_report_with_its_name_cell_and_error(tmp_path):
    (tmp_path / "build" / "report").mkdir(parents=True)
    (tmp_path / "build" / "report" / "index.html").write_text("an older report")
    done = run_build(tmp_path, ["1 + 1"], ["x = 1", "raise ValueError('no such policy')"], ["never = 'run'"])
    assert done.returncode == 2
    # On a machine with other work a kernel that is stopped may log something of its own before.
    assert done.stderr.strip().splitlines()[-1] == "error: 02_part.ipynb, code cell 2: ValueError: no such policy"
    assert re.fullmatch(r"01_part +\d+\.\d s\n02_part +failed\n", done.stdout)
    assert not (tmp_path / "build" / "report").exists(), "an older report would pass for the new one"


def test_a_report_too_large_to_pass_on_is_refused_with_its_largest_file(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "MAX_MEGABYTES", 0.001)
    (tmp_path / "small.txt").write_bytes(b"1" * 500)
    build.refuse_large(tmp_path)
    (tmp_path / "plot.png").write_bytes(b"1" * 700)
    with pytest.raises(build.ReportError, match=r"0\.0 MB, at most 0.001 are allowed; the largest file is plot\.png"):
        build.refuse_large(tmp_path)


@pytest.mark.parametrize(
    "tag", ['<script src="https://cdn.x/a.js">', "<img src=//x.y/a.png>", '<link href="http://x/">']
)
def test_a_page_that_would_ask_another_host_is_refused(tmp_path, tag):
    (tmp_path / "page.html").write_text("<a href='https://fine.example'>a link is no request</a>")
    build.refuse_foreign_requests(tmp_path)
    (tmp_path / "page.html").write_text(tag)
    with pytest.raises(build.ReportError, match=r"page\.html would load from another host"):
        build.refuse_foreign_requests(tmp_path)


def test_a_pdf_without_chromium_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(build.ReportError, match="a PDF needs Chromium.*apt-get install chromium"):
        build.print_pdf(tmp_path / "page.html", tmp_path / "out.pdf")


# ── reading ──


@pytest.fixture(scope="module")
def report(chromium, tmp_path_factory) -> Path:
    """The committed notebooks, rendered as they are: that they run is tested elsewhere, and takes minutes."""
    out = tmp_path_factory.mktemp("build")
    (out / "executed").mkdir()
    for stem in STEMS:
        shutil.copy(NOTEBOOKS / f"{stem}.ipynb", out / "executed")
        build.settle(out / "executed" / f"{stem}.ipynb")
    # Playwright allows one instance a thread, and this module's browser is running: the PDF has a test of its own.
    build.render_all(out)
    return out / "report"


def test_every_page_is_reached_by_the_navigation_with_all_pictures_and_no_request_elsewhere(open_file, report):
    page = open_file(report / "index.html")
    links = page.get_by_role("navigation").locator("a.reference.internal")
    assert {Path(link.get_attribute("href")).stem for link in links.all()} >= set(STEMS)
    for _ in STEMS:
        page.get_by_role("link", name="Next").click()
        assert Path(page.url).stem in STEMS
        page.wait_for_load_state("load")  # until then a picture may be on its way
        broken = "[...document.images].filter((image) => !image.complete || !image.naturalWidth).map((i) => i.src)"
        assert page.evaluate(broken) == []
    assert Path(page.url).stem == STEMS[-1]


def test_every_code_cell_is_folded_and_opens(open_file, report):
    page = open_file(report / f"{STEMS[0]}.html")
    folded = page.locator("div.cell details.hide")
    assert folded.count() == page.locator("div.cell_input").count() > 3
    expect(page.locator("div.cell_input").first).not_to_be_visible()
    folded.first.get_by_text("Show the code").click()
    expect(page.locator("div.cell_input").first).to_be_visible()


def test_the_search_finds_a_notebook_without_a_server(open_file, report):
    page = open_file(report / "search.html")
    page.goto(f"{(report / 'search.html').as_uri()}?q=participation")
    for _ in range(20):
        page.clock.run_for(500)
        if page.locator("#search-results li a").count():
            break
    expect(page.locator("#search-results li a").first).to_have_attribute("href", re.compile("02_adaln_modulation"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_player_plays_in_the_report(open_file, report, theme):
    page = open_file(report / "03_unmasking.html", theme=theme, width=600)
    player = page.get_by_role("group", name="Player")
    assert page.evaluate("document.documentElement.scrollWidth") <= 600
    expect(page.locator(".invlib-player")).to_have_css("color-scheme", theme)
    player.get_by_role("button", name="Play").click()
    page.clock.run_for(700 * 10)
    expect(player.get_by_role("status")).to_contain_text("Step 10 of 10 · nothing masked")
    assert_no_plate(page)
    page.set_viewport_size({"width": 1000, "height": 900})
    screenshot(page, f"report-03_unmasking-{theme}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_mixer_answers_in_the_report(open_file, report, theme):
    page = open_file(report / "02_adaln_modulation.html", theme=theme)
    mixer = page.get_by_role("group", name="Mixer")
    mixer.get_by_role("slider").fill("1")
    expect(mixer.get_by_role("status")).to_contain_text("the vector of B")
    mixer.get_by_role("group", name="layer 5").get_by_role("radio", name="hears nothing").click()
    expect(mixer.get_by_role("status")).to_contain_text("the vector of A, layer 5 is off")
    assert_no_plate(page)
    screenshot(page, f"report-02_adaln_modulation-{theme}")


@pytest.mark.parametrize("stem", ["index", *(s for s in STEMS if s not in ("02_adaln_modulation", "03_unmasking"))])
def test_the_page_fits_a_narrow_window(open_file, report, stem):
    page = open_file(report / f"{stem}.html", width=600)
    assert page.evaluate("document.documentElement.scrollWidth") <= 600
    page.set_viewport_size({"width": 1100, "height": 900})
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        screenshot(page, f"report-{stem}-{theme}")


def assert_no_plate(page) -> None:
    """In the dark the theme lays HTML on a light plate; a widget brings its own panel."""
    plates = page.locator(".text_html:has([data-invlib-player], [data-invlib-mixer])")
    assert plates.count()
    for plate in plates.all():
        assert plate.evaluate("node => getComputedStyle(node).backgroundColor") == "rgba(0, 0, 0, 0)"
