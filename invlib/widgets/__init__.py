"""Widgets: what a person touches in a notebook."""

from invlib.widgets.lab.lab import lab
from invlib.widgets.mixer import mixer
from invlib.widgets.player import player

__all__ = ["lab", "mixer", "player"]
