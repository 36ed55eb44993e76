"""The demo without Jupyter: one Voilà page; what a visitor meets, what a visit costs, and that it ends."""

import os
import re
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from tests.demo import SERVE, Demo, opened
from tests.pages import PATIENCE, ROOT, LabPage

FIRST, SECOND = "The train to the coast leaves at noon.", "Nobody knew why the baker closed his shop."
MOST_FOR_A_VISITOR = 150e6  # bytes


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Demo(tmp_path_factory.mktemp("voila")).served() as demo:
        yield demo


@pytest.fixture
def demo(served):
    """In the end everybody has left, nobody else was asked for anything, and no page saw an error."""
    yield served
    served.everybody_leaves()
    assert served.has_kernels(0)
    assert not [url for url in served.asked if not url.startswith((served.address, "blob:", "data:"))]
    assert not served.errors


@pytest.fixture
def visit(demo, chromium):
    """Another person opens the demo and has the lab."""
    return lambda **options: opened(demo.visit(chromium, **options))


def test_two_people_at_once_do_not_see_each_other_and_the_second_costs_little(demo, visit):
    one, two = visit(), visit()
    mine, theirs = one.invert(FIRST), two.invert(SECOND)
    assert mine != theirs
    one.touch(1, "Pin")
    expect(one.root.get_by_role("group", name="Steering")).to_contain_text("1 token pinned")
    expect(two.root.get_by_role("group", name="Steering")).not_to_contain_text("pinned:")
    assert two.recovered.text_content() == theirs and two.text.input_value() == SECOND
    one.page.wait_for_timeout(4000)  # until then what the searches have freed is given back
    costs = [kernel.memory_full_info().uss for kernel in demo.kernels()]
    print("a visitor's own memory after a search and an inversion, MB:", [round(cost / 1e6) for cost in costs])
    assert len(costs) == 2 and max(costs) < MOST_FOR_A_VISITOR


def test_ten_reloads_leave_as_many_kernels_as_before(demo, visit):
    lab = visit()
    (first,) = demo.kernels()
    for _ in range(10):
        lab.page.reload(timeout=PATIENCE)
    opened(lab)
    assert demo.has_kernels(1)
    assert demo.kernels() != [first]
    assert lab.invert(FIRST)


def test_a_page_that_was_cut_off_gives_its_kernel_back(demo, visit):
    visit()
    visit().page.close()  # without a farewell, as a crash or a dead battery
    assert len(demo.kernels()) == 2
    assert demo.has_kernels(1)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_has_a_name_and_the_theme_of_the_system(demo, visit, theme):
    lab = visit(color_scheme=theme)
    assert lab.page.title() == "Embedding inversion lab"
    expect(lab.root).to_have_css("color-scheme", theme)
    background = lab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background)[:3])) < 60) == (theme == "dark")
    for width in (1200, 600):
        lab.page.set_viewport_size({"width": width, "height": 900})
        assert lab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        lab.shot(f"demo-{width}-{theme}")
    lab.page.emulate_media(color_scheme="light")
    expect(lab.root).to_have_css("color-scheme", "light")


def test_what_is_too_much_is_refused_with_the_limit(demo, visit):
    lab = visit()
    lab.text.fill("long " * 201)
    lab.button("Invert").click()
    expect(lab.alert).to_contain_text("1,005 characters; the lab takes 1,000 at most", timeout=PATIENCE)
    assert lab.invert(FIRST)
    expect(lab.alert).to_be_hidden()


def test_who_finds_every_seat_taken_is_told_and_let_in_when_one_is_free(chromium, tmp_path):
    with Demo(tmp_path, "--seats", "1").served() as demo:
        first = opened(demo.visit(chromium))
        late: Page = demo.visit(chromium).page
        expect(late.get_by_text("Every seat in the lab is taken.")).to_be_visible()
        assert late.title() == "Embedding inversion lab" and len(demo.kernels()) == 1
        first.page.reload(timeout=PATIENCE)  # who is in may reload
        opened(first)
        first.page.goto("about:blank")
        expect(LabPage(late).button("Invert")).to_be_visible(timeout=PATIENCE)  # it tries again by itself
        demo.everybody_leaves()


def recipe(*arguments: str, **env: str) -> str:
    """The command line of `make demo`, not run."""
    done = subprocess.run(
        ["make", "-n", "demo", *arguments], cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_only_this_machine_is_served_unless_a_host_is_named():
    assert "--host 127.0.0.1 --port 8080" in recipe()
    assert "--host 127.0.0.1" in recipe(HOST="0.0.0.0"), "some shells export HOST"
    assert "--host 0.0.0.0 --port 80" in recipe("HOST=0.0.0.0", "PORT=80")
    help_ = subprocess.run([sys.executable, SERVE, "--help"], capture_output=True, text=True, check=True).stdout
    assert re.search(r"default:\s+127.0.0.1", help_)
