// The mixer. One module, two lives: `render` is what anywidget calls in a notebook, where the kernel writes each text;
// a page without a kernel holds this text as an inline script and calls `mount` with the texts that it can show.
// A token is text from anywhere: it reaches the page through text nodes and attributes only, never as HTML.

const CHOICES = {
  mix: { label: "mix", means: "the mixed vector" },
  first: { label: "A", means: "only sentence A" },
  second: { label: "B", means: "only sentence B" },
  off: { label: "off", means: "nothing: gate, scale and shift at zero" },
};
const PARTS = ["gate", "scale", "shift"];
const PATIENCE = 150; // milliseconds without an answer after which it says that it waits

// A kernel answers one question at a time: of those asked meanwhile only the last is kept.
function render({ model, el }) {
  let number = 0;
  let waiting = false;
  let next = null;
  const send = (wanted) => {
    waiting = true;
    model.set("wanted", { ...wanted, number: ++number });
    model.save_changes();
  };
  const view = model.get("view");
  const mixer = new Mixer(el, view, {
    choices: Object.keys(CHOICES),
    ask: (wanted) => (waiting ? (next = wanted) : send(wanted)),
  });
  const answered = () => {
    const told = model.get("view");
    waiting = false;
    mixer.load(told, next === null);
    if (next !== null) send(next);
    next = null;
  };
  model.on("change:view", answered);
  return () => {
    model.off("change:view", answered);
    mixer.close();
  };
}

// Every place of that name: JupyterLab can show one output twice. A shadow root keeps the page's style sheet out.
function mount(name, { style, told }) {
  const key = ({ weight, choices }) => JSON.stringify([weight, choices]);
  const { views, ...same } = told;
  const known = new Map(views.map((view) => [key(view), { ...same, ...view }]));
  for (const place of document.querySelectorAll(`[data-invlib-mixer="${name}"]`)) {
    if (place.shadowRoot) continue;
    const el = h("div");
    place.attachShadow({ mode: "open" }).append(h("style", {}, style), el);
    const mixer = new Mixer(el, known.get(key(views[0])), {
      choices: ["mix", "second", "off"], // at the start of the way the mixed vector is A's own
      ask: (wanted) => mixer.load(known.get(key(wanted))),
      fixed: true,
    });
  }
}

class Mixer {
  // ask(wanted): answered by a later `load`. fixed: only one change at a time is known, and the sentences stay.
  constructor(el, view, { choices, ask, fixed = false }) {
    Object.assign(this, { choices, ask, fixed, id: `invlib-${Math.random().toString(36).slice(2)}`, patience: null });
    this.root = h("div", {
      class: "invlib-mixer",
      role: "group",
      "aria-label": "Mixer: two sentences, what each layer hears, and the text that comes out",
      "data-lm-suppress-shortcuts": "true", // or JupyterLab takes the arrow keys for its cells …
    });
    this.root.addEventListener("keydown", (event) => event.stopPropagation()); // … its notebook even then
    this.wanted = { first: view.first, second: view.second, weight: view.weight, choices: view.choices };
    this.plain = view.choices.map(() => "mix");
    this.root.append(this.sentences(), this.way(), this.desk(view), this.result(), this.legend());
    el.append(this.root);
    this.unwatch = watchTheme((dark) => {
      this.root.style.colorScheme = dark ? "dark" : "light";
    });
    this.load(view);
  }

  close() {
    clearTimeout(this.patience);
    this.unwatch();
    this.root.remove();
  }

  // ── the parts ──

  sentences() {
    const line = (name, letter) => {
      const field = h("input", { type: "text", dir: "auto", spellcheck: "false", "aria-label": `Sentence ${letter}` });
      field.value = this.wanted[name];
      field.readOnly = this.fixed;
      field.addEventListener("change", () => this.want({ [name]: field.value }));
      return h("label", { class: `sentence ${name}` }, h("span", { class: "letter", "aria-hidden": "true" }, letter), field);
    };
    return h("div", { class: "sentences" }, line("first", "A"), line("second", "B"));
  }

  way() {
    this.slider = h("input", { type: "range", min: 0, max: 1, step: this.fixed ? 0.1 : 0.05, "aria-label": "Way from A to B" });
    this.slider.addEventListener("input", () => {
      const weight = Number(Number(this.slider.value).toFixed(2));
      this.want(this.fixed ? { weight, choices: this.plain } : { weight });
    });
    this.share = h("span", { class: "share", "aria-hidden": "true" });
    this.reset = h("button", { type: "button" }, "Reset");
    this.reset.addEventListener("click", () => this.want({ weight: 0, choices: this.plain }));
    const [a, b] = ["A", "B"].map((letter) => h("span", { class: `letter ${letter}`, "aria-hidden": "true" }, letter));
    return h("div", { class: "way" }, h("span", { class: "quiet" }, "the vector"), a, this.slider, b, this.share, this.reset);
  }

  // One column per layer: whom it hears, and how strong its gate, scale and shift are.
  desk({ parts }) {
    this.strips = parts.map((part, index) => {
      const title = /^\d+$/.test(part) ? `layer ${part}` : part;
      const radios = this.choices.map((choice) => this.radio(choice, index));
      const bars = PARTS.map((name) => h("span", { class: `level ${name}` }, h("span")));
      const levels = h("div", { class: "levels", role: "img" }, ...bars);
      const node = h("fieldset", {}, h("legend", {}, title), ...radios.map(({ node }) => node), levels);
      return { title, radios, levels, bars, node };
    });
    return h("div", { class: "desk" }, ...this.strips.map(({ node }) => node));
  }

  radio(choice, index) {
    const { label, means } = CHOICES[choice];
    const field = h("input", { type: "radio", name: `${this.id}-${index}`, value: choice, "aria-label": `hears ${means}` });
    field.addEventListener("change", () => {
      const from = this.fixed ? this.plain : this.wanted.choices;
      const choices = from.map((before, place) => (place === index ? choice : before));
      this.want(this.fixed ? { weight: 0, choices } : { choices });
    });
    return { choice, field, node: h("label", { class: `choice ${choice}`, title: `hears ${means}` }, field, h("span", {}, label)) };
  }

  result() {
    this.status = h("p", { class: "quiet status", role: "status", "aria-live": "polite" });
    this.tokens = h("ol", { class: "tokens", "aria-label": "What the model writes" });
    this.text = h("p", { class: "text", dir: "auto" });
    return h("div", { class: "result" }, this.status, this.tokens, this.text);
  }

  legend() {
    const swatch = (name, marks, means) => h("span", {}, h("span", { class: `swatch ${name}` }, marks), means);
    const hint = this.fixed
      ? "Recorded: one change at a time. In JupyterLab every mixture is written anew."
      : "Keys: tab to a control, arrows change it";
    return h(
      "div",
      { class: "legend" },
      swatch("first", "A", "also in the text from A alone"),
      swatch("second", "B", "also in the text from B alone"),
      swatch("new", "+", "in neither"),
      ...PARTS.map((name) => h("span", {}, h("span", { class: `key level ${name}` }), `${name} (RMS)`)),
      h("span", { class: "hint" }, hint),
    );
  }

  // ── what a person does ──

  want(change) {
    this.wanted = { ...this.wanted, ...change };
    this.drawWanted();
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.root.setAttribute("aria-busy", "true"), PATIENCE);
    this.ask(this.wanted);
  }

  // `settled`: nothing newer was asked, so the controls show what the answer is about.
  load(view, settled = true) {
    if (settled) {
      clearTimeout(this.patience);
      this.root.removeAttribute("aria-busy");
    }
    this.drawWanted();
    this.root.classList.toggle("failed", Boolean(view.error));
    if (view.error) this.status.textContent = view.error;
    else this.drawText(view);
  }

  // ── drawing ──

  drawWanted() {
    const { weight, choices } = this.wanted;
    this.slider.value = weight;
    this.slider.setAttribute("aria-valuetext", `${Math.round(100 * weight)} percent B`);
    this.share.textContent = `${Math.round(100 * weight)} % B`;
    this.strips.forEach(({ radios }, index) => {
      for (const { choice, field } of radios) field.checked = choice === choices[index];
    });
    this.reset.disabled = weight === 0 && choices.every((choice) => choice === "mix");
  }

  drawText(view) {
    const [a, b] = view.cosines;
    this.status.textContent = `${this.said(view)} · cosine to A ${a.toFixed(2)}, to B ${b.toFixed(2)}`;
    this.tokens.replaceChildren(...view.tokens.map((token) => this.token(token)));
    this.text.textContent = view.text;
    this.strips.forEach(({ title, levels, bars }, index) => {
      const told = view.levels[index];
      const said = PARTS.map((name, part) => (told[part] === null ? null : `${name} ${told[part].toFixed(2)}`));
      levels.setAttribute("aria-label", `${title}: RMS of ${said.filter(Boolean).join(", ")}`);
      levels.title = said.filter(Boolean).join("\n");
      bars.forEach((bar, part) => {
        bar.classList.toggle("absent", told[part] === null);
        bar.firstChild.style.height = `${Math.min(100, 80 * (told[part] ?? 0))}%`;
      });
    });
  }

  token([piece, thousandths, inFirst, inSecond]) {
    const marks = [...(inFirst ? ["A"] : []), ...(inSecond ? ["B"] : [])];
    const source = inFirst && inSecond ? "both" : inFirst ? "first" : inSecond ? "second" : "new";
    const from = marks.length ? `also from ${marks.join(" and ")} alone` : "in neither";
    const bar = h("span", { class: "bar", "aria-hidden": "true" }, h("span", { style: `width: ${thousandths / 10}%` }));
    const node = h("li", { class: `token ${source}`, title: `${from}; probability ${(thousandths / 1000).toFixed(3)}` });
    const mark = h("span", { class: "marks", "aria-hidden": "true" }, marks.join("") || "+");
    node.append(h("span", { class: "word", dir: "auto" }, visible(piece)), h("span", { class: "unseen" }, `, ${from}`), mark, bar);
    return node;
  }

  said({ weight, choices, parts }) {
    const changed = choices.flatMap((choice, index) => {
      if (choice === "mix") return [];
      const { title } = this.strips[index];
      return [choice === "off" ? `${title} is off` : `${title} hears ${CHOICES[choice].label}`];
    });
    const vector = weight === 0 ? "the vector of A" : weight === 1 ? "the vector of B" : `${Math.round(100 * weight)} % of the way to B`;
    if (changed.length > 3) return `${vector}, ${changed.length} of ${parts.length} parts changed`;
    return [vector, ...changed].join(", ");
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
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children); // a string becomes a text node
  return node;
}

// What would break the line, or show nothing, gets a sign.
function visible(piece) {
  return piece.replace(/\r?\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
}

export default { render };
