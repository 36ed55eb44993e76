"""Widgets: what a person touches in a notebook."""

from invlib.widgets.lab import lab
from invlib.widgets.player import player

__all__ = ["lab", "player"]
