"""The player: the frames that travel, the output it leaves in a notebook, and what a person meets in a browser."""

import dataclasses
import json
import re

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from invlib.errors import InputError
from invlib.trajectory import Trajectory
from invlib.widgets import player
from invlib.widgets.player import Player, frames, static_html
from tests.pages import screenshot

M, LAST, TOP = 4, 4, 3
HOSTILE = '</script><script>document.title="owned"</script><!--<img src=x onerror=alert(1)>'
PIECES = {5: "we", 6: "had", 7: "rain", 8: "snow", 9: ".", 10: HOSTILE}
# Position 0 is masked again in step 3, position 2 replaced; position 4 was given.
TOKENS = [[M, M, M, M, 9], [5, M, M, M, 9], [5, 6, 7, M, 9], [M, 6, 8, M, 9], [5, 6, 8, 10, 9]]


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    tokens = np.array(TOKENS, np.int32)
    random = np.random.default_rng(0)
    confidence = random.uniform(size=tokens.shape).astype(np.float32)
    confidence[tokens == M] = np.nan
    confidence[:, 4] = np.nan
    was_masked = np.vstack([np.zeros((1, 5), bool), tokens[:-1] == M])
    ids = np.stack([random.permutation([5, 6, 7, 8, 10])[:TOP] for _ in range(tokens.size)]).reshape(5, 5, TOP)
    probs = -np.sort(-random.dirichlet([0.5] * TOP, size=tokens.shape)).astype(np.float32)
    probs[1, 1] = [0.99990, 0.00009, 0.00001]
    return Trajectory(
        tokens=tokens,
        confidence=confidence,
        top_ids=np.where(was_masked[..., None], ids, -1).astype(np.int32),
        top_probs=np.where(was_masked[..., None], probs, 0).astype(np.float32),
        mask_token_id=M,
        pieces=PIECES,
        text=f"we had snow {HOSTILE}.",
    )


def without_pins(trajectory: Trajectory) -> Trajectory:
    """The same text, but all of it masked at the start."""
    tokens = trajectory.tokens.copy()
    tokens[0] = M
    return dataclasses.replace(trajectory, tokens=tokens)


def long_trajectory(length: int, num_steps: int) -> Trajectory:
    """One token a step, from the left, five alternatives each time, words of six letters."""
    tokens = np.where(np.arange(length) < np.arange(num_steps + 1)[:, None], np.arange(length) + 1, 0)
    random = np.random.default_rng(0)
    top_ids = random.integers(1, 200, size=(num_steps + 1, length, 5))
    top_ids[1:][tokens[:-1] > 0] = -1
    top_ids[0] = -1
    confidence = np.where(tokens > 0, random.uniform(size=length), np.nan)
    probs = -np.sort(-random.dirichlet([0.5] * 6, size=tokens.shape))[..., :5]
    return Trajectory(tokens, confidence, top_ids, probs, 0, {i: f"word{i:02}" for i in range(200)}, "word " * length)


# ── the frames ──


def test_the_frames_spell_every_step(trajectory):
    told = frames(trajectory)
    for step, places in enumerate(told["tokens"]):
        assert ["[MASK]" if i < 0 else told["pieces"][i] for i in places] == trajectory.words(step)
    assert told["text"] == trajectory.text


def test_the_frames_hold_the_probability_of_every_visible_token_and_none_of_a_masked_one(trajectory):
    told = np.array(frames(trajectory)["confidence"])
    unknown = np.isnan(trajectory.confidence)
    assert (told[unknown] == -1).all()
    assert np.abs(told - 1000 * trajectory.confidence)[~unknown].max() <= 0.5001
    still_there = dataclasses.replace(trajectory, confidence=np.full_like(trajectory.confidence, 0.25))
    assert ((np.array(frames(still_there)["confidence"]) == -1) == trajectory.masked).all()


def test_the_frames_hold_the_alternatives_with_their_probabilities(trajectory):
    told = frames(trajectory)
    for step, position in np.ndindex(trajectory.tokens.shape):
        flat = told["top"][step][position]
        expected = trajectory.alternatives(step, position)
        assert [told["pieces"][i] for i in flat[::2]] == [piece for piece, _ in expected]
        assert flat[1::2] == pytest.approx([1000 * p for _, p in expected], abs=0.5001)


def test_pinned_positions_are_those_that_were_never_masked(trajectory):
    assert frames(trajectory)["pinned"] == [4]
    assert frames(without_pins(trajectory))["pinned"] == []


def test_only_pieces_that_are_shown_travel():
    told = frames(long_trajectory(length=3, num_steps=3))
    used = {i for step in told["top"] for ranked in step for i in ranked[::2]} | {i for t in told["tokens"] for i in t}
    assert used - {-1} == set(range(len(told["pieces"])))


def test_32_tokens_in_32_steps_stay_small():
    told = frames(long_trajectory(length=32, num_steps=32))
    assert len(json.dumps(told, separators=(",", ":"))) < 35_000
    assert len(static_html(told).encode()) < 85_000


# ── the output ──


def test_the_output_carries_the_live_widget_a_page_without_a_kernel_and_plain_text(trajectory):
    view = player(trajectory)
    data, _ = view._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id
    assert data["text/html"] == static_html(frames(trajectory))
    assert data["text/plain"] == trajectory.text
    assert view.frames == frames(trajectory)


def test_a_notebook_that_runs_again_keeps_its_output_byte_by_byte(trajectory):
    first, second = (player(trajectory)._repr_mimebundle_()[0] for _ in range(2))
    assert first["text/html"] == second["text/html"]


def test_no_token_ends_the_script_and_nothing_is_loaded(trajectory):
    page = static_html(frames(trajectory))
    assert len(re.findall("<script|</script|<!--|<img", page)) == 2
    assert set(re.findall(r"https?://[^\"'\s)]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, never fetched
    assert not re.search(r"@import|url\(|\bimport\b[ (]|fetch\(", page)


def test_where_no_script_runs_the_steps_stand_below_each_other(trajectory):
    page = static_html(frames(trajectory))
    (steps,) = re.findall("<pre>(.*?)</pre>", page, re.DOTALL)
    lines = steps.splitlines()
    assert lines[0] == "  0  [MASK] [MASK] [MASK] [MASK] ." and lines[3] == "  3  [MASK] had snow [MASK] ."
    assert len(lines) == LAST + 1


@pytest.mark.parametrize("thing", [[], "text", None])
def test_what_is_no_trajectory_is_refused_with_what_to_pass(thing):
    with pytest.raises(InputError, match=r"shows one Trajectory, got \w+; pass result.trajectories\[0\]"):
        player(thing)


# ── the browser ──


@pytest.fixture
def page(open_page, trajectory) -> Page:
    return open_page(static_html(frames(trajectory)))


def token(page, position: int):
    return page.get_by_role("listbox", name="Tokens").get_by_role("option").nth(position)


def words(page) -> list[str]:
    return page.get_by_role("listbox", name="Tokens").locator(".word").all_text_contents()


def shows(page, trajectory, step: int) -> bool:
    """True when every part of the player stands at this step."""
    expect(page.get_by_role("slider")).to_have_value(str(step))
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuetext", f"step {step} of {LAST}")
    expect(page.get_by_role("status")).to_contain_text(f"Step {step} of {LAST}")
    expect(page.locator(".heat .now .step")).to_have_text(str(step))
    return words(page) == trajectory.words(step)


def alternatives(page) -> list[tuple[str, str]]:
    rows = page.get_by_role("region", name="Alternatives").get_by_role("listitem").all()
    return [(row.locator(".word").text_content(), row.locator(".number").text_content()) for row in rows]


def written(p: float) -> str:
    """A probability as the player writes it: three digits, which never claim 0 or 1."""
    return {0: "<0.001", 1000: ">0.999"}.get(round(1000 * p), f"{p:.3f}")


def expected_alternatives(trajectory, step, position) -> list[tuple[str, str]]:
    return [(piece, written(p)) for piece, p in trajectory.alternatives(step, position)]


def test_playing_reaches_the_last_step_and_stops(page, trajectory):
    assert shows(page, trajectory, 0)
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(700)
    assert shows(page, trajectory, 1)
    page.clock.run_for(700 * LAST)
    assert shows(page, trajectory, LAST)
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    page.get_by_role("button", name="Play").click()  # from the end it starts again
    assert shows(page, trajectory, 0)


def test_the_text_is_told_at_the_last_step_and_not_before(page, trajectory):
    text = page.locator(".text")
    expect(text).to_be_hidden()
    page.get_by_role("slider").fill(str(LAST))
    expect(text).to_be_visible()
    expect(text).to_have_text(trajectory.text)


def test_pausing_holds_the_step(page, trajectory):
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(1500)
    page.get_by_role("button", name="Pause").click()
    page.clock.run_for(60_000)
    assert shows(page, trajectory, 2)


def test_speed_changes_while_it_plays(page, trajectory):
    page.get_by_role("button", name="Play").click()
    page.get_by_label("Speed").select_option("4×")
    page.clock.run_for(3 * 175)
    assert shows(page, trajectory, 3)


def test_buttons_step_and_end_at_the_ends(page, trajectory):
    back, forward = (page.get_by_role("button", name=name) for name in ("Previous step", "Next step"))
    expect(back).to_be_disabled()
    for _ in range(LAST):
        forward.click()
    assert shows(page, trajectory, LAST)
    expect(forward).to_be_disabled()
    back.click()
    assert shows(page, trajectory, LAST - 1)


def test_scrubbing_shows_each_step(page, trajectory):
    for step in (3, 1, 4, 0, 2):
        page.get_by_role("slider").fill(str(step))
        assert shows(page, trajectory, step)


@pytest.mark.parametrize("focused", ["slider", "token", "button"])
def test_the_keyboard_moves_through_the_steps(page, trajectory, focused):
    places = {"slider": page.get_by_role("slider"), "token": token(page, 2)}
    places.get(focused, page.get_by_role("button", name="Play")).focus()
    for key, step in [("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", LAST), ("ArrowRight", LAST)]:
        page.keyboard.press(key)
        assert shows(page, trajectory, step)
    page.keyboard.press("Home")
    assert shows(page, trajectory, 0)
    page.keyboard.press("ArrowLeft")
    assert shows(page, trajectory, 0)
    page.keyboard.press("Space")
    page.clock.run_for(700)
    assert shows(page, trajectory, 1)
    page.keyboard.press("Space")
    page.clock.run_for(7000)
    assert shows(page, trajectory, 1)


def test_space_on_a_button_presses_it(page, trajectory):
    page.get_by_role("button", name="Next step").press("Space")
    page.clock.run_for(7000)
    assert shows(page, trajectory, 1)


def test_hovering_a_token_shows_what_else_was_considered(page, trajectory):
    for step in range(1, LAST + 1):
        page.get_by_role("slider").fill(str(step))
        for position in range(5):
            token(page, position).hover()
            asked = max((s for s in range(step + 1) if trajectory.alternatives(s, position)), default=None)
            expected = expected_alternatives(trajectory, asked, position) if asked else []
            assert alternatives(page) == expected, (step, position)
            told = f"likeliest in step {asked}" if asked else "not asked so far"
            expect(page.get_by_role("region", name="Alternatives")).to_contain_text(told)


def test_focus_shows_the_same_and_the_arrows_choose_a_token(page, trajectory):
    page.get_by_role("slider").fill("1")
    token(page, 2).focus()
    assert alternatives(page) == expected_alternatives(trajectory, 1, 2)
    token(page, 0).focus()
    assert alternatives(page) == expected_alternatives(trajectory, 1, 0)
    page.keyboard.press("ArrowDown")
    expect(token(page, 1)).to_be_focused()
    assert alternatives(page) == expected_alternatives(trajectory, 1, 1)
    assert [number for _, number in alternatives(page)] == [">0.999", "<0.001", "<0.001"]
    page.keyboard.press("ArrowUp")
    expect(token(page, 0)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowUp")
    expect(token(page, 0)).to_be_focused()


def test_the_tokens_are_one_tab_stop(page):
    token(page, 3).focus()
    assert [token(page, position).get_attribute("tabindex") for position in range(5)] == ["-1", "-1", "-1", "0", "-1"]


MARKED = {0: {}, 1: {0: "uncovered"}, 2: {1: "uncovered", 2: "uncovered"}, 3: {0: "remasked", 2: "rewritten"}}
MARKED[4] = {0: "uncovered", 3: "uncovered"}


def test_every_mark_is_a_colour_a_shape_and_a_word(page, trajectory):
    for step, marks in MARKED.items():
        page.get_by_role("slider").fill(str(step))
        expected = [[marks[position]] if position in marks else [] for position in range(5)]
        expected[4] = ["pinned"]
        shapes = [
            [icon.get_attribute("class").split()[1] for icon in token(page, position).locator(".icon").all()]
            for position in range(5)
        ]
        assert shapes == expected
        said = {"uncovered": "just revealed", "remasked": "masked again in", "rewritten": "replaced in"}
        for position, mark in marks.items():
            expect(token(page, position)).to_have_attribute("aria-label", re.compile(said[mark]))
    colours = page.locator(".legend .icon").evaluate_all("icons => icons.map(icon => getComputedStyle(icon).color)")
    assert len(set(colours)) == len(colours) == 4


def test_the_legend_names_only_what_happens(open_page, trajectory):
    plain = without_pins(trajectory)
    plain = dataclasses.replace(plain, tokens=np.maximum.accumulate(plain.tokens, axis=0))
    legend = open_page(static_html(frames(plain))).locator(".legend")
    expect(legend).to_contain_text("just revealed")
    expect(legend).not_to_contain_text("masked again")
    expect(legend).not_to_contain_text("pinned")


def test_a_token_tells_its_probability_as_length_and_in_words(page, trajectory):
    page.get_by_role("slider").fill("2")
    for position, step in [(0, 1), (1, 2), (2, 2)]:
        p = round(1000 * float(trajectory.confidence[2, position]))
        width = token(page, position).locator(".bar > span").evaluate("bar => bar.style.width")
        assert float(width.removesuffix("%")) == pytest.approx(p / 10)
        said = f"position {position}: {PIECES[TOKENS[2][position]]}"
        label = token(page, position).get_attribute("aria-label")
        assert label.startswith(said) and label.endswith(f"written in step {step} with probability {p / 1000:.3f}")
    expect(token(page, 3)).to_have_attribute("aria-label", "position 3: [MASK]")
    expect(token(page, 4)).to_have_attribute("aria-label", re.compile("pinned.*given from the start$"))


def test_the_heat_map_has_a_cell_for_every_step_and_token_and_takes_a_click(page, trajectory):
    rows = page.locator(".heat .row")
    kinds = [[cell.get_attribute("class").split()[1] for cell in row.locator(".thought").all()] for row in rows.all()]
    assert (np.array(kinds) == "guess").tolist() == trajectory.masked.tolist()
    assert (np.array(kinds) == "new")[1:].sum() == (trajectory.uncovered.sum() + 1)  # and one that was replaced
    rows.nth(3).locator(".thought").nth(2).click()
    assert shows(page, trajectory, 3)
    expect(token(page, 2)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("region", name="Alternatives")).to_contain_text("position 2")


def test_two_players_on_a_page_are_independent_even_with_the_same_frames(open_page, trajectory):
    other = static_html(frames(without_pins(trajectory)))
    html = static_html(frames(trajectory))
    page = open_page(html + other + html)
    groups = page.get_by_role("group", name="Player").all()
    assert len(groups) == 3
    groups[0].get_by_role("slider").fill("3")
    groups[1].get_by_role("button", name="Play").click()
    page.clock.run_for(700)
    assert shows(groups[0], trajectory, 3)
    assert shows(groups[1], trajectory, 1)
    assert shows(groups[2], trajectory, 0)


def test_a_hostile_token_is_only_text(page):
    page.get_by_role("slider").fill(str(LAST))
    assert words(page)[3] == HOSTILE
    assert page.title() == "page"
    assert page.locator("img").count() == 0


def test_the_roles_and_names_that_a_screen_reader_needs_are_there(page):
    group = page.get_by_role("group", name=f"Player: 5 tokens, {LAST} steps")
    for role, name in [
        *[("button", name) for name in ("Previous step", "Play", "Next step")],
        *[("slider", "Step"), ("combobox", "Speed"), ("listbox", "Tokens"), ("region", "Alternatives")],
        ("img", "Heat map"),
    ]:
        expect(group.get_by_role(role, name=name)).to_have_count(1)
    described = token(page, 0).get_attribute("aria-describedby")
    assert described == page.get_by_role("region", name="Alternatives").get_attribute("id")
    expect(page.get_by_role("status")).to_have_attribute("aria-live", "polite")
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("status")).to_have_attribute("aria-live", "off")


def is_dark(page) -> bool:
    panel = page.locator(".invlib-player").evaluate("node => getComputedStyle(node).backgroundColor")
    return sum(map(int, re.findall(r"\d+", panel)[:3])) < 3 * 128


@pytest.mark.parametrize(
    ("system", "html", "body", "dark"),
    [
        ("light", "", "", False),
        ("dark", "", "", True),
        ("light", "", 'data-jp-theme-light="false"', True),
        ("dark", "", 'data-jp-theme-light="true"', False),
        ("light", 'data-theme="dark"', "", True),
        ("dark", 'data-theme="light"', "", False),
    ],
)
def test_the_theme_follows_the_page_and_else_the_system(open_page, trajectory, system, html, body, dark):
    page = open_page(static_html(frames(trajectory)), theme=system, html=html, body_tag=body)
    assert is_dark(page) == dark


def test_a_change_of_theme_is_followed(page):
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    expect(page.locator(".invlib-player")).to_have_css("color-scheme", "dark")
    page.evaluate("document.body.dataset.jpThemeLight = 'true'")
    expect(page.locator(".invlib-player")).to_have_css("color-scheme", "light")


# Where every token stands on the page, and how high the page is.
LAYOUT = """
() => [...document.querySelectorAll("[data-invlib-player]")]
  .flatMap((player) => [...player.shadowRoot.querySelectorAll(".cell")])
  .map((cell) => cell.getBoundingClientRect())
  .map((box) => `${box.x} ${box.y + scrollY} ${box.width} ${box.height}`)
  .concat(document.documentElement.scrollHeight)
  .join()
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [600, 1600])
def test_it_fits_the_page_and_nothing_moves_while_it_plays(open_page, trajectory, width, theme):
    tame = dataclasses.replace(trajectory, pieces=PIECES | {10: "yesterday"}, text="we had snow yesterday.")
    html = static_html(frames(tame)) + "<p>" + static_html(frames(long_trajectory(length=32, num_steps=32)))
    page = open_page(html, width=width, theme=theme, body_tag='class="page"')
    page.add_style_tag(content=".page { color-scheme: light dark; background: Canvas }")
    layouts = set()
    for step in range(LAST + 1):
        for player_ in page.get_by_role("group", name="Player").all():
            player_.get_by_role("slider").fill(str(step * (8 if player_.get_by_role("option").count() > 20 else 1)))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        layouts.add(page.evaluate(LAYOUT))
    assert len(layouts) == 1
    for player_ in page.get_by_role("group", name="Player").all():
        player_.get_by_role("slider").fill("3")
        token(player_, 2).hover()
    screenshot(page, f"player-{width}-{theme}")


def test_a_page_style_does_not_reach_the_player(open_page, trajectory):
    loud = "<style>button, span, div, ol, li { color: red !important; border: 9px solid red !important }</style>"
    page = open_page(loud + static_html(frames(trajectory)))
    assert page.get_by_role("button", name="Play").evaluate("node => getComputedStyle(node).borderTopWidth") == "1px"


# What anywidget does with the module: import it, call render with a model, call the function that it returned.
LIVE = """
async ([script, style, frames]) => {
  const sheet = document.createElement("style");
  sheet.textContent = style;
  const el = document.createElement("div");
  document.body.append(sheet, el);
  const heard = {};
  window.model = {
    frames,
    get(name) { return this[name]; },
    on(event, act) { heard[event] = act; },
    off(event) { delete heard[event]; },
    tell(frames) { this.frames = frames; heard["change:frames"](); },
    get listeners() { return Object.keys(heard).length; },
  };
  const module = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  window.leave = module.default.render({ model, el });
}
"""


@pytest.fixture
def live(open_page, trajectory) -> Page:
    page = open_page("")
    page.evaluate(LIVE, [Player._esm, Player._css, frames(trajectory)])
    return page


def test_the_live_widget_plays_with_the_same_module(live, trajectory):
    live.get_by_role("button", name="Play").click()
    live.clock.run_for(700 * LAST)
    assert shows(live, trajectory, LAST)


def test_new_frames_keep_the_step_and_follow_a_growing_inversion(live, trajectory):
    told = frames(trajectory)
    shorter = {**told, **{name: told[name][:3] for name in ("tokens", "confidence", "top")}}
    live.get_by_role("slider").fill("1")
    live.evaluate("frames => model.tell(frames)", shorter)
    expect(live.get_by_role("status")).to_contain_text("Step 1 of 2")
    live.get_by_role("slider").fill("2")
    live.evaluate("frames => model.tell(frames)", told)
    assert shows(live, trajectory, LAST)


def test_new_frames_do_not_interrupt_playing(live, trajectory):
    live.get_by_role("button", name="Play").click()
    live.clock.run_for(700)
    live.evaluate("frames => model.tell(frames)", frames(trajectory))
    expect(live.get_by_role("button", name="Pause")).to_be_visible()
    live.clock.run_for(700)
    assert shows(live, trajectory, 2)


def test_a_closed_live_widget_leaves_nothing_behind(live):
    live.get_by_role("button", name="Play").click()
    live.evaluate("leave()")
    assert live.locator(".invlib-player").count() == 0
    assert live.evaluate("model.listeners") == 0
    live.clock.run_for(7000)
