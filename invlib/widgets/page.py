"""Page: what player, mixer and lab share: one theme, one style sheet, one script, and a page that needs no kernel."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import anywidget

FOLDER = Path(__file__).parent
COLOUR = re.compile(r"--(\w+): light-dark\((#\w+), (#\w+)\)")


class Pane(anywidget.AnyWidget):
    """A widget whose output also carries what `static` gives: a page that needs no kernel, and plain text."""

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return data | dict(zip(("text/html", "text/plain"), self.static(), strict=True)), metadata


def script(*names: str) -> str:
    """The module of a widget: what all share, and the files of these names; the last one's `render…` is exported.

    One text, because neither anywidget nor an inline script can import a second file.
    """
    *_, last = names[-1].split("/")
    return f"{_script(*names)}export default {{ render: render{last.title()} }};\n"


def style(*names: str) -> str:
    """The style sheet of a widget: what all share, and the files of these names."""
    return _joined("base", *names, suffix=".css")


def static_html(
    kind: str, data: Any, lines: Iterable[str], scripts: Sequence[str] = (), styles: Sequence[str] = ()
) -> str:
    """A page without a kernel: kind.js draws `data` in every place; where no script runs, the lines stand there.

    scripts, styles: the files of both, its own last; default: that one alone.
    """
    told = json.dumps({"style": style(*styles or (kind,)), "data": data}, separators=(",", ":"))
    told = told.replace("<", "\\u003c")  # no token can end the script or open a comment in it
    name = hashlib.sha256(told.encode()).hexdigest()[:12]  # by content: executed again, the output stays the same
    text = _script(*scripts or (kind,))
    return (
        f'<div data-invlib-{kind}="{name}"><pre>{escape(chr(10).join(lines))}</pre></div>\n'
        f'<script type="module">\n{text}mount("{kind}", "{name}", {told}, draw{kind.title()});\n</script>'
    )


def whole(title: str, body: str) -> str:
    """A page as a file of its own, which reads offline."""
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    look = "<style>:root { color-scheme: light dark } body { max-width: 1100px; margin: 24px auto; padding: 0 16px }"
    return f"{head}<title>{escape(title)}</title>{look}</style><body>{body}</body></html>\n"


def colour_by_name(*, is_dark: bool) -> dict[str, str]:
    """The theme's colours."""
    return {name: pair[is_dark] for name, *pair in COLOUR.findall(style())}


def colours(*, is_dark: bool) -> str:
    """The theme's colours as declarations, for a picture that is no page."""
    return "; ".join(f"--{name}: {value}" for name, value in colour_by_name(is_dark=is_dark).items())


def _script(*names: str) -> str:
    return _joined("base", *names, suffix=".js")


def _joined(*names: str, suffix: str) -> str:
    return "".join((FOLDER / f"{name}{suffix}").read_text(encoding="utf-8") for name in names)
