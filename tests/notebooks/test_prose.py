"""What the notebooks say: one chain, short cells, no number that no cell prints, figures that everybody can read."""

import base64
import re
from html import unescape

import nbformat
import pytest

from invlib.plots.style import DARK
from tests.pages import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST, LONGEST_OF_ALL = 25, 100  # lines of code: of a cell; of notebook 07, which only shows what studies compute
CODE = re.compile(r"```.*?```|`[^`]*`|\$[^$]*\$", re.DOTALL)
NUMBER = re.compile(r"(?<![\w@#.-])\d+(?:[.,]\d+)*(?![\w@-])")
# What no cell could print: places in the series, list numbers, years of papers, names, levels of confidence.
ALLOWED = (
    r"\d\d_\w+\.ipynb",
    r"[Nn]otebooks? \d\d(, \d\d)*( and \d\d)?",
    r"^\d+\. ",
    r"\b(19|20)\d\d\b",
    r"arXiv \d+\.\d+",
    r"\b(recall|nDCG)@\d+",
    r"\b95 %",
    r"\b100 % masks",
    r"int[48]",
    r"\(0\): ",
)

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def printed(notebook) -> str:
    """Everything that the cells show, without the pictures."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = [output.get("text", "") for output in outputs]
    for output in outputs:
        data = output.get("data", {})
        texts += [data.get("text/plain", ""), unescape(re.sub("<[^>]*>", " ", data.get("text/html", "")))]
    return "\n".join(texts)


def untold(notebook) -> list[str]:
    """The numbers of the prose that no cell prints."""
    text = CODE.sub(" ", prose(notebook))
    for allowed in ALLOWED:
        text = re.sub(allowed, " ", text, flags=re.MULTILINE)
    return [number for number in NUMBER.findall(text) if number not in printed(notebook)]


def test_the_notebooks_are_one_chain_from_the_first_to_the_last():
    for path, following in zip(NOTEBOOKS, [*NOTEBOOKS[1:], NOTEBOOKS[0]], strict=True):
        last = read(path).cells[-1].source.splitlines()[-1]
        assert f"]({following.name})" in last, path.stem


@every_notebook
def test_every_link_leads_to_a_file(path):
    links = re.findall(r"\]\(([^):#]+)\)", prose(read(path)))
    assert [link for link in links if not (path.parent / link).exists()] == []


@every_notebook
def test_a_cell_is_short_and_what_it_computes_stands_in_the_package(path):
    cells = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    lengths = [len([line for line in source.splitlines() if line.strip()]) for source in cells]
    assert max(lengths) <= LONGEST
    assert path.stem != "07_defences" or sum(lengths) <= LONGEST_OF_ALL


@every_notebook
def test_no_number_of_the_prose_is_typed_by_hand(path):
    assert untold(read(path)) == []


def test_a_number_that_no_cell_prints_is_found():
    cells = [
        nbformat.v4.new_markdown_cell("We saw 0.42 and 17 of them (Sahoo et al. 2024), 95 % sure, see notebook 03.")
    ]
    cells.append(nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("stream", text="17\n")]))
    assert untold(nbformat.v4.new_notebook(cells=cells)) == ["0.42"]


@every_notebook
def test_every_figure_has_its_words_follows_the_theme_and_is_large_enough_to_read(path):
    outputs = [output.get("data", {}) for cell in read(path).cells for output in cell.get("outputs", ())]
    assert not [data for data in outputs if "image/png" in data], "use plots.picture"
    for data in outputs:
        for figure in re.findall(r'<figure class="invlib-figure">.*?</figure>', data.get("text/html", ""), re.DOTALL):
            alt, encoded = re.search(r'alt="([^"]+)" src="data:image/svg\+xml;base64,([^"]+)"', figure).groups()
            assert len(alt) > 20 and re.search(r"<figcaption>.{15,}</figcaption>", figure)
            svg = base64.b64decode(encoded).decode()
            width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])
            assert min(float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg)) * 688 / width >= 9
            assert not set(re.findall("#[0-9a-f]{6}", svg.split("</style>", 1)[1])) & set(DARK)
