"""Widgets: what a person touches in a notebook."""

from invlib.widgets.player import player

__all__ = ["player"]
