"""The lab as a person meets it, on a page of its own: keyboard, phone, dark; what is told, compared and taken away."""

import io
import re
import zipfile
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from invlib.trajectory import Trajectory
from invlib.widgets import lab
from invlib.widgets.lab.settings import Limits, Settings
from tests.pages import PATIENCE, LabPage, screenshot
from tests.widgets.bridge import attach

TEXT, OTHER = "The clinic called back about the blood test this morning.", "The train to the coast leaves at noon."
META = {"viewport": "width=device-width", "color-scheme": "light dark"}
BLANK = "<!doctype html>" + "".join(f'<meta name="{name}" content="{value}">' for name, value in META.items())
ADDRESS = "http://lab.example/"
SECONDS = 60


@pytest.fixture
def desk(chromium, inverter):
    """Opens the lab on a page; `text`: inverted before, so that the page begins with a result."""
    contexts, widgets, errors = [], [], []

    def opened(text: str | None = TEXT, *, at: str = ADDRESS, size=(1280, 900), **options) -> LabPage:
        context = chromium.new_context(viewport=dict(zip(("width", "height"), size, strict=True)), **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.route("**/*", lambda route: route.fulfill(body=BLANK, content_type="text/html"))
        page.goto(at)
        widget = lab(inverter, limits=Limits(max_queries=40))
        widgets.append(widget)
        if text:
            widget.session.invert(Settings(text=text))
            widget.session.wait(SECONDS)
        bench = LabPage(page)
        bench.widget, bench.sent = widget, []
        attach(page, widget, answers=lambda told: bench.sent.append(told["do"]) or True)
        return bench

    yield opened
    for context in contexts:
        context.close()
    for widget in widgets:
        widget.session.stop()
        widget.session.wait(SECONDS)
    assert not errors


@pytest.fixture
def bench(desk) -> LabPage:
    return desk(reduced_motion="reduce")


def test_it_opens_with_a_search_for_the_sentence_that_stands_there(desk):
    bench = desk(None)
    expect(bench.root.locator(".doing")).to_contain_text(re.compile("Inverting|Searching"), timeout=PATIENCE)
    assert bench.came_back()
    assert bench.sent[0] == "search" and bench.widget.outcome["encoder_queries"] > 1
    expect(bench.root.locator(".of")).to_have_text(f"From the vector of “{TEXT}”")
    expect(bench.root.locator(".told")).to_contain_text(re.compile("words came back|every word"))


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        ({"step": 5, "budget": 0, "steps_per_second": 31.2}, r"Inverting · step 5 of 8 · 31.2 steps a second · \d"),
        ({"step": 5, "budget": 0, "cosine": 0.61}, r"Inverting · step 5 of 8 · cosine 0.610 · \d"),
        ({"step": 8, "budget": 2000, "queries": 345, "cosine": 0.9912}, "345 of 2,000 queries · best cosine 0.991 · "),
    ],
)
def test_while_it_works_it_tells_how_far_it_is(bench, progress, told):
    while "look" not in bench.sent:  # whose answer tells the true progress
        bench.page.wait_for_timeout(50)
    bench.is_idle()
    bench.widget.progress = {"state": "running", "compares": False, "num_steps": 8} | progress
    expect(bench.doing).to_have_text(re.compile(told))
    bench.widget.progress = {"state": "idle", "compares": False}
    expect(bench.doing).to_be_hidden()


def test_enter_inverts_and_shift_enter_breaks_the_line_and_both_are_said(bench):
    expect(bench.root.locator("p.below")).to_contain_text("Enter inverts, Shift+Enter breaks the line")
    bench.text.fill("One")
    bench.text.press("Shift+Enter")
    expect(bench.text).to_have_value("One\n")
    bench.text.fill(OTHER)
    bench.text.press("Enter")
    expect(bench.root.locator(".of")).to_contain_text(OTHER, timeout=PATIENCE)
    bench.is_idle()
    expect(bench.text).to_have_value(OTHER)


def test_the_result_of_another_sentence_stands_back(bench):
    main = bench.root.locator(".main")
    expect(main).not_to_have_class(re.compile("stale"))
    bench.text.fill(OTHER)
    expect(main).to_have_class(re.compile("stale"))
    bench.text.fill(TEXT)
    expect(main).not_to_have_class(re.compile("stale"))


def test_who_asks_for_something_else_while_a_run_works_gets_it(desk):
    bench = desk(None)
    expect(bench.button("Stop")).to_be_enabled(timeout=PATIENCE)
    assert bench.invert(OTHER) == bench.widget.session.outcome.text
    expect(bench.root.locator(".of")).to_contain_text(OTHER)


def test_search_closer_is_the_second_button_and_goes_on_from_the_draft(bench):
    names = bench.root.locator(".main-actions button").all_text_contents()
    assert names == ["Invert", "Search closer", "Step once", "Stop"]
    draft = bench.widget.session.trajectory
    bench.button("Search closer").click()
    asked = re.compile(r"encoder queries([2-9]|[1-9]\d)")  # more than the one of a draft
    expect(bench.root.get_by_role("region", name="About this result")).to_contain_text(asked, timeout=PATIENCE)
    bench.is_idle()
    np.testing.assert_array_equal(bench.widget.session.trajectory.masked[: len(draft.tokens)].sum(), draft.masked.sum())
    assert " ".join(bench.words()).strip() and bench.recovered.text_content() == bench.widget.session.trajectory.text


def test_the_address_carries_what_was_asked_and_a_reload_shows_the_same(desk):
    first = desk(reduced_motion="reduce")
    first.root.get_by_label("Policy").select_option("random_order")
    for label, value in (("Steps", "5"), ("Seed", "7")):
        first.root.get_by_label(label, exact=True).fill(value)
    text = first.invert("Is 5 + 5 = 10 & more #true?")
    told = parse_qs(urlparse(first.page.url).fragment)
    assert told == {"text": ["Is 5 + 5 = 10 & more #true?"], "policy": ["random_order"], "seed": ["7"], "steps": ["5"]}
    again = desk(None, at=first.page.url, reduced_motion="reduce")
    assert again.came_back() == text
    assert again.root.get_by_label("Policy").input_value() == "random_order" and again.sent[0] == "invert"
    link = desk(None, at=f"{ADDRESS}?text=A+red+boat.&policy=nonsense", reduced_motion="reduce")
    link.came_back()
    expect(link.text).to_have_value("A red boat.")
    expect(link.root.get_by_label("Policy")).to_have_value("top_confidence")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half a \ud83d smile", "The text holds half a character (a lone surrogate)"),
        ("x" * 11_000_000, "The text has 11,000,000 characters; the lab takes 1,000 at most"),
    ],
    ids=["surrogate", "long"],
)
def test_what_would_end_the_connection_is_refused_before_it_is_sent(bench, text, message):
    if len(text) > 1000:
        bench.text.evaluate("field => { field.value = 'x'.repeat(11e6); field.dispatchEvent(new Event('input')) }")
    else:
        bench.text.evaluate("field => { field.value = 'half a \\ud83d smile' }")
    bench.sent.clear()
    bench.button("Invert").click()
    expect(bench.alert).to_contain_text(message)
    expect(bench.root).to_have_attribute("aria-busy", "false")
    assert bench.sent == []
    assert bench.invert(OTHER)
    expect(bench.alert).to_be_hidden()


def test_a_large_file_is_refused_before_it_is_sent(bench, tmp_path):
    (tmp_path / "large.npy").write_bytes(bytes(11 << 20))
    bench.tab("Vector").click()
    bench.sent.clear()
    bench.root.get_by_label("Vector file").set_input_files(tmp_path / "large.npy")
    expect(bench.alert).to_contain_text("The file large.npy has 11,534,336 bytes; one vector needs less than 1,000,000")
    expect(bench.root).to_have_attribute("aria-busy", "false")
    assert "upload" not in bench.sent


@pytest.mark.parametrize("size", [(390, 800), (640, 450)], ids=["phone", "200 %"])
def test_on_a_narrow_page_the_result_comes_to_whoever_asked(desk, size):
    bench = desk(size=size, reduced_motion="reduce")
    more = bench.root.get_by_role("region", name="How to invert")
    assert more.get_attribute("open") is None
    bench.text.fill(OTHER)
    bench.button("Invert").click()
    result = bench.root.get_by_role("region", name="What came back")
    expect(result).to_be_focused()
    bench.is_idle()
    box, actions = result.bounding_box(), bench.root.locator(".main-actions").bounding_box()
    assert 0 <= box["y"] < size[1] / 2 and 0 <= box["y"] - actions["y"] - actions["height"] < 60
    assert bench.root.get_by_role("group", name="Player").bounding_box()["y"] < more.bounding_box()["y"]
    assert bench.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    more.locator("summary").click()
    expect(bench.root.get_by_label("Steps", exact=True)).to_be_visible()
    screenshot(bench.page, f"lab-page-{size[0]}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_in_the_theme_of_the_system(desk, theme):
    bench = desk(color_scheme=theme)
    expect(bench.root).to_have_css("color-scheme", theme)
    screenshot(bench.page, f"lab-page-{theme}")


def test_with_the_keyboard_alone_a_word_is_pinned_and_a_step_shown(bench):
    bench.text.focus()
    bench.page.keyboard.press("Enter")
    bench.is_idle()
    bench.tokens.nth(1).focus()
    bench.page.keyboard.press("p")
    expect(bench.root.get_by_role("group", name="Steering")).to_contain_text("1 token pinned")
    bench.tokens.nth(1).focus()
    bench.page.keyboard.press("Home")
    expect(bench.root.get_by_role("group", name="Player").get_by_role("status")).to_contain_text("Step 0 of 8")
    expect(bench.recovered).to_have_text(bench.widget.session.outcome.text)


def test_the_word_that_stands_is_not_offered_instead_of_itself(bench):
    labels = [offer.get_attribute("aria-label") for offer in bench.root.locator(".offer").all()]
    assert sum("which stands here" in label for label in labels) == 1
    standing = bench.words()[0]
    assert f"Pin {standing} instead" not in labels and f"Pin {standing}, which stands here" in labels


def test_the_heat_map_has_every_step_and_tells_its_numbers(bench):
    trajectory = bench.widget.session.trajectory
    rows = bench.root.locator(".heat .row")
    expect(rows).to_have_count(9)
    for step, position in ((1, 0), (3, 2), (8, 4)):
        cell = rows.nth(step).locator(".thought").nth(position)
        alternatives = trajectory.alternatives(step, position)
        if alternatives:
            assert cell.get_attribute("title").splitlines()[0].startswith(alternatives[0][0])
            p = trajectory.confidence[step, position]
            expected = alternatives[0][1] if np.isnan(p) else p
            assert float(re.search(r"--p: ([\d.]+)%", cell.get_attribute("style"))[1]) == pytest.approx(
                100 * expected, abs=0.06
            )
    rows.nth(3).locator(".step").click()
    expect(bench.step).to_have_value("3")


@pytest.mark.parametrize(
    ("text", "advice", "count"),
    [
        (OTHER, None, "9 of 32 pieces"),
        ("word " * 60, "This text has 60 pieces and the model writes 32 at most", "60 of 32 pieces"),
        ("Мама мыла раму.", "The model writes English", "13 of 32 pieces"),
    ],
)
def test_what_cannot_come_back_is_said_while_it_is_typed(bench, text, advice, count):
    bench.text.fill(text)
    expect(bench.root.locator(".count")).to_have_text(count)
    expect(bench.root.locator(".advice")).to_have_text(re.compile(advice) if advice else "")


def test_a_vector_of_no_encoder_is_told_from_a_sentence(bench):
    bench.tab("Vector").click()
    bench.numbers.fill(", ".join(map(str, np.random.default_rng(0).normal(size=384).round(3))))
    bench.button("Invert").click()
    expect(bench.root.locator(".of")).to_have_text("From a vector", timeout=PATIENCE)
    bench.is_idle()
    expect(bench.root.locator(".told")).to_contain_text("does not look like one of this encoder")


def test_a_roll_of_the_dice_is_a_sentence_of_the_kind(bench):
    bench.root.get_by_label("Kind of sentence").select_option("short")
    bench.button("Another sentence").click()
    text = bench.text.input_value()
    assert text in bench.widget.options["sentences"]["short"]
    expect(bench.root.locator(".of")).to_contain_text(text, timeout=PATIENCE)
    bench.is_idle()


def test_policies_are_compared_on_one_timeline(bench):
    bench.button("Policies").click()
    beside = bench.root.get_by_role("group", name="Side by side")
    lanes = beside.locator(".lane")
    expect(lanes).to_have_count(3, timeout=PATIENCE)
    bench.is_idle()
    assert [lane.get_attribute("aria-label") for lane in lanes.all()] == [
        "top confidence",
        "left to right",
        "random order",
    ]
    for step in (0, 4, 8):
        beside.get_by_role("slider").fill(str(step))
        for lane, told in zip(lanes.all(), bench.widget.comparison.lanes, strict=True):
            assert lane.locator(".word").all_text_contents() == told.trajectory.words(step)
    expect(lanes.first.locator(".verdict")).to_contain_text("words came back")
    screenshot(bench.page, "lab-page-lanes")
    bench.button("Clear").click()
    expect(lanes).to_have_count(0)


def test_a_run_is_kept_beside_the_next_and_gives_way_to_another_sentence(bench):
    bench.button("Keep this run").click()
    bench.root.get_by_label("Steps", exact=True).fill("2")
    bench.invert()
    bench.button("Keep this run").click()
    lanes = bench.root.locator(".lane")
    expect(lanes).to_have_count(2)
    bench.invert(OTHER)
    bench.button("Keep this run").click()
    expect(lanes).to_have_count(1)


def saved(bench: LabPage, name: str, folder, *, row: str = "Take it away"):
    with bench.page.expect_download() as download:
        bench.root.get_by_role("group", name=row).get_by_role("button", name=name).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_what_is_shown_can_be_taken_away_and_opens_without_a_network(bench, open_file, tmp_path):
    session = bench.widget.session
    page: Page = open_file(saved(bench, "HTML", tmp_path))
    page.set_default_timeout(PATIENCE)
    page.get_by_role("slider").fill("3")
    words = page.get_by_role("listbox", name="Tokens").locator(".word").all_text_contents()
    assert words == session.trajectory.words(3)
    expect(page.locator("body > p")).to_contain_text(TEXT)
    picture = open_file(saved(bench, "SVG", tmp_path))
    assert TEXT in picture.locator("title").text_content() and session.trajectory.text in picture.title()
    assert picture.locator(".frame").count() == 9
    trajectory = Trajectory.load(saved(bench, "Trajectory", tmp_path))
    np.testing.assert_array_equal(trajectory.tokens, session.trajectory.tokens)
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(saved(bench, "GIF", tmp_path).read_bytes()))
    assert image.n_frames == 9 and image.size[0] == 1720


def test_what_stands_side_by_side_can_be_taken_away_together(bench, open_file, tmp_path):
    row = "Take these away"
    expect(bench.root.get_by_role("group", name=row)).to_be_hidden()
    bench.button("Steps").click()
    expect(bench.root.locator(".lane")).to_have_count(3, timeout=PATIENCE)
    bench.is_idle()
    lanes = bench.widget.comparison.lanes
    page: Page = open_file(saved(bench, "HTML", tmp_path, row=row))
    page.set_default_timeout(PATIENCE)
    page.get_by_role("slider").fill("5")
    for shown, lane in zip(page.locator(".lane").all(), lanes, strict=True):
        last = lane.trajectory.num_steps
        assert shown.locator(".word").all_text_contents() == lane.trajectory.words(min(5, last))
        assert shown.get_attribute("aria-label") == lane.label
    picture = open_file(saved(bench, "SVG", tmp_path, row=row))
    assert all(f"{lane.label}: “{lane.trajectory.text}”" in picture.title() for lane in lanes)
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(saved(bench, "GIF", tmp_path, row=row).read_bytes()))
    assert image.n_frames == 17
    with zipfile.ZipFile(saved(bench, "Trajectory", tmp_path, row=row)) as together:
        names = together.namelist()
        together.extractall(tmp_path)
    assert names == ["1-1-step.npz", "2-4-steps.npz", "3-16-steps.npz"]
    for name, lane in zip(names, lanes, strict=True):
        np.testing.assert_array_equal(Trajectory.load(tmp_path / name).tokens, lane.trajectory.tokens)
