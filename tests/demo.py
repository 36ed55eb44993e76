"""The demo's server as tests meet it: who visits, and how many kernels that costs."""

import sys
import time
from contextlib import contextmanager

import psutil
from playwright.sync_api import Browser, expect

from tests.pages import PATIENCE, ROOT, LabPage, free_port, own_folders, serving

SERVE = ROOT / "notebooks" / "_demo" / "serve.py"
ENDS = 60  # seconds until the kernel of a page that was cut off is gone


class Demo:
    """The demo, seen from outside."""

    def __init__(self, folder, *options: str):
        self.folder, self.options, self.port = folder, options, free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.address = f"http://{self.host}/"
        self.asked, self.errors, self.contexts = [], [], []

    @contextmanager
    def served(self):
        command = [sys.executable, SERVE, "--port", str(self.port), *self.options]
        known = f"{self.address}voila/static/none"
        with serving(command, known, self.folder / "log.txt", own_folders(self.folder)) as seconds:
            print(f"the demo answers after {seconds:.1f} s")
            yield self

    @property
    def processes(self) -> list[psutil.Process]:
        (server,) = (own for own in psutil.Process().children() if str(self.port) in own.cmdline())
        return [server, *server.children(recursive=True)]

    def kernels(self) -> list[psutil.Process]:
        """What was forked from the warm process, which is a child of the server."""
        server, *_ = self.processes
        return [kernel for child in server.children() for kernel in child.children() if kernel.status() != "zombie"]

    def has_kernels(self, count: int) -> bool:
        """Does it come down to so many kernels in time?"""
        until = time.monotonic() + ENDS
        while len(self.kernels()) > count and time.monotonic() < until:
            time.sleep(0.2)
        return len(self.kernels()) == count

    def visit(self, chromium: Browser, **options) -> LabPage:
        """Another person asks for the page."""
        context = chromium.new_context(viewport={"width": 1200, "height": 900}, **options)
        self.contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(self.address, timeout=PATIENCE)
        return LabPage(page)

    def everybody_leaves(self) -> None:
        for context in self.contexts:
            for page in context.pages:
                page.goto("about:blank")
            context.close()
        self.contexts.clear()


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
