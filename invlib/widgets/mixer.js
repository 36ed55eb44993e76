// The mixer: two sentences, what each layer hears, and what becomes of them. What `view` holds is said in mixer.py.

const CHOICES = {
  mix: { label: "mix", means: "the mixed vector" },
  first: { label: "A", means: "only sentence A" },
  second: { label: "B", means: "only sentence B" },
  off: { label: "off", means: "nothing: gate, scale and shift at zero" },
};
const PARTS = ["gate", "scale", "shift"];
const PATIENCE = 150; // milliseconds without an answer after which it says that it waits

// A kernel answers one question at a time: of those asked meanwhile only the last is kept.
function renderMixer({ model, el }) {
  let number = 0;
  let waiting = false;
  let next = null;
  const send = (wanted) => {
    waiting = true;
    model.set("wanted", { ...wanted, number: ++number });
    model.save_changes();
  };
  const mixer = new Mixer(el, model.get("view"), {
    choices: Object.keys(CHOICES),
    ask: (wanted) => (waiting ? (next = wanted) : send(wanted)),
  });
  const answered = () => {
    waiting = false;
    mixer.load(model.get("view"), next === null);
    if (next !== null) send(next);
    next = null;
  };
  return listening(mixer, model, { "change:view": answered });
}

// Without a kernel: from all the views that were written before.
function drawMixer(el, { views, ...same }) {
  const key = ({ weight, choices }) => JSON.stringify([weight, choices]);
  const known = new Map(views.map((view) => [key(view), { ...same, ...view }]));
  const mixer = new Mixer(el, known.get(key(views[0])), {
    choices: ["mix", "second", "off"], // at the start of the way the mixed vector is A's own
    ask: (wanted) => mixer.load(known.get(key(wanted))),
    fixed: true,
  });
}

class Mixer extends Pane {
  // ask(wanted): answered by a later `load`. fixed: only one change at a time is known, and the sentences stay.
  constructor(el, view, { choices, ask, fixed = false }) {
    super(el, "mixer", "Mixer: two sentences, what each layer hears, and the text that comes out");
    Object.assign(this, { choices, ask, fixed, patience: null });
    this.root.classList.add("panel");
    on(this.root, { keydown: (event) => event.stopPropagation() }); // or JupyterLab's notebook takes the arrows
    this.wanted = { first: view.first, second: view.second, weight: view.weight, choices: view.choices };
    this.plain = view.choices.map(() => "mix");
    this.root.append(this.sentences(), this.way(), this.desk(view), this.result(), this.legend());
    this.load(view);
  }

  close() {
    clearTimeout(this.patience);
    super.close();
  }

  // ── the parts ──

  sentences() {
    const line = (name, letter) => {
      const field = h("input", { type: "text", dir: "auto", spellcheck: "false", "aria-label": `Sentence ${letter}` });
      field.value = this.wanted[name];
      field.readOnly = this.fixed;
      on(field, { change: () => this.want({ [name]: field.value }) });
      return h("label", { class: `sentence ${name}` }, this.letter(letter), field);
    };
    return h("div", { class: "sentences" }, line("first", "A"), line("second", "B"));
  }

  letter(letter) {
    return h("span", { class: `letter ${letter}`, "aria-hidden": "true" }, letter);
  }

  way() {
    const step = this.fixed ? 0.1 : 0.05;
    this.slider = h("input", { type: "range", min: 0, max: 1, step, "aria-label": "Way from A to B" });
    on(this.slider, {
      input: () => {
        const weight = Number(Number(this.slider.value).toFixed(2));
        this.want(this.fixed ? { weight, choices: this.plain } : { weight });
      },
    });
    this.share = h("span", { class: "share", "aria-hidden": "true" });
    this.reset = h("button", { type: "button" }, "Reset");
    on(this.reset, { click: () => this.want({ weight: 0, choices: this.plain }) });
    const vector = h("span", { class: "quiet" }, "the vector");
    return h("div", { class: "way" }, vector, this.letter("A"), this.slider, this.letter("B"), this.share, this.reset);
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
    const name = `${this.id}-${index}`;
    const field = h("input", { type: "radio", name, value: choice, "aria-label": `hears ${means}` });
    on(field, {
      change: () => {
        const from = this.fixed ? this.plain : this.wanted.choices;
        const choices = from.map((before, place) => (place === index ? choice : before));
        this.want(this.fixed ? { weight: 0, choices } : { choices });
      },
    });
    const node = h("label", { class: `choice ${choice}`, title: `hears ${means}` }, field, h("span", {}, label));
    return { choice, field, node };
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
      h("span", {}, hint),
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
    else this.drawView(view);
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

  drawView(view) {
    const [a, b] = view.cosines;
    this.status.textContent = `${this.said(view)} · cosine to A ${a.toFixed(2)}, to B ${b.toFixed(2)}`;
    this.tokens.replaceChildren(...view.tokens.map((token) => this.token(token)));
    this.text.textContent = view.text;
    this.strips.forEach((strip, index) => this.drawLevels(strip, view.levels[index]));
  }

  drawLevels({ title, levels, bars }, told) {
    const there = [...told.entries()].filter(([, value]) => value !== null);
    const said = there.map(([part, value]) => `${PARTS[part]} ${value.toFixed(2)}`);
    levels.setAttribute("aria-label", `${title}: RMS of ${said.join(", ")}`);
    levels.title = said.join("\n");
    bars.forEach((level, part) => {
      level.classList.toggle("absent", told[part] === null);
      level.firstChild.style.height = `${Math.min(100, 80 * (told[part] ?? 0))}%`;
    });
  }

  token([piece, thousandths, inFirst, inSecond]) {
    const marks = [...(inFirst ? ["A"] : []), ...(inSecond ? ["B"] : [])];
    const source = inFirst && inSecond ? "both" : inFirst ? "first" : inSecond ? "second" : "new";
    const from = marks.length ? `also from ${marks.join(" and ")} alone` : "in neither";
    return h(
      "li",
      { class: `cell ${source}`, title: `${from}; probability ${probability(thousandths)}` },
      h("span", { class: "word", dir: "auto" }, visible(piece)),
      h("span", { class: "unseen" }, `, ${from}`),
      h("span", { class: "marks", "aria-hidden": "true" }, marks.join("") || "+"),
      bar(thousandths / 1000, { "aria-hidden": "true" }),
    );
  }

  said({ weight, choices, parts }) {
    const changed = choices.flatMap((choice, index) => {
      if (choice === "mix") return [];
      const { title } = this.strips[index];
      return [choice === "off" ? `${title} is off` : `${title} hears ${CHOICES[choice].label}`];
    });
    const between = `${Math.round(100 * weight)} % of the way to B`;
    const vector = { 0: "the vector of A", 1: "the vector of B" }[weight] ?? between;
    if (changed.length > 3) return `${vector}, ${changed.length} of ${parts.length} parts changed`;
    return [vector, ...changed].join(", ");
  }
}

