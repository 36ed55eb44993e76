"""A widget of this process on a page of its own: its module, its style, and its traits, without any Jupyter."""

from collections.abc import Callable

from playwright.sync_api import Page

# What anywidget does: import the module, call render with a model. The page asks every few milliseconds what is new.
LIVE = """
async ([script, style, traits]) => {
  const sheet = document.createElement("style");
  sheet.textContent = style;
  const el = document.createElement("div");
  document.body.append(sheet, el);
  const heard = {};
  const model = {
    get: (name) => traits[name],
    on(event, act) { heard[event] = act; },
    off(event) { delete heard[event]; },
    send(content, _, buffers) {
      const bytes = buffers.map((buffer) => [...new Uint8Array(buffer)]);
      ask(JSON.stringify({ content, bytes }));
    },
  };
  const module = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  window.leave = module.default.render({ model, el });
  window.listeners = () => Object.keys(heard).length;
  const hear = async () => {
    const { changed, files } = JSON.parse(await news());
    for (const [name, value] of changed) {
      traits[name] = value;
      heard[`change:${name}`]?.();
    }
    for (const [told, buffers] of files) {
      heard["msg:custom"]?.(told, buffers.map((bytes) => new DataView(new Uint8Array(bytes).buffer)));
    }
    setTimeout(hear, 15);
  };
  hear();
}
"""


def attach(page: Page, widget, *, answers: Callable[[dict], bool] = lambda content: True) -> None:
    """Show a widget on a page and let both talk. answers: whether the kernel hears a message."""
    import json

    names = [name for name in widget.traits(sync=True) if not name.startswith("_") and name not in ("comm", "keys")]
    names = [name for name in names if isinstance(getattr(widget, name), dict | list)]
    changed, files = [], []
    widget.observe(lambda change: changed.append([change["name"], change["new"]]), names)
    widget.send = lambda told, buffers=(): files.append([told, [list(one) for one in buffers]])

    def ask(message: str) -> None:
        told = json.loads(message)
        if answers(told["content"]):
            widget._on_message(widget, told["content"], [memoryview(bytes(one)) for one in told["bytes"]])

    def news() -> str:
        told, new = changed[:], files[:]
        del changed[: len(told)], files[: len(new)]
        return json.dumps({"changed": told, "files": new})

    page.expose_function("ask", ask)
    page.expose_function("news", news)
    page.evaluate(LIVE, [widget._esm, widget._css, {name: getattr(widget, name) for name in names}])
