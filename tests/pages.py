"""What the browser tests share: a headless Chromium, and a server in a process of its own."""

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent
SCREENS = ROOT / "build" / "screens"
PATIENCE = 90_000  # milliseconds; a slow machine under load is not an error
QUIET = ("disable-background-networking", "disable-component-update", "disable-sync", "no-first-run", "disable-gpu")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium here; install one: apt-get install chromium")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", *(f"--{name}" for name in QUIET)]  # no sandbox: root has none, as in a container
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def serving(command: Sequence, url: str, log: Path, env: Mapping[str, str]) -> Iterator[float]:
    """The server of a command while the block runs; seconds until it answered. It ends with all its kernels."""
    with open(log, "w") as out:
        server = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield _answer(server, url, log)
        finally:
            server.terminate()  # its kernels end with it
            server.wait(60)


def _answer(server: subprocess.Popen, url: str, log: Path) -> float:
    begin = time.perf_counter()
    while time.perf_counter() - begin < PATIENCE / 1000:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5)
        except urllib.error.HTTPError:
            pass  # an answer, too
        except OSError:
            time.sleep(0.1)
            continue
        return time.perf_counter() - begin
    raise TimeoutError(log.read_text())


class LabPage:
    """The inversion lab as a person meets it on a page."""

    def __init__(self, page: Page):
        self.page, self.root = page, page.get_by_role("group", name="Inversion lab")
        self.text = self.root.get_by_label("Text to invert")
        self.numbers = self.root.get_by_label("Vector to invert")
        self.tokens = self.root.get_by_role("listbox", name="Tokens").get_by_role("option")
        self.recovered = self.root.locator(".recovered")
        self.alert, self.note, self.doing = (
            self.root.locator(f".note.{kind}") for kind in ("error", "answer", "doing")
        )
        self.code = self.root.locator("pre")
        self.step = self.root.get_by_role("slider", name="Step")

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    def is_idle(self) -> None:
        """Waits until nothing runs and the player has shown the last step."""
        expect(self.root).to_have_attribute("aria-busy", "false", timeout=PATIENCE)
        expect(self.button("Stop")).to_be_disabled(timeout=PATIENCE)
        if self.tokens.count():
            expect(self.button("Play")).to_be_visible(timeout=PATIENCE)

    def invert(self, text: str | None = None) -> str:
        """Type a text, press Invert, wait; the text that came back."""
        if text is not None:
            self.tab("Text").click()
            self.text.fill(text)
        self.button("Invert").click()
        return self.came_back()

    def came_back(self) -> str:
        expect(self.recovered).to_be_visible(timeout=PATIENCE)
        self.is_idle()
        return self.recovered.text_content()

    def tab(self, name: str) -> Locator:
        return self.root.get_by_role("tab", name=name, exact=True)

    def words(self) -> list[str]:
        return self.root.get_by_role("listbox", name="Tokens").locator(".word").all_text_contents()

    def touch(self, position: int, button: str) -> None:
        """Click a token, then a button of what opens."""
        self.tokens.nth(position).click()
        self.root.get_by_role("toolbar", name=f"Token {position}").get_by_role("button", name=button).click()

    def shot(self, name: str) -> None:
        SCREENS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENS / f"{name}.png", full_page=True)
