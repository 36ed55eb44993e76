"""The demo's door: which addresses there are, who may ask for them, and what is said to whoever cannot come in."""

import ipaddress
import os
import socket
from html import escape
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jupyter_server.base.handlers import FileFindHandler
from jupyter_server.services.kernels.handlers import KernelHandler
from jupyterlab_server.themes_handler import ThemesHandler
from tornado.httputil import HTTPServerRequest, split_host_and_port
from tornado.web import HTTPError
from traitlets import List, Unicode
from voila.app import Voila
from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler
from voila.static_file_handler import MultiStaticFileHandler, TemplateStaticFileHandler
from voila.tornado.handler import TornadoVoilaHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

TEMPLATE = Path(__file__).with_name("template")
# What the page asks for. Voilà has more: files beside the notebook, a log-in, what a visitor's address was.
NEEDED = (KernelHandler, VoilaShutdownKernelHandler, MultiStaticFileHandler, ThemesHandler, FileFindHandler)
RETRY = 15  # seconds


class Door:
    """In front of every address: a page that calls this server by a foreign name is refused (DNS rebinding)."""

    def prepare(self):
        if "\0" in unquote(self.request.path):
            raise HTTPError(400)  # no file has such a name, and a file system stumbles over it
        if not is_ours(self.request.host, self.settings["names"]):
            raise HTTPError(403, "not served under the name %s", self.request.host)
        return super().prepare()


class Page(Door, TornadoVoilaHandler):
    """The lab. Each page has a kernel, so that nobody gets one without having asked for it here."""

    async def get(self, path: str = "") -> None:
        if path:
            raise HTTPError(404)
        if is_sent_from_elsewhere(self.request):
            self._say("Another page sent you here.", "Open the inversion lab")
            return
        self.xsrf_token  # noqa: B018  sets the cookie without which the page could not end its kernel
        await super().get()

    def write_error(self, status_code: int, **kwargs) -> None:
        if status_code != 503:
            super().write_error(status_code, **kwargs)
            return
        self.set_header("Retry-After", RETRY)
        self._say("Every seat in the lab is taken.", "Try again", f"This page does so by itself in {RETRY} seconds.")

    def _say(self, what: str, action: str, then: str = "") -> None:
        """A page without a kernel: one sentence, and a link to the very address that was asked for."""
        refresh = f'<meta http-equiv="refresh" content="{RETRY}">' if then else ""
        text = (TEMPLATE / "door.html").read_text(encoding="utf-8")
        query = f"?{self.request.query}" if self.request.query else ""
        filled = {"refresh": refresh, "what": what, "then": then, "action": action, "address": escape(f"/{query}")}
        for name, value in filled.items():
            text = text.replace(f"{{{{ {name} }}}}", value)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(text)


class Templates(Door, TemplateStaticFileHandler):
    """The files of the one template that there is: Voilà stumbles over any other address."""

    def parse_url_path(self, path: str) -> str:
        if not os.path.normpath(path).startswith(os.path.join("lab", "static", "")):
            raise HTTPError(404)
        return super().parse_url_path(path)


class Channels(Door, VoilaKernelWebsocketHandler):
    """The connection of a page with its kernel. Jupyter's own count of them is wrong where one is closed half open."""

    has_left = False

    async def open(self, kernel_id: str) -> None:
        if not self.has_left:
            self.kernel_manager.joined(kernel_id, self)
            await super().open(kernel_id)

    def on_message(self, message: str | bytes) -> None:
        try:
            super().on_message(message)
        except Exception:  # a parser's own, of whatever kind: it was no message
            self.close(1007, "not a Jupyter message")

    def on_close(self) -> None:
        self.has_left = True
        self.kernel_manager.left(self.path_kwargs["kernel_id"], self)
        super().on_close()


class Demo(Voila):
    """Voilà with this door, and a template of our own before its own."""

    names = List(Unicode(), config=True)  # besides localhost and addresses in numbers

    def setup_template_dirs(self) -> None:
        super().setup_template_dirs()
        self.template_paths.insert(0, str(TEMPLATE))

    def init_settings(self) -> dict:
        return super().init_settings() | {"names": known_names(self.ip, self.names)}

    def init_handlers(self) -> list:
        ours = {handler: type(handler.__name__, (Door, handler), {}) for handler in NEEDED}
        ours |= {TemplateStaticFileHandler: Templates, VoilaKernelWebsocketHandler: Channels, TornadoVoilaHandler: Page}
        return [(at, ours[handler], *more) for at, handler, *more in super().init_handlers() if handler in ours]


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def known_names(host: str, others: list[str]) -> set[str]:
    """The names under which a server that listens on `host` is known; with "*", any address in numbers is one."""
    if is_loopback(host):
        return {"localhost", host.lower(), *others}
    return {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower(), "*", *others}


def is_ours(host: str, names: set[str]) -> bool:
    """Is a Host header one of ours? An address in numbers cannot be rebound, for nobody looks it up."""
    name = split_host_and_port(host.lower())[0].strip("[]").removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return name in names or "*" in names or address.is_loopback


def is_sent_from_elsewhere(request: HTTPServerRequest) -> bool:
    """Did a page of another origin make the browser ask, by a link, a picture, a frame or a script?"""
    site, referer = request.headers.get("Sec-Fetch-Site"), request.headers.get("Referer")
    if site is not None:
        return site not in ("same-origin", "none")
    return referer is not None and urlsplit(referer).netloc != request.host
