"""The demo without Jupyter: one Voilà page; two visitors, a reload, the limits, and nobody else who is asked."""

import os
import re
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from tests.pages import PATIENCE, ROOT, LabPage, free_port, own_folders, serving

SERVE = ROOT / "notebooks" / "_demo" / "serve.py"
FIRST, SECOND = "The train to the coast leaves at noon.", "Nobody knew why the baker closed his shop."


@pytest.fixture(scope="module")
def address(chromium, tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("voila"), free_port()
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, SERVE, "--port", str(port)]
    with serving(command, f"{url}voila/static/none", folder / "log.txt", own_folders(folder)) as seconds:
        print(f"the demo answers after {seconds:.1f} s")
        yield url


@pytest.fixture
def visit(chromium, address):
    """Opens the demo as another person would; in the end no other host was asked and no error was seen."""
    contexts, foreign, errors = [], [], []

    def visited(width: int = 1200) -> LabPage:
        context = chromium.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.on(
            "requestfinished",
            lambda r: None if r.url.startswith((address, "blob:", "data:")) else foreign.append(r.url),
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address, timeout=PATIENCE)
        return opened(LabPage(page))

    yield visited
    for context in contexts:
        context.close()
    assert not foreign and not errors


def opened(lab: LabPage) -> LabPage:
    """The lab when it is there. On a machine under load the page gives up on a kernel after four seconds: once more."""
    given_up = lab.page.get_by_text("Error displaying widget")
    for _ in range(3):
        expect(lab.button("Invert").or_(given_up)).to_be_visible(timeout=PATIENCE)
        if not given_up.count():
            break
        lab.page.reload(timeout=PATIENCE)
    expect(lab.button("Invert")).to_be_visible(timeout=PATIENCE)
    return lab


def is_clean(lab: LabPage) -> None:
    expect(lab.tokens).to_have_count(0)
    expect(lab.recovered).to_have_count(0)
    expect(lab.text).to_have_value("Meet me at the station at nine.")


def test_two_people_at_once_do_not_see_each_other_and_a_reload_starts_clean(visit):
    one, two = visit(), visit(width=600)
    assert one.invert(FIRST)
    is_clean(two)
    one.touch(1, "Pin")
    expect(one.root.get_by_role("group", name="Steering")).to_contain_text("1 token pinned")
    theirs, mine = two.invert(SECOND), one.recovered.text_content()
    assert theirs != mine and one.text.input_value() == FIRST
    expect(two.root.get_by_role("group", name="Steering")).not_to_contain_text("pinned:")
    assert one.invert() and one.recovered.text_content() != theirs
    for lab, name in ((one, "demo-1200"), (two, "demo-600")):
        assert lab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        lab.shot(name)
    one.page.reload(timeout=PATIENCE)
    is_clean(opened(one))
    assert one.invert(FIRST) == mine
    assert two.recovered.text_content() == theirs


def test_what_is_too_much_is_refused_with_the_limit(visit):
    lab = visit()
    lab.text.fill("long " * 201)
    lab.button("Invert").click()
    expect(lab.alert).to_contain_text("1,005 characters; the lab takes 1,000 at most", timeout=PATIENCE)
    lab.text.fill(FIRST)
    lab.root.get_by_label("Steps").fill("500")
    lab.button("Invert").click()
    expect(lab.alert).to_have_text("Steps must be from 1 to 64, got 500", timeout=PATIENCE)
    lab.root.get_by_label("Steps").fill("4")
    lab.root.get_by_label("Search with the encoder").check()
    lab.root.get_by_label("Encoder queries").fill("100000")
    lab.button("Invert").click()
    expect(lab.alert).to_have_text("The search budget must be from 0 to 2,000, got 100,000", timeout=PATIENCE)
    lab.root.get_by_label("Search with the encoder").uncheck()
    assert lab.invert()
    expect(lab.alert).to_be_hidden()


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
