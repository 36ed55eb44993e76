"""The inversion lab: a session without widgets, its settings, and the page that shows it."""
