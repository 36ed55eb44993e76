// What player, mixer and lab share; page.py puts this text before theirs. One module, two lives: `render…` is what
// anywidget calls in a notebook; a page without a kernel holds it all as an inline script and calls `mount`.
// Text from anywhere reaches the page through text nodes and attributes only, never as HTML.

// The outermost node of a widget, in the theme of its page.
class Pane {
  constructor(el, kind, label) {
    this.id = `invlib-${Math.random().toString(36).slice(2)}`;
    this.root = h("div", {
      class: `invlib invlib-${kind}`,
      role: "group",
      "aria-label": label,
      "data-lm-suppress-shortcuts": "true", // or JupyterLab takes the arrow keys for its cells
    });
    el.append(this.root);
    this.unwatch = watchTheme((dark) => {
      this.root.style.colorScheme = dark ? "dark" : "light";
    });
  }

  close() {
    this.unwatch();
    this.root.remove();
  }
}

// What anywidget is given back: a call that ends a pane and all that it heard of its model.
function listening(pane, model, acts) {
  for (const [event, act] of Object.entries(acts)) model.on(event, act);
  return () => {
    for (const [event, act] of Object.entries(acts)) model.off(event, act);
    pane.close();
  };
}

// Every place of that name: JupyterLab can show one output twice. A shadow root keeps the page's style sheet out.
function mount(kind, name, { style, data }, draw) {
  for (const place of document.querySelectorAll(`[data-invlib-${kind}="${name}"]`)) {
    if (place.shadowRoot) continue;
    const el = h("div");
    place.attachShadow({ mode: "open" }).append(h("style", {}, style), el);
    draw(el, data);
  }
}

// A page says its theme in its own way: JupyterLab (and Voilà, nbconvert), the report, or only the system.
function watchTheme(tell) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const update = () => {
    const lab = document.body.dataset.jpThemeLight;
    const report = document.documentElement.dataset.theme;
    if (lab) tell(lab === "false");
    else if (report === "dark" || report === "light") tell(report === "dark");
    else tell(system.matches);
  };
  const pages = new MutationObserver(update);
  pages.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  pages.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  system.addEventListener("change", update);
  update();
  return () => {
    pages.disconnect();
    system.removeEventListener("change", update);
  };
}

function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children); // a string becomes a text node
  return node;
}

// A node with what it does: on(h("button"), { click: act }).
function on(node, acts) {
  for (const [event, act] of Object.entries(acts)) node.addEventListener(event, act);
  return node;
}

// A filled length, and the same for a probability in thousandths.
function bar(share, attributes = {}) {
  return h("span", { class: "bar", ...attributes }, h("span", { style: `width: ${100 * share}%` }));
}

// Blanks inside a piece stay (the style keeps them); what would break the line, or show nothing, gets a sign.
function visible(piece) {
  return piece.replace(/\r?\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
}

// Three digits travel, so 0 and 1 are not claimed.
function probability(thousandths) {
  if (thousandths <= 0) return "<0.001";
  return thousandths >= 1000 ? ">0.999" : (thousandths / 1000).toFixed(3);
}

function count(n, noun, nouns = `${noun}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? noun : nouns}`;
}

function clamp(value, last) {
  return Math.min(Math.max(value, 0), last);
}

