"""The mixer: what the model writes for a mixture, the live widget's answers, what a person meets in a browser."""

import json
import re

import pytest
import torch
from playwright.sync_api import Page, expect

from invlib.errors import InputError
from invlib.probes import FINAL
from invlib.sampler import denoise
from invlib.widgets.mixer import WEIGHTS, Mixer, Mixture, mixer, static_html
from tests.pages import screenshot

FIRST, SECOND = "The train to the coast was two hours late.", "My sister teaches chemistry at a small school."
HOSTILE = 'Rain </script><script>document.title="owned"</script><!--<img src=x onerror=alert(1)> fell.'


@pytest.fixture(scope="module")
def pair(inverter) -> Mixture:
    return Mixture(inverter, FIRST, SECOND)


@pytest.fixture(scope="module")
def html(pair) -> str:
    return static_html(pair)


def changed(pair, **choices) -> list[str]:
    """The choices by part, `layer_0` … and `final`; mix elsewhere."""
    names = [FINAL if name == "final" else name.removeprefix("layer_") for name in choices]
    heard = dict(zip(names, choices.values(), strict=True))
    return [heard.get(part, "mix") for part in pair.parts]


# ── what is written ──


def test_the_ends_of_the_way_are_the_two_inversions(pair, inverter):
    written = [view["text"] for view in pair.views([(0.0, pair.plain), (1.0, pair.plain)])]
    assert written == inverter.invert(pair.vectors, num_steps=8).texts


def test_a_mixture_is_the_inversion_of_the_mixed_vector(pair, inverter):
    (view,) = pair.views([(0.3, pair.plain)])
    assert view["text"] == inverter.invert(0.7 * pair.vectors[0] + 0.3 * pair.vectors[1], num_steps=8).texts[0]


def test_parts_that_all_hear_b_write_what_bs_modulation_writes_at_as_length(pair, inverter):
    (view,) = pair.views([(0.0, ["second"] * len(pair.parts))])
    length = torch.from_numpy(inverter.predict_lengths(pair.vectors[:1]))
    with torch.inference_mode():
        modulation = inverter.model.modulation(torch.from_numpy(pair.vectors[1:]))
    predict, mask = inverter.model.predictor(modulation, length), inverter.model.config.mask_token_id
    *_, last = denoise(predict, length, mask_token_id=mask, num_steps=8)
    assert view["text"] == inverter.tokenizer.decode(last.tokens[0])


def test_every_choice_reaches_its_own_part_and_no_other(pair):
    requests = [
        changed(pair),
        changed(pair, layer_2="off"),
        changed(pair, final="off"),
        changed(pair, layer_0="second"),
    ]
    plain, off, final_off, second = (view["levels"] for view in pair.views([(0.0, choices) for choices in requests]))
    zeros = [0.0, 0.0, 0.0]
    assert off == [*plain[:2], zeros, *plain[3:]]
    assert final_off == [*plain[:-1], [None, 0.0, 0.0]]
    assert second[0] != plain[0] and second[1:] == plain[1:]


def test_a_batch_of_views_equals_single_ones(pair):
    requests = [(0.0, pair.plain), (0.6, changed(pair, layer_5="first")), (1.0, changed(pair, layer_1="off"))]
    together = pair.views(requests)
    assert [view["text"] for view in together] == [pair.views([request])[0]["text"] for request in requests]


def test_tokens_say_from_which_sentence_they_could_come(pair):
    a, b = pair.views([(0.0, pair.plain), (1.0, pair.plain)])
    assert all(in_first for _, _, in_first, _ in a["tokens"]) and all(in_second for *_, in_second in b["tokens"])
    assert [piece for piece, *_, in_second in a["tokens"] if in_second] == ["."]


def test_the_cosines_are_those_of_the_written_text(pair, minilm):
    (view,) = pair.views([(0.5, pair.plain)])
    expected = minilm.encode([view["text"]]) @ pair.vectors.T
    assert view["cosines"] == pytest.approx(expected[0].tolist(), abs=6e-4)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("", SECOND), "the first sentence is empty; write one"),
        ((FIRST, "  \n"), "the second sentence is empty; write one"),
        ((FIRST, "a" * 1001), "the second sentence has 1001 characters; at most 1000 are read"),
    ],
)
def test_a_sentence_that_cannot_be_read_is_refused(inverter, texts, message):
    with pytest.raises(InputError, match=message):
        mixer(inverter, *texts)


# ── the live widget ──


@pytest.fixture
def live(pair) -> Mixer:
    return Mixer(pair)


def asked(pair, number: int, **changes) -> dict:
    return {"first": FIRST, "second": SECOND, "weight": 0.0, "choices": pair.plain, "number": number} | changes


def test_a_question_is_answered_with_its_number(live, pair):
    live.wanted = asked(pair, 7, weight=1, choices=changed(pair, layer_5="off"))
    (expected,) = pair.views([(1.0, changed(pair, layer_5="off"))])
    assert live.view == expected | {"number": 7, "first": FIRST, "second": SECOND, "parts": pair.parts}


def test_another_sentence_is_read(live, pair):
    live.wanted = asked(pair, 1, first="Rain fell all night long.")
    assert live.view["first"] == "Rain fell all night long." and live.mixture.texts == (live.view["first"], SECOND)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"second": ""}, "the second sentence is empty; write one"),
        ({"weight": 1.5}, "the weight of the second vector lies between 0 and 1, got 1.5"),
        ({"weight": "half"}, "lies between 0 and 1, got 'half'"),
        ({"choices": ["mix"]}, "each of 13 parts hears one of mix, first, second, off"),
        ({"choices": ["loud"] * 13}, "each of 13 parts hears one of mix, first, second, off"),
    ],
)
def test_a_bad_question_is_answered_in_one_line_and_the_next_one_as_ever(live, pair, changes, message):
    before = live.view["text"]
    live.wanted = asked(pair, 1, **changes)
    assert message in live.view["error"] and "\n" not in live.view["error"] and live.view["text"] == before
    live.wanted = asked(pair, 2)
    assert "error" not in live.view and live.view["number"] == 2


# ── the output ──


def test_the_output_carries_the_live_widget_a_page_without_a_kernel_and_plain_text(live, html):
    data, _ = live._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == live.model_id
    assert data["text/html"] == html
    assert data["text/plain"] == live.view["text"]


def test_the_page_knows_every_tenth_of_the_way_and_every_single_change(pair):
    requests = pair.one_change_each()
    assert [weight for weight, choices in requests if choices == pair.plain] == WEIGHTS
    single = [choices for weight, choices in requests if choices != pair.plain and weight == 0]
    assert len(single) == 2 * len(pair.parts) and all(choices.count("mix") == len(pair.parts) - 1 for choices in single)
    assert len({json.dumps(request) for request in requests}) == len(requests)


def test_where_no_script_runs_every_text_stands_below_the_two_sentences(pair, html):
    (lines,) = re.findall("<pre>(.*?)</pre>", html, re.DOTALL)
    first, second, blank, *texts = lines.splitlines()
    assert (first, second, blank) == (f"A  {FIRST}", f"B  {SECOND}", "")
    assert len(texts) == len(pair.one_change_each())
    assert texts[0].startswith("0% B ") and texts[-1].startswith("final norm off ")


def test_no_text_ends_the_script_and_nothing_is_loaded(inverter):
    page = static_html(Mixture(inverter, HOSTILE, SECOND))
    assert len(re.findall("<script|</script|<!--|<img", page)) == 2
    assert not re.search(r"https?://|@import|url\(|\bimport\b[ (]|fetch\(", page)
    assert len(page.encode()) < 80_000


# ── the browser ──


@pytest.fixture
def page(open_page, html) -> Page:
    return open_page(html)


def text_of(pair, weight: float, choices: list[str]) -> str:
    (view,) = pair.views([(weight, choices)])
    return view["text"]


def test_the_way_from_a_to_b_shows_the_text_of_every_tenth(page, pair):
    slider, text = page.get_by_role("slider", name="Way from A to B"), page.locator(".text")
    expect(text).to_have_text(text_of(pair, 0.0, pair.plain))
    for weight in (0.3, 1.0):
        slider.fill(str(weight))
        expect(text).to_have_text(text_of(pair, weight, pair.plain))
        expect(page.locator(".tokens .word")).to_have_text(
            [piece for piece, *_ in pair.views([(weight, pair.plain)])[0]["tokens"]]
        )
    expect(slider).to_have_attribute("aria-valuetext", "100 percent B")


def test_a_click_makes_one_layer_hear_b_or_nothing_and_reset_undoes_it(page, pair):
    text, status = page.locator(".text"), page.get_by_role("status")
    page.get_by_role("slider").fill("0.4")  # only one change at a time is known: a click goes back to the start
    page.get_by_role("group", name="layer 5").get_by_role("radio", name="hears only sentence B").click()
    expect(text).to_have_text(text_of(pair, 0.0, changed(pair, layer_5="second")))
    expect(status).to_contain_text("layer 5 hears B")
    page.get_by_role("group", name="final norm").get_by_role("radio", name="hears nothing").click()
    expect(text).to_have_text(text_of(pair, 0.0, changed(pair, final="off")))
    expect(
        page.get_by_role("group", name="layer 5").get_by_role("radio", name="hears the mixed vector")
    ).to_be_checked()
    page.get_by_role("button", name="Reset").click()
    expect(text).to_have_text(text_of(pair, 0.0, pair.plain))
    expect(page.get_by_role("button", name="Reset")).to_be_disabled()


def test_the_keyboard_reaches_everything(page):
    page.keyboard.press("Tab")
    expect(page.get_by_role("textbox", name="Sentence A")).to_be_focused()
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuetext", "10 percent B")
    for _ in range(2):
        page.keyboard.press("Tab")  # past Reset, to the first layer
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("status")).to_contain_text("layer 0 hears B")


def test_the_roles_and_names_that_a_screen_reader_needs_are_there(page):
    mixer_ = page.get_by_role("group", name="Mixer")
    for layer in range(12):
        group = mixer_.get_by_role("group", name=f"layer {layer}", exact=True)
        expect(group.get_by_role("radio")).to_have_count(3)
        expect(group.get_by_role("img")).to_have_attribute("aria-label", re.compile("RMS of gate .*, scale .*, shift"))
    expect(mixer_.get_by_role("group", name=FINAL).get_by_role("img")).not_to_have_attribute(
        "aria-label", re.compile("gate")
    )
    expect(mixer_.get_by_role("list", name="What the model writes").get_by_role("listitem").first).to_contain_text(
        "also from A alone"
    )
    expect(page.get_by_role("status")).to_have_attribute("aria-live", "polite")


def test_a_hostile_sentence_is_only_text(open_page, inverter):
    page = open_page(static_html(Mixture(inverter, HOSTILE, SECOND)))
    expect(page.get_by_role("textbox", name="Sentence A")).to_have_value(HOSTILE)
    assert page.title() == "page" and page.locator("img").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [600, 1600])
def test_it_fits_the_page_in_either_theme(open_page, html, width, theme):
    page = open_page(html, width=width, theme=theme, body_tag='class="page"')
    page.add_style_tag(content=".page { color-scheme: light dark; background: Canvas }")
    panel = page.locator(".invlib-mixer").evaluate("node => getComputedStyle(node).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", panel)[:3])) < 3 * 128) == (theme == "dark")
    page.get_by_role("slider").fill("0.6")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    screenshot(page, f"mixer-{width}-{theme}")


# What anywidget does with the module; `answer` plays the kernel.
LIVE = """
async ([script, style, view]) => {
  const sheet = document.createElement("style");
  sheet.textContent = style;
  const el = document.createElement("div");
  document.body.append(sheet, el);
  const heard = {};
  window.questions = [];
  window.model = {
    view,
    get(name) { return this[name]; },
    set(name, value) { questions.push(value); },
    save_changes() {},
    on(event, act) { heard[event] = act; },
    off(event) { delete heard[event]; },
    answer(view) { this.view = view; heard["change:view"](); },
    get listeners() { return Object.keys(heard).length; },
  };
  const module = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  window.leave = module.default.render({ model, el });
}
"""


@pytest.fixture
def live_page(open_page, live) -> Page:
    page = open_page("")
    page.evaluate(LIVE, [Mixer._esm, Mixer._css, live.view])
    return page


def test_a_busy_kernel_is_asked_only_the_last_question(live_page, live):
    slider = live_page.get_by_role("slider")
    for weight in ("0.25", "0.5", "0.75"):
        slider.fill(weight)
    assert [q["weight"] for q in live_page.evaluate("questions")] == [0.25]
    live_page.clock.run_for(200)
    expect(live_page.locator(".invlib-mixer")).to_have_attribute("aria-busy", "true")
    live_page.evaluate("view => model.answer(view)", live.view | {"number": 1, "weight": 0.25})
    assert [(q["weight"], q["number"]) for q in live_page.evaluate("questions")] == [(0.25, 1), (0.75, 2)]
    expect(slider).to_have_value("0.75")
    live_page.evaluate("view => model.answer(view)", live.view | {"number": 2, "weight": 0.75})
    expect(live_page.locator(".invlib-mixer")).not_to_have_attribute("aria-busy", "true")
    assert len(live_page.evaluate("questions")) == 2


def test_live_every_layer_may_hear_something_else_and_sentences_can_be_written(live_page, live):
    for layer, name in ((0, "hears only sentence A"), (5, "hears nothing")):
        live_page.get_by_role("group", name=f"layer {layer}").get_by_role("radio", name=name).click()
        live_page.evaluate("view => model.answer(view)", live.view)
    assert live_page.evaluate("questions.at(-1)")["choices"] == ["first", *["mix"] * 4, "off", *["mix"] * 7]
    field = live_page.get_by_role("textbox", name="Sentence B")
    field.fill("Snow.")
    field.press("Enter")
    assert live_page.evaluate("questions.at(-1)")["second"] == "Snow."


def test_an_error_is_shown_and_the_text_stays(live_page, live):
    live_page.get_by_role("slider").fill("0.5")
    live_page.evaluate("view => model.answer(view)", live.view | {"error": "the first sentence is empty; write one"})
    expect(live_page.get_by_role("status")).to_have_text("the first sentence is empty; write one")
    expect(live_page.locator(".text")).to_have_text(live.view["text"])


def test_a_closed_live_widget_leaves_nothing_behind(live_page):
    live_page.get_by_role("slider").fill("0.5")
    live_page.evaluate("leave()")
    assert live_page.locator(".invlib-mixer").count() == 0 and live_page.evaluate("model.listeners") == 0
    live_page.clock.run_for(1000)
