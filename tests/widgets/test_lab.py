"""The lab's page: what it is told and tells, and what a person meets in JupyterLab."""

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import invlib
from invlib import InputError
from invlib.widgets import lab
from invlib.widgets.lab.session import IDLE
from invlib.widgets.player import static_html
from tests.pages import PATIENCE, ROOT, LabPage, copy_without_outputs, jupyterlab

TEXT, OTHER = "Meet me at the station at nine.", "The train to the coast leaves at noon."
NOTEBOOK = ROOT / "notebooks" / "10_inversion_lab.ipynb"
SECONDS = 60


@pytest.fixture(scope="module")
def vector(inverter) -> np.ndarray:
    return inverter.encoder.encode([TEXT])[0]


@pytest.fixture
def widget(inverter):
    widget = lab(inverter)
    yield widget
    widget.session.stop()
    widget.session.wait(SECONDS)
    widget.close()


def ask(widget, action: str, *, file: bytes | None = None, settings: dict | None = None, **more) -> dict:
    """What a page would send; the notice that came back."""
    content = {"do": action, "settings": settings or {"text": TEXT}, **more}
    widget._on_message(widget, content, [memoryview(file)] if file is not None else [])
    widget.session.wait(SECONDS)
    return widget.notice


# ── what the page is told ──


def test_the_module_is_the_player_s_and_the_lab_s_with_one_export(widget):
    text = widget._esm
    assert text.count("export default") == 1 and "class Player" in text and "class Lab" in text


def test_an_inversion_is_told_in_frames_numbers_and_words(widget):
    assert ask(widget, "invert") == {}
    outcome = widget.session.outcome
    assert widget.outcome["text"] == outcome.text and widget.outcome["cosine"] == outcome.cosine
    assert widget.frames["tokens"][0] == [-1] * len(widget.session.trajectory)
    assert widget.progress["state"] == IDLE
    json.dumps([widget.frames, widget.outcome, widget.steering, widget.options])


def test_a_pinned_token_has_no_probability_from_where_it_was_pinned(widget):
    ask(widget, "invert")
    ask(widget, "pin", position=4, token="noon")
    assert widget.steering == {"pinned": {"4": "noon"}, "masked": []}
    ask(widget, "run on", step=3)
    assert widget.frames["pinned"] == [4] and widget.frames["pinned_since"] == [4]
    confidence = np.array(widget.frames["confidence"])
    assert (confidence[4:, 4] == -1).all()
    shown = [widget.frames["pieces"][i] for i in np.array(widget.frames["tokens"])[4:, 4]]
    assert set(shown) == {"noon"}


def test_every_message_is_answered_whatever_comes_of_it(widget):
    for number, action in enumerate(("invert", "dance", "pin"), start=1):
        ask(widget, action, page="a", number=number, position=99)
        assert widget.answered == {"page": "a", "number": number}


def test_masks_and_releases_are_told(widget):
    ask(widget, "invert")
    ask(widget, "remask", position=1)
    assert widget.steering["masked"] == [1]
    ask(widget, "release", position=1)
    assert widget.steering["masked"] == []


def test_the_vector_is_told_as_bars(widget, vector):
    ask(widget, "look", settings={"text": TEXT, "strength": 0.0})
    assert widget.vector["norm"] == 1 and widget.vector["cosine"] == 1 and widget.vector["stored"] == 384
    np.testing.assert_allclose(np.array(widget.vector["bars"]) / 100 * widget.vector["top"], vector, atol=0.002)
    ask(widget, "look", settings={"text": TEXT, "strength": 0.05})
    assert widget.vector["cosine"] < 0.9 and widget.vector["norm"] > 1.2


def npy(tmp_path, array) -> bytes:
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    return (tmp_path / "v.npy").read_bytes()


def test_an_uploaded_file_becomes_the_pasted_numbers_and_inverts_to_the_same(widget, vector, tmp_path):
    assert ask(widget, "upload", file=npy(tmp_path, vector), name="v.npy") == {}
    numbers = np.array([float(word) for word in widget.uploaded["numbers"].split(", ")], np.float32)
    np.testing.assert_array_equal(numbers, vector)
    ask(widget, "invert")
    by_text = widget.outcome["text"]
    ask(widget, "invert", settings={"vector": widget.uploaded["numbers"]})
    assert widget.outcome["text"] == by_text and widget.outcome["pairs"] == []


@pytest.mark.parametrize(
    ("action", "more", "message"),
    [
        ("invert", {"settings": {"text": ""}}, "There is no text to invert"),
        ("invert", {"settings": {"vector": ""}}, "There is no vector"),
        ("invert", {"settings": {"vector": "1, 2, 3"}}, "shape (1, 3); this checkpoint inverts 384-dimensional"),
        ("invert", {"settings": {"text": "x" * 1001}}, "1,001 characters"),
        ("invert", {"settings": {"text": TEXT, "num_steps": ""}}, "Steps must be a whole number, got ''"),
        ("look", {"settings": {"vector": "1, two"}}, "entry 2, 'two', is not a number"),
        ("run on", {}, "There is nothing to run on from"),
        ("pin", {"position": 0}, "There is no text yet"),
        ("upload", {"file": b"\x00\xff", "name": "v.npy"}, "v.npy cannot be read"),
        ("upload", {"file": b"1, 2", "name": "v.csv"}, "shape (2,); this checkpoint inverts 384-dimensional"),
        ("dance", {}, "KeyError: 'dance'"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line_and_the_lab_stays_usable(widget, action, more, message):
    notice = ask(widget, action, **more)
    assert notice["kind"] == "error" and message in notice["text"] and "\n" not in notice["text"]
    assert ask(widget, "invert") == {} and widget.outcome["text"]


def test_an_uploaded_pickle_is_refused(widget, tmp_path):
    notice = ask(widget, "upload", file=npy(tmp_path, np.array([{}])), name="v.npy")
    assert "holds Python objects, which could run code" in notice["text"] and widget.uploaded == {}


def test_an_error_in_the_thread_is_told(widget, monkeypatch):
    monkeypatch.setattr(widget.session.inverter, "steps", lambda *_, **__: 1 / 0)
    assert ask(widget, "invert") == {"kind": "error", "text": "ZeroDivisionError: division by zero"}
    monkeypatch.undo()
    assert ask(widget, "invert") == {}


def test_without_a_kernel_there_is_the_player_and_plain_text(widget):
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"] == "Inversion lab: nothing inverted yet" and "Run this cell" in data["text/html"]
    ask(widget, "invert", settings={"text": "<b>Meet</b> me."})
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"].startswith("<b>Meet</b> me. → ")
    assert "<b>Meet" not in data["text/html"] and static_html(widget.frames) in data["text/html"]


def test_what_is_no_inverter_is_refused():
    with pytest.raises(InputError, match=r"needs an Inverter, got str; pass invlib.Inverter.load\('minilm'\)"):
        lab("minilm")


# ── in JupyterLab ──

READY = """() => {
  const context = window.jupyterapp?.shell?.currentWidget?.context?.sessionContext;
  const kernel = context?.session?.kernel;
  return context?.isReady && kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""


@pytest.fixture(scope="module")
def address(chromium, tmp_path_factory):
    """The committed notebook without its outputs, in a JupyterLab of its own."""
    folder = tmp_path_factory.mktemp("jupyter")
    copy_without_outputs(NOTEBOOK, folder / "root" / "lab.ipynb")
    with jupyterlab(folder / "root", folder) as url:
        yield f"{url}/lab/workspaces/t/tree/lab.ipynb?reset"


@pytest.fixture(scope="module")
def notebook(chromium, address) -> Iterator[Page]:
    """The notebook with all its cells run; in the end no error was seen and nobody else was asked."""
    host, requests = address.partition("/lab/")[0], []
    page = chromium.new_context(viewport={"width": 1600, "height": 1000}).new_page()
    page.set_default_timeout(PATIENCE)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_function(READY, timeout=PATIENCE)
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    yield page
    local = (host, host.replace("http", "ws"), "data:", "blob:")
    assert not page.errors and [url for url in requests if not url.startswith(local)] == []


@pytest.fixture
def bench(notebook) -> LabPage:
    """The lab in the notebook, with one inversion done and the settings beside it."""
    notebook.set_viewport_size({"width": 1600, "height": 1000})
    bench = LabPage(notebook)
    expect(bench.button("Invert")).to_be_visible(timeout=PATIENCE)
    bench.root.scroll_into_view_if_needed()
    bench.button("Stop").evaluate("button => button.disabled || button.click()")  # in one: it may end meanwhile
    for label, value in (("Steps", "8"), ("Candidates", "1"), ("Seed", "0")):
        bench.root.get_by_label(label, exact=True).fill(value)
    bench.invert("Plants need light and water.")
    return bench


def test_every_cell_of_the_notebook_runs_without_an_error(notebook):
    for prompt in notebook.locator(".jp-CodeCell .jp-InputPrompt").all():
        expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=PATIENCE)
    assert notebook.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert notebook.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert notebook.get_by_role("group", name="Player").count() == 2
    assert not notebook.errors


def test_type_and_invert(bench, inverter):
    expected = inverter.invert(inverter.encoder.encode([OTHER]), verify=True)
    assert bench.invert(OTHER) == expected.texts[0]
    assert " ".join(bench.words()) == " ".join(expected.trajectories[0].words(8))
    scores = bench.root.locator(".scores").text_content()
    assert f"cosine{expected.cosines[0]:.3f}" in scores and f"model calls{expected.model_calls[0]}" in scores
    original = bench.root.get_by_role("list", name="Original and recovered").get_by_role("listitem")
    assert original.count() >= len(invlib.metrics.words(OTHER))
    bench.shot("lab-1600-light")


def test_it_is_busy_from_the_click_on(bench):
    click = "button => (button.click(), button.closest('.invlib-lab').getAttribute('aria-busy'))"
    assert bench.button("Invert").evaluate(click) == "true"
    bench.is_idle()
    bench.page.wait_for_timeout(500)
    expect(bench.root).to_have_attribute("aria-busy", "false")


def test_scrub_and_hover(bench, inverter):
    trajectory = inverter.invert(inverter.encoder.encode(["Plants need light and water."])).trajectories[0]
    for step in (0, 3, 8):
        bench.step.fill(str(step))
        assert bench.words() == trajectory.words(step)
    for position in range(len(trajectory)):
        bench.tokens.nth(position).hover()
        asked = max(s for s in range(9) if trajectory.alternatives(s, position))
        alternatives = bench.root.get_by_role("region", name="Alternatives").get_by_role("listitem")
        words = [item.locator(".word").text_content() for item in alternatives.all()]
        assert words == [piece for piece, _ in trajectory.alternatives(asked, position)]


def test_pin_a_word_and_see_what_changes(bench):
    before = bench.words()
    bench.tokens.nth(1).click()
    bench.root.get_by_label("Another word to pin").fill("love")
    bench.page.keyboard.press("Enter")
    expect(bench.tokens.nth(1)).to_have_attribute("aria-label", "position 1: love, pinned for the next run")
    expect(bench.root.get_by_role("group", name="Steering")).to_contain_text("1 token pinned")
    bench.button("Invert").click()
    expect(bench.root.get_by_role("list", name="What changed")).to_be_visible(timeout=PATIENCE)
    bench.is_idle()
    after = bench.words()
    assert after[1] == "love" and after != before
    expect(bench.tokens.nth(1)).to_have_class(re.compile("pinned"))
    bench.shot("lab-1600-light-pinned")
    bench.touch(1, "Unpin")
    expect(bench.tokens.nth(1)).to_have_attribute("aria-label", re.compile("no longer pinned"))
    bench.button("Invert").click()
    expect(bench.tokens.nth(1)).not_to_have_class(re.compile("pinned"), timeout=PATIENCE)


def test_pin_an_alternative_mask_another_and_run_on_from_there(bench):
    before = bench.words()
    bench.tokens.nth(0).hover()
    row = bench.root.get_by_role("region", name="Alternatives").get_by_role("listitem").nth(1)
    other = row.locator(".word").text_content()
    row.get_by_role("button").click()
    expect(bench.tokens.nth(0)).to_have_attribute("aria-label", f"position 0: {other}, pinned for the next run")
    bench.touch(2, "Mask again")
    expect(bench.tokens.nth(2)).to_have_attribute("aria-label", "position 2: [MASK], to be written anew")
    bench.button("Run on").click()
    expect(bench.step).to_have_attribute("max", "10", timeout=PATIENCE)
    bench.is_idle()
    after = bench.words()
    assert after[0] == other and after[3:] == before[3:] and "[MASK]" not in after
    bench.step.fill("9")
    assert bench.words()[2] == "[MASK]"
    bench.touch(0, "Unpin")


def test_stop_in_the_middle_and_a_second_click_is_refused_kindly(bench):
    bench.text.fill("A very long road led to the quiet village by the lake.")
    bench.button("Search closer").click()
    expect(bench.button("Stop")).to_be_enabled(timeout=PATIENCE)
    bench.button("Search closer").click()
    expect(bench.note).to_have_text("An inversion is running; wait for it, or press Stop first", timeout=PATIENCE)
    expect(bench.doing).to_contain_text("of 2,000 queries · best cosine", timeout=PATIENCE)
    bench.button("Stop").click()
    bench.is_idle()
    expect(bench.root.get_by_role("region", name="What came back")).to_contain_text("stopped", timeout=PATIENCE)
    expect(bench.button("Copy as code")).to_be_disabled()


def test_step_once_shows_one_step_at_a_time(bench):
    bench.text.fill(OTHER)
    for step in ("1", "2"):
        bench.button("Step once").click()
        expect(bench.step).to_have_attribute("max", step, timeout=PATIENCE)
        expect(bench.doing).to_contain_text("Held between two steps", timeout=PATIENCE)
    assert "[MASK]" in bench.words()
    bench.button("Run on").click()
    bench.is_idle()
    expect(bench.step).to_have_attribute("max", "8", timeout=PATIENCE)
    expect(bench.recovered).not_to_have_text("nothing yet")


def test_an_empty_text_is_an_error_in_one_line_and_the_lab_stays_usable(bench):
    bench.text.fill("")
    bench.button("Invert").click()
    expect(bench.alert).to_contain_text("There is no text to invert; type a sentence", timeout=PATIENCE)
    bench.shot("lab-1600-light-error")
    assert bench.invert(OTHER)
    expect(bench.alert).to_be_hidden()


def test_a_vector_of_the_wrong_size_a_file_and_a_pickle(bench, vector, tmp_path):
    by_text = bench.invert(TEXT)
    bench.tab("Vector").click()
    bench.numbers.fill("0.1, 0.2, 0.3")
    bench.button("Invert").click()
    expect(bench.alert).to_contain_text("this checkpoint inverts 384-dimensional vectors", timeout=PATIENCE)
    npy(tmp_path, np.array([{}]))
    bench.root.get_by_label("Vector file").set_input_files(tmp_path / "v.npy")
    expect(bench.alert).to_contain_text("holds Python objects, which could run code", timeout=PATIENCE)
    npy(tmp_path, vector)
    bench.root.get_by_label("Vector file").set_input_files(tmp_path / "v.npy")
    expect(bench.numbers).to_have_value(re.compile(r"(-?\d\S*, ){383}"), timeout=PATIENCE)
    bench.button("Invert").click()
    expect(bench.root.get_by_role("list", name="Original and recovered")).to_have_count(0, timeout=PATIENCE)
    assert bench.came_back() == by_text
    expect(bench.alert).to_be_hidden()


def test_noise_moves_the_vector(bench):
    expect(bench.root.locator(".norm")).to_contain_text("384 dimensions · norm 1.000", timeout=PATIENCE)
    bench.root.get_by_label("Strength of the perturbation").fill("0.05")
    expect(bench.root.locator(".norm")).to_contain_text(
        re.compile(r"cosine 0\.\d+ to the clean vector"), timeout=PATIENCE
    )
    bench.root.get_by_label("Strength of the perturbation").fill("0")
    expect(bench.root.locator(".norm")).not_to_contain_text("cosine", timeout=PATIENCE)


def test_the_result_is_the_next_input_and_can_be_copied_as_code(bench):
    text = bench.recovered.text_content()
    bench.button("Copy as code").click()
    expect(bench.code).to_contain_text("inverter = invlib.Inverter.load('minilm')")
    expect(bench.code).to_contain_text("result = inverter.invert(vectors, num_steps=8, policy=top_confidence")
    bench.button("Use as new input").click()
    expect(bench.text).to_have_value(text)
    expect(bench.text).to_be_focused()


def test_the_keyboard_pins_masks_and_opens_a_token(bench):
    bench.tokens.nth(1).focus()
    bench.page.keyboard.press("p")
    expect(bench.root.get_by_role("group", name="Steering")).to_contain_text("1 token pinned", timeout=PATIENCE)
    bench.page.keyboard.press("p")
    expect(bench.root.get_by_role("group", name="Steering")).not_to_contain_text("pinned:", timeout=PATIENCE)
    bench.tokens.nth(1).focus()
    bench.page.keyboard.press("m")
    expect(bench.tokens.nth(1)).to_have_attribute("aria-label", re.compile("to be written anew"), timeout=PATIENCE)
    bench.tokens.nth(1).focus()
    bench.page.keyboard.press("Enter")
    expect(bench.root.get_by_role("toolbar").get_by_role("button", name="Keep")).to_be_focused()
    bench.page.keyboard.press("Enter")
    expect(bench.tokens.nth(1)).not_to_have_attribute("aria-label", re.compile("anew"), timeout=PATIENCE)
    bench.page.keyboard.press("Enter")
    bench.page.keyboard.press("Escape")
    expect(bench.root.get_by_role("toolbar")).to_have_count(0)


def test_a_screen_reader_finds_every_part(bench):
    for role, name in [
        *[("button", name) for name in ("Invert", "Search closer", "Step once", "Stop", "Run on", "Use as new input")],
        *[("region", name) for name in ("What to invert", "How to invert", "What came back", "About this result")],
        *[("region", name) for name in ("Alternatives", "Compare")],
        *[("spinbutton", name) for name in ("Steps", "Candidates", "Seed", "Guidance", "Encoder queries")],
        *[("combobox", name) for name in ("Perturbation", "Policy")],
        *[("slider", "Strength of the perturbation"), ("textbox", "Text to invert"), ("tablist", "Input")],
        *[("checkbox", "Watch the cosine"), ("img", "Vector of 384 numbers"), ("listbox", "Tokens")],
        *[("img", "Heat map"), ("button", "Another sentence"), ("combobox", "Kind of sentence")],
    ]:
        assert bench.root.get_by_role(role, name=name).count() == 1, (role, name)
    assert bench.recovered.get_attribute("role") == "status"


# What is wider than the lab itself and is not scrolled inside it.
STICKING_OUT = """lab => [...lab.querySelectorAll("*")]
  .filter((node) => node.getBoundingClientRect().right > lab.getBoundingClientRect().right + 1)
  .map((node) => node.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("width", [600, 1600])
def test_it_fits_the_page_in_either_theme(bench, width):
    page = bench.page
    page.set_viewport_size({"width": width, "height": 1000})
    page.evaluate("jupyterapp.shell.collapseLeft()")
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
        scheme = theme.split()[-1].lower()
        expect(bench.root).to_have_css("color-scheme", scheme)
        # JupyterLab's curtain: two within its 200 ms of fading, and JupyterLab takes the same node away twice.
        expect(page.locator("#jupyterlab-splash")).to_have_count(0)
        assert bench.root.evaluate(STICKING_OUT) == []
        bench.shot(f"lab-{width}-{scheme}-theme")
    assert not page.errors
