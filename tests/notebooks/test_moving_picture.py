"""The README's moving picture: a real inversion, small, harmless, and it moves."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from invlib.trajectory import Trajectory
from tests.pages import REPORT, program

COMMITTED = REPORT / "inversion.svg"
M = 4
drawing = program("moving_picture")


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    tokens = np.array([[M, M, M], [M, 7, M], [6, 7, 8]], np.int32)
    confidence = np.array([[np.nan] * 3, [np.nan, 0.9, np.nan], [0.2, 0.9, 0.5]], np.float32)
    nothing = np.full((3, 3, 1), -1)
    return Trajectory(tokens, confidence, nothing, nothing * 0.0, M, {6: "we", 7: "<b>", 8: "go"}, "we <b> go")


@pytest.fixture(scope="module")
def picture(trajectory) -> str:
    return drawing.moving_picture(trajectory, "We & they go.", np.linspace(-1, 1, 16), 0.5)


def groups(picture: str, animation: str) -> list[str]:
    """The texts inside everything that has an animation of that name."""
    root = ElementTree.fromstring(picture)
    found = [node for node in root.iter() if f"animation-name: {animation}" in node.get("style", "").split(";")[0]]
    return ["".join(node.itertext()) for node in found if node.get("style").split(";")[0].endswith(animation)]


def test_every_token_is_masked_until_its_step_and_shown_from_it_on(picture):
    assert groups(picture, "until-1") == ["[MASK]"] and groups(picture, "until-2") == ["[MASK]", "[MASK]"]
    assert groups(picture, "from-1") == ["<b>"]
    assert groups(picture, "from-2")[:2] == ["we", "go"]
    assert "we <b> go" in groups(picture, "from-2")[2] and "cosine 0.500" in groups(picture, "from-2")[2]
    assert [text for step in range(3) for text in groups(picture, f"in-{step}") if text] == [
        f"step {step} of 2" for step in range(3)
    ]


def test_steps_follow_each_other_until_the_end_is_held():
    clock = drawing.Clock(8)
    begins = [clock.percent(step) for step in range(10)]
    assert begins == sorted(set(begins)) and begins[0] == 0 and begins[-1] == 100
    assert (begins[9] - begins[8]) * clock.seconds / 100 == pytest.approx(drawing.HOLD)


def test_many_tokens_go_on_in_a_second_row(trajectory):
    wide = Trajectory(
        *(np.tile(getattr(trajectory, name), (1, 5)) for name in ("tokens", "confidence")),
        *(np.tile(trajectory.top_ids, (1, 5, 1)), np.tile(trajectory.top_probs, (1, 5, 1))),
        *(M, trajectory.pieces, trajectory.text),
    )
    root = ElementTree.fromstring(drawing.moving_picture(wide, "We go.", np.ones(16), 0.5))
    tiles = [node for node in root.iter() if node.get("class") == "tile"]
    assert len(tiles) == 15 and len({tile.get("y") for tile in tiles}) == 2
    assert all(float(tile.get("x")) + float(tile.get("width")) <= drawing.WIDTH - drawing.MARGIN for tile in tiles)


@pytest.mark.parametrize("which", ["drawn", "committed"])
def test_it_is_small_and_neither_runs_nor_loads_anything(picture, which):
    text = picture if which == "drawn" else COMMITTED.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert len(text.encode()) <= 500_000
    assert {node.tag.partition("}")[2] for node in root.iter()} <= {
        "svg",
        "title",
        "style",
        "g",
        "rect",
        "path",
        "text",
    }
    assert not re.search(r"url\(|@import|href|\son\w+=", text)


def test_the_committed_picture_says_what_it_shows_and_opens_the_readme():
    title = ElementTree.parse(COMMITTED).getroot().find("{http://www.w3.org/2000/svg}title").text
    assert re.fullmatch(r"From the embedding of “.+” the model recovers “.+” in \d+ steps\.", title)
    opening = (REPORT.parents[1] / "README.md").read_text().split("\n\n")[:2]
    assert "(notebooks/_report/inversion.svg)" in opening[1]


@pytest.fixture
def filmed(chromium, tmp_path):
    contexts = []

    def film(body: str, **options) -> tuple[bytes, bytes]:
        """Screenshots of the beginning and of some steps later."""
        context = chromium.new_context(viewport={"width": 900, "height": 320}, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{body}", encoding="utf-8")
        page.goto((tmp_path / "page.html").as_uri())
        before = page.screenshot()
        page.wait_for_timeout(4000)  # the animation has no clock that a test could turn
        return before, page.screenshot()

    yield film
    for context in contexts:
        context.close()


def test_it_moves_in_an_img_as_in_the_readme(filmed):
    before, after = filmed(f'<img src="{COMMITTED.as_uri()}">')
    assert before != after


def test_it_stands_still_at_the_end_where_that_is_asked_for(filmed):
    before, after = filmed(COMMITTED.read_text(encoding="utf-8"), reduced_motion="reduce")
    assert before == after
    moving, _ = filmed(COMMITTED.read_text(encoding="utf-8"))
    assert moving != before
