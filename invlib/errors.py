"""What a user is told when the input is wrong."""


class InputError(ValueError):
    """One line: what was found, what was expected, what to do.

    Commands print it and exit with status 2; notebooks show it without a traceback
    (IPython asks an exception for `_render_traceback_`).
    """

    def _render_traceback_(self) -> list[str]:
        return [f"InputError: {self}"]
