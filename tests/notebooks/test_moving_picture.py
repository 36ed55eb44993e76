"""The README's moving picture: a real inversion and the search behind it, small, and it moves."""

import re
from xml.etree import ElementTree

import pytest

from invlib.widgets.lab.session import Session
from tests.pages import REPORT, program

COMMITTED = REPORT / "inversion.svg"
NAMES = "Maria Kowalska moved to flat 27 on 14 October."  # no draft of it is whole
TITLE = "From the embedding of “(.+)” the model writes “(.+)”"


def told(svg: bytes) -> re.Match:
    return re.fullmatch(TITLE, ElementTree.fromstring(svg).find("{http://www.w3.org/2000/svg}title").text)


def test_it_draws_what_the_two_buttons_of_the_lab_give(inverter, monkeypatch):
    drawing, session = program("moving_picture"), Session(inverter)
    monkeypatch.setattr(drawing, "QUERIES", 40)
    picture = drawing.inverted(session, NAMES)
    assert told(picture).groups() == (NAMES, session.outcome.text) and session.outcome.encoder_queries > 1
    assert picture.count(b'class="frame') == session.trajectory.num_steps + 1


def test_the_committed_picture_is_small_says_what_it_shows_and_opens_the_readme():
    assert told(COMMITTED.read_bytes()) and COMMITTED.stat().st_size <= 500_000
    assert b"From the vector alone" in COMMITTED.read_bytes() and b"Searching closer" in COMMITTED.read_bytes()
    opening = (REPORT.parents[1] / "README.md").read_text().split("\n\n")[:2]
    assert "(notebooks/_report/inversion.svg)" in opening[1]


@pytest.fixture
def filmed(chromium, tmp_path):
    contexts = []

    def film(body: str, milliseconds: int = 2500, **options) -> tuple[bytes, bytes]:
        """Screenshots of the beginning and of a step later."""
        context = chromium.new_context(viewport={"width": 900, "height": 320}, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{body}", encoding="utf-8")
        page.goto((tmp_path / "page.html").as_uri())
        before = page.screenshot()
        page.wait_for_timeout(milliseconds)  # the animation has no clock that a test could turn
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
    moving, _ = filmed(COMMITTED.read_text(encoding="utf-8"), 0)
    assert moving != before
