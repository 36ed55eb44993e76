"""What tests of pages share: the report's scripts, a headless Chromium, servers, a fresh JupyterLab, the lab's page."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "notebooks" / "_report"
SCREENS = ROOT / "build" / "screens"
PATIENCE = 90_000  # milliseconds; a slow machine under load is not an error
QUIET = ("disable-background-networking", "disable-component-update", "disable-sync", "no-first-run", "disable-gpu")
JUPYTERLAB = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
}


def program(name: str) -> ModuleType:
    """A script of notebooks/_report by its name: that folder is no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPORT)
        spec = importlib.util.spec_from_file_location(name, REPORT / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here; install one: apt-get install chromium")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", *(f"--{name}" for name in QUIET)]  # no sandbox: root has none, as in a container
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
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
            server.wait(180)


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


@contextmanager
def jupyterlab(root: Path, own: Path) -> Iterator[str]:
    """The address of a JupyterLab on the notebooks of `root`, which keeps nothing but what is in `own`."""
    for name, values in JUPYTERLAB.items():
        file = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    port = free_port()
    options = {
        "ip": "127.0.0.1",
        "port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": root,
        "IdentityProvider.token": "",
        "KernelManager.transport_encryption": "auto",
        "LabApp.extension_manager": "readonly",
    }
    flags = ["--no-browser", "--allow-root", "--expose-app-in-browser", *(f"--{k}={v}" for k, v in options.items())]
    env = own_folders(own) | {f"JUPYTERLAB_{name}_DIR": str(own / name.lower()) for name in ("WORKSPACES", "SETTINGS")}
    url = f"http://127.0.0.1:{port}"
    with serving([sys.executable, "-m", "jupyterlab", *flags], f"{url}/api", own / "log.txt", env):
        yield url


def own_folders(folder: Path) -> dict[str, str]:
    """An environment in which Jupyter knows nothing of the person who runs the tests."""
    return os.environ | {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}


def copy_without_outputs(notebook: Path, copy: Path) -> None:
    """A committed notebook as its author first saw it."""
    fresh = nbformat.read(notebook, as_version=4)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    copy.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(fresh, copy)


def screenshot(page: Page, name: str, *, full_page: bool = True) -> None:
    """The page in build/screens, for whoever wants to look: `SCREENS=1 make test`. They take minutes."""
    if "SCREENS" in os.environ:
        SCREENS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENS / f"{name}.png", full_page=full_page, timeout=120_000)


class LabPage:
    """The inversion lab as a person meets it on a page."""

    def __init__(self, page: Page):
        self.page, self.root = page, page.get_by_role("group", name="Inversion lab")
        self.text = self.root.get_by_label("Text to invert")
        self.numbers = self.root.get_by_label("Vector to invert")
        self.tokens = self.root.get_by_role("listbox", name="Tokens").get_by_role("option")
        self.recovered = self.root.locator(".recovered:not(.growing)")  # what a run has ended with
        self.player = self.root.get_by_role("group", name="Player")
        self.alert, self.note, self.doing = (
            self.root.locator(f".note.{kind}") for kind in ("error", "answer", "doing")
        )
        self.code = self.root.locator("pre")
        self.step = self.player.get_by_role("slider", name="Step")

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    def is_idle(self) -> None:
        """Waits until nothing runs and the player has shown the last step."""
        expect(self.root).to_have_attribute("aria-busy", "false", timeout=PATIENCE)
        expect(self.button("Stop")).to_be_disabled(timeout=PATIENCE)
        if self.tokens.count():
            expect(self.player.get_by_role("button", name="Play", exact=True)).to_be_visible(timeout=PATIENCE)

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
        screenshot(self.page, name)
