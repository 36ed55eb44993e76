"""Sphinx configuration of the report. Nothing here may make a page ask another host for anything."""

from html import escape

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

project = "Embedding inversion workbench"
extensions = ["myst_nb"]
exclude_patterns = [".doctrees-*"]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["report.css"]
html_show_search_summary = False  # it fetches every page found, which a browser forbids to a page from a file
html_context = {"default_mode": "auto"}
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the default is a second search field above the one in the sidebar
    "show_toc_level": 2,
    "use_download_button": True,
    "footer_content_items": "",  # the default prints "By Author name not set"
}

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_update_mathjax = False
html_math_renderer = "mathml"

# Chromium on Linux takes its text font for formulas unless told, and then draws subscripts on the line.
math_fonts = "'Latin Modern Math', 'STIX Two Math', 'Cambria Math', 'DejaVu Math TeX Gyre', math"

nb_execution_mode = "off"  # executed before, by nbclient, with the environment's own kernel
nb_merge_streams = True
nb_ipywidgets_js = {}  # the default is three scripts from a CDN on every page with a widget
# Without those scripts a widget view is an empty place: None takes it out, so that HTML, image or text shows.
nb_mime_priority_overrides = [
    (builder, mime, priority)
    for builder in ("html", "singlehtml")
    for mime, priority in (("application/vnd.jupyter.widget-view+json", None), ("text/html", 0))
]
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"

logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    """Formulas as MathML, which browsers draw themselves: MathJax would come from a CDN."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))


def visit_math(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    # No class "math": the theme lays it out for MathJax, and pushes anything else to the right margin.
    translator.body.append(f'<div style="overflow-x: auto">{mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def mathml(node: nodes.math | nodes.math_block, as_block: bool) -> str:
    """The formula as MathML; one that docutils cannot read is a warning, so that the build names it."""
    try:
        formula = tex2mathml(node.astext(), as_block=as_block)
    except Exception as error:  # MathError, but also AttributeError and IndexError from inside the parser
        logger.warning("cannot render the formula %s: %s", node.astext(), error, location=node)
        return f"<code>{escape(node.astext())}</code>"
    return formula.replace("<math ", f'<math style="font-family: {math_fonts}" ', 1)
