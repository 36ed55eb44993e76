"""Moving pictures: every step stands where the frames say, lanes keep time with each other, nothing runs or loads."""

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from invlib.trajectory import Trajectory
from invlib.widgets import picture
from invlib.widgets.player import frames

M = 4
SENTENCE = "We & they <go>."


def written(rows: list[list[int]], asked: dict | None = None) -> dict:
    """Frames of a trajectory of these tokens."""
    tokens = np.array(rows, np.int32)
    confidence = np.where(tokens == M, np.nan, 0.5).astype(np.float32)
    top = np.where(np.arange(len(rows))[:, None] == 3, -1, tokens)[..., None]  # step 3 is a search's
    pieces = {M: "[MASK]", 6: "we", 7: "<b>", 8: "go"}
    return frames(Trajectory(tokens, confidence, top, np.full(top.shape, 0.5), M, pieces, "we <b> go"), asked=asked)


LONG = written([[M, M, M], [M, 7, M], [6, 7, 6], [6, 7, 8]], {2: (0.5, 1), 3: (1.0, 57)})
SHORT = written([[M, M, M], [6, 7, 8]])
ONE = [{"label": "", "frames": LONG}]
TWO = [{"label": "a search", "frames": LONG}, {"label": "one step", "frames": SHORT}]


def drawn(lanes: list[dict], *told: object) -> list[list[str]]:
    """The texts of every step of an SVG."""
    groups = ElementTree.fromstring(picture.svg(lanes, *told)).findall("{http://www.w3.org/2000/svg}g")
    return [[node.text for node in group if node.text] for group in groups]


def test_every_step_is_what_the_frames_say_and_a_search_counts_its_queries():
    assert drawn(ONE) == [
        ["From the vector alone · step 0 of 3", "[MASK]", "[MASK]", "[MASK]"],
        ["From the vector alone · step 1 of 3", "[MASK]", "<b>", "[MASK]"],
        ["From the vector alone · step 2 of 3 · 1 query to the encoder · cosine 0.500", "we", "<b>", "we"],
        ["Searching closer · step 3 of 3 · 57 queries to the encoder · cosine 1.000", "we", "<b>", "go"],
    ]


def test_a_short_run_waits_at_its_end_for_a_long_one():
    *_, last = drawn(TWO)
    assert last[0].startswith("a search: search · step 3 of 3") and last[4:] == [
        "one step · step 1 of 1",
        "we",
        "<b>",
        "go",
    ]


def test_many_tokens_go_on_in_a_second_row_and_nothing_stands_outside():
    wide = written([[M] * 15, [6, 7, 8] * 5])
    _, rows, height = picture.scenes([{"label": "", "frames": wide}], "", None)
    tiles = [shape for shape in rows[-1] if shape.height == picture.HEIGHT]
    assert len(tiles) == 15 and len({tile.y for tile in tiles}) == 2
    assert all(tile.x + tile.width <= picture.WIDTH - picture.MARGIN for tile in tiles)
    assert all(tile.y + tile.height <= height - picture.MARGIN for tile in tiles)


def test_the_vector_has_a_bar_for_every_number_upwards_or_downwards():
    still, _, _ = picture.scenes(ONE, SENTENCE, np.array([1.0, -1.0, 0.5]))
    up, down, half = (shape for shape in still if shape.look in ("bar", "minus"))
    assert (up.look, down.look, half.look) == ("bar", "minus", "bar")
    assert up.y + up.height == down.y == half.y + half.height and 2 * half.height == pytest.approx(up.height)


@pytest.mark.parametrize("lanes", [ONE, TWO], ids=["one", "two"])
def test_it_is_harmless_and_says_what_it_shows(lanes):
    root = ElementTree.fromstring(picture.svg(lanes, SENTENCE, np.ones(4)))
    assert {node.tag.partition("}")[2] for node in root.iter()} == {"svg", "title", "style", "g", "rect", "text"}
    assert not re.search(r"url\(|@import|href|\son\w+=", ElementTree.tostring(root, "unicode"))
    told = root.find("{http://www.w3.org/2000/svg}title").text
    assert f"“{SENTENCE}”" in told and "“we <b> go”" in told


def test_a_gif_has_a_picture_for_every_step_and_holds_the_last():
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(picture.gif(TWO, SENTENCE, np.ones(4))))
    assert image.n_frames == 4 and image.size[0] == picture.WIDTH * picture.SCALE
    times = []
    for frame in range(4):
        image.seek(frame)
        times.append(image.info["duration"])
    assert times[-1] == max(times) and times[1] == times[2] < times[0]
