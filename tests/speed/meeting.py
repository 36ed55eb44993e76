"""How long a newcomer waits: the demo until a sentence is back, JupyterLab until the notebook stands, one step, Stop.

`python -m tests.speed.meeting`, on idle cores. Times in the browser are from the click to what a person sees of it.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from invlib import Inverter
from invlib.door.options import Parser
from invlib.widgets.lab.sentences import by_kind
from invlib.widgets.lab.session import Session
from invlib.widgets.lab.settings import Limits, Settings
from invlib.widgets.lab.verdict import EXACT
from tests.demo import Demo, opened
from tests.pages import PATIENCE, ROOT, LabPage, chromium, jupyterlab
from tests.speed.machine import description

OTHER = "The train to the coast leaves at noon."
IDLE = """() => {
  const kernel = window.jupyterapp?.shell?.currentWidget?.context?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
# Presses a button of the lab; milliseconds until the page is as asked. A test's own polling is ten times as coarse.
PRESS = """(name) => new Promise((resolve) => {
  const root = document.querySelector(".invlib-lab"), doing = root.querySelector(".doing");
  const steps = () => root.querySelector(".invlib-player input[type=range]").max, before = steps();
  const is = () => (%s);
  const begin = performance.now();
  [...root.querySelectorAll(".main-actions button")].find((one) => one.textContent === name).click();
  const look = () => (is() ? resolve(performance.now() - begin) : setTimeout(look, 1));
  look();
})"""
SEARCHES = 'doing.textContent.includes("Searching")'
HELD = '!doing.hidden && doing.textContent.startsWith("Held")'
GROWN = "steps() !== before"
AT_REST = 'root.getAttribute("aria-busy") === "false" && doing.hidden'


def told(what: str, seconds: float, most: float | None = None) -> None:
    aim = "" if most is None else f"  (at most {most:g} s: {'held' if seconds <= most else 'MISSED'})"
    print(f"{what}: {seconds:.2f} s{aim}", flush=True)


def in_the_demo(folder: Path) -> None:
    """From the command to the first sentence, and what a click costs."""
    with chromium() as browser, Demo(folder).served() as demo:
        for who in ("who comes while it loads", "who comes later"):
            lab = first_inversion(demo, browser, f"demo, {who}")
            clicks(lab)
            demo.everybody_leaves()


def first_inversion(demo: Demo, browser: Browser, who: str) -> LabPage:
    """From the address to the end of the search that runs when the page opens."""
    begin = time.perf_counter()
    lab = opened(demo.visit(browser))
    told(f"{who}: from the address to the lab", time.perf_counter() - begin)
    expect(lab.root.locator(".doing")).to_contain_text("Searching", timeout=PATIENCE)
    told(f"{who}: from the address to the first inversion, whose draft is there", time.perf_counter() - begin, 10)
    text = lab.came_back()
    told(f"{who}: from the address to the end of its search ({text!r})", time.perf_counter() - begin, 30)
    print(f"   {lab.root.locator('.told').text_content()}")
    return lab


def clicks(lab: LabPage) -> None:
    """Step once, and Stop in the midst of a search."""
    page: Page = lab.page
    lab.text.fill(OTHER)
    page.evaluate(PRESS % HELD, "Step once")
    steps = [page.evaluate(PRESS % GROWN, "Step once") / 1000 for _ in range(5)]
    told("demo: from Step once to the step, median", statistics.median(steps))
    page.evaluate(PRESS % AT_REST, "Stop")
    stops = []
    for text in (OTHER, "Nobody knew why the baker closed his shop.", "She sold fresh fish at the market."):
        lab.text.fill(text)
        page.evaluate(PRESS % SEARCHES, "Search closer")
        stops.append(page.evaluate(PRESS % AT_REST, "Stop") / 1000)
    told("demo: from Stop to rest, the slowest of three", max(stops), 0.5)


def in_jupyterlab(folder: Path) -> None:
    """From the command to a notebook whose kernel is ready."""
    begin = time.perf_counter()
    with chromium() as browser, jupyterlab(ROOT, folder) as url:
        page = browser.new_page()
        page.goto(f"{url}/lab/tree/notebooks/01_load_the_checkpoint.ipynb?reset")
        page.wait_for_function(IDLE, timeout=PATIENCE)
        told("JupyterLab: from the command to the notebook, its kernel ready", time.perf_counter() - begin)


def without_a_page(count: int) -> None:
    """One step of a run that somebody watches, and what searching brings for everyday sentences."""
    session = Session(Inverter.load("minilm"))
    session.invert(Settings(text=OTHER))
    session.wait()
    steps = []
    for number in range(8):
        begin = time.perf_counter()
        session.step_once(Settings(text=f"{OTHER} "))
        session.wait()
        steps += [time.perf_counter() - begin] if number else []  # the first encodes the text as well
    told("one step, median", statistics.median(steps), 0.05)
    drafts, exact, seconds = 0, 0, []
    for text in by_kind()["everyday"][:count]:
        session.invert(Settings(text=text))
        session.wait()
        drafts += session.outcome.verdict[0] == EXACT
        begin = time.perf_counter()
        if session.outcome.verdict[0] != EXACT:
            session.search(Settings(text=text, max_queries=Limits.max_queries))
            session.wait()
        exact += session.outcome.verdict[0] == EXACT
        seconds.append(time.perf_counter() - begin)
    print(f"of {count} everyday sentences {drafts} come back exactly as drafts, {exact} after a search")
    told("search, median", statistics.median(seconds))


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(prog="python -m tests.speed.meeting", description=__doc__.partition("\n")[0])
    parser.add_argument("--sentences", type=int, default=15)
    chosen = parser.parse_args(arguments)
    print(f"machine: {description()}")
    without_a_page(chosen.sentences)
    with tempfile.TemporaryDirectory() as folder:
        in_the_demo(Path(folder))
        in_jupyterlab(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
