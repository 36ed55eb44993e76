"""The page that player, mixer and lab share."""

import re

import pytest

from invlib.widgets import page
from invlib.widgets.lab.lab import Lab
from invlib.widgets.mixer import Mixer
from invlib.widgets.player import Player


def names(declarations: str) -> list[str]:
    return re.findall(r"--(\w+):", declarations)


def test_every_colour_of_the_theme_has_a_light_and_a_dark_value():
    light, dark = page.colours(is_dark=False), page.colours(is_dark=True)
    assert names(light) == names(dark) and "ink" in names(light)
    assert len(names(light)) == page.style().count("light-dark(")
    assert all(a != b for a, b in zip(light.split("; "), dark.split("; "), strict=True))


@pytest.mark.parametrize("widget", [Player, Mixer, Lab])
def test_a_widget_is_one_module_with_one_export_and_every_colour_it_names(widget):
    assert widget._esm.count("export default") == 1 and f"function render{widget.__name__}(" in widget._esm
    known = set(re.findall(r"--([\w-]+):", widget._css)) | {"columns", "p"}  # the heat map's script sets these
    assert set(re.findall(r"var\(--([\w-]+)\)", widget._css)) <= known
    assert widget._css.count("{") == widget._css.count("}")
