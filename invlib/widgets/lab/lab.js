// The inversion lab, around a player. What the traits hold is said in lab.py.

const MILLISECONDS_TO_WATCH = 2400; // of a whole run: the model is faster than the eye
const PATIENCE = 300; // milliseconds after the last key until the vector is drawn anew

function renderLab({ model, el }) {
  const lab = new Lab(el, model);
  return listening(lab, model, {
    "change:frames": () => lab.drawFrames(),
    "change:steering": () => lab.drawSteering(),
    "change:outcome": () => lab.drawOutcome(),
    "change:vector": () => lab.drawVector(),
    "change:uploaded": () => lab.takeUpload(),
    "change:notice": () => lab.drawNotice(),
    "change:progress": () => lab.drawProgress(),
    "change:answered": () => lab.hear(),
  });
}

class Lab extends Pane {
  constructor(el, model) {
    super(el, "lab", "Inversion lab");
    this.model = model;
    this.options = model.get("options");
    this.kind = "text";
    // Several pages may show one lab: each waits for the answers to what it asked itself.
    Object.assign(this, { page: Math.random().toString(36).slice(2), asked: 0, answered: 0 });
    on(this.root, { keydown: (event) => event.stopPropagation() });
    this.build();
    this.drawFrames();
    this.drawVector();
    this.drawOutcome();
    this.drawNotice();
    this.drawProgress();
    this.look(0);
  }

  close() {
    clearTimeout(this.looking);
    this.player?.close();
    super.close();
  }

  send(action, more = {}, buffers = []) {
    this.asked += 1;
    this.model.send({ do: action, page: this.page, number: this.asked, ...more }, undefined, buffers);
    this.drawBusy();
  }

  hear() {
    const { page, number } = this.model.get("answered");
    if (page !== this.page) return;
    this.answered = number;
    this.drawBusy();
  }

  // Busy from the click on, and not only from when the kernel has heard of it.
  drawBusy() {
    this.root.setAttribute("aria-busy", this.isRunning || this.answered < this.asked);
  }

  get isRunning() {
    return this.model.get("progress").state === "running";
  }

  // ── the parts ──

  build() {
    this.doing = h("p", { class: "note doing", role: "status", hidden: "" });
    this.note = h("p", { class: "note answer", role: "status", hidden: "" });
    this.alert = h("p", { class: "note error", role: "alert", hidden: "" });
    this.stage = h("div", { class: "stage" });
    this.steering = new Steering(this);
    this.back = h("section", { class: "panel back", "aria-label": "What came back", hidden: "" });
    const invitation = "Press Invert: from the vector alone, the text will come back here, step by step.";
    this.empty = h("p", { class: "empty" }, invitation);
    this.stage.append(this.empty);
    const said = [this.alert, this.note, this.doing];
    const side = h("div", { class: "side" }, this.inputPanel(), this.actions(), ...said, this.howPanel());
    const main = h("div", { class: "main" }, this.stage, this.steering.bar, this.back);
    this.root.append(h("div", { class: "columns" }, side, main));
    this.choose("text");
    this.chooseKind();
    this.chooseSearch();
  }

  inputPanel() {
    this.tabs = { text: this.tab("text", "Text"), vector: this.tab("vector", "Vector") };
    this.fields = { text: this.textField(), vector: this.vectorField() };
    this.strip = h("div", { class: "strip" });
    this.norm = h("p", { class: "quiet norm", role: "status" });
    return h(
      "section",
      { class: "panel", "aria-label": "What to invert" },
      h("div", { class: "tabs", role: "tablist", "aria-label": "Input" }, ...Object.values(this.tabs)),
      ...Object.values(this.fields),
      h("p", { class: "label" }, `Its vector, all that the inverter sees (${this.options.encoder})`),
      this.strip,
      this.norm,
      this.noisePanel(),
    );
  }

  tab(kind, label) {
    const keydown = ({ key }) => {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return;
      this.choose(kind === "text" ? "vector" : "text");
      this.tabs[this.kind].focus();
    };
    const tab = h("button", { type: "button", role: "tab", class: "tab" }, label);
    return on(tab, { click: () => this.choose(kind), keydown });
  }

  textField() {
    const placeholder = "Type a sentence";
    this.text = h("textarea", { rows: 3, "aria-label": "Text to invert", spellcheck: "false", placeholder });
    this.text.value = this.options.text;
    this.counter = h("span", { class: "quiet count" });
    const keydown = (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.act("invert");
    on(this.text, { input: () => this.changed(), keydown });
    return h("div", { role: "tabpanel", "aria-label": "Text" }, this.text, this.counter);
  }

  vectorField() {
    this.numbers = h("textarea", {
      rows: 4,
      class: "numbers",
      "aria-label": "Vector to invert",
      spellcheck: "false",
      placeholder: `Paste ${this.options.embed_dim} numbers: 0.12, -0.05, … or a JSON list`,
    });
    this.file = h("input", { type: "file", accept: ".npy,.json,.csv,.txt", "aria-label": "Vector file" });
    on(this.file, { change: () => this.upload(this.file.files[0]) });
    const drop = (event) => {
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      this.upload(event.dataTransfer.files[0]);
    };
    on(this.numbers, { input: () => this.changed(), dragover: (event) => event.preventDefault(), drop });
    const file = h("label", { class: "file" }, h("span", { class: "quiet" }, "or a file: .npy, .json, .csv"), this.file);
    return h("div", { role: "tabpanel", "aria-label": "Vector" }, this.numbers, file);
  }

  noisePanel() {
    const kinds = Object.entries(this.options.kinds);
    this.perturbation = select("Perturbation", kinds.map(([name, { label }]) => [name, label]));
    on(this.perturbation, { change: () => this.chooseKind() });
    this.strength = h("input", { type: "range", "aria-label": "Strength of the perturbation" });
    this.strengthValue = h("output", { class: "value" });
    on(this.strength, { input: () => this.strengthChanged() });
    return h(
      "div",
      { class: "noise" },
      labelled("Disturb it", this.perturbation),
      h("div", { class: "slide" }, this.strength, this.strengthValue),
    );
  }

  howPanel() {
    const { limits, defaults } = this.options;
    this.steps = number("Steps", defaults.num_steps, 1, limits.num_steps);
    this.candidates = number("Candidates", defaults.candidates, 1, limits.candidates);
    this.seed = number("Seed", defaults.seed, 0, 2 ** 31);
    this.search = h("input", { type: "checkbox", "aria-label": "Search with the encoder" });
    on(this.search, { change: () => this.chooseSearch() });
    this.budget = number("Encoder queries", defaults.max_queries, 1, limits.max_queries);
    const check = h("label", { class: "check" }, this.search, h("span", {}, "Search: ask the encoder, up to"));
    return h(
      "section",
      { class: "panel", "aria-label": "How to invert" },
      h(
        "div",
        { class: "grid" },
        this.policyField(),
        labelled("Steps", this.steps),
        labelled("Candidates", this.candidates),
        labelled("Seed", this.seed),
        h("div", { class: "wide search" }, check, this.budget, h("span", {}, "queries")),
      ),
    );
  }

  policyField() {
    const { policies, defaults } = this.options;
    this.policy = select("Policy", Object.keys(policies).map((name) => [name, name.replaceAll("_", " ")]));
    this.policy.value = defaults.policy;
    const hint = h("p", { class: "quiet hint" }, policies[defaults.policy]);
    on(this.policy, { change: () => (hint.textContent = policies[this.policy.value]) });
    return h("div", { class: "wide" }, labelled("Policy: which masks go first", this.policy), hint);
  }

  actions() {
    this.invertButton = action("Invert", "primary", () => this.act("invert"));
    this.stepButton = action("Step once", "", () => this.act("step"));
    this.stopButton = action("Stop", "", () => this.send("stop"));
    return h("div", { class: "actions" }, this.invertButton, this.stepButton, this.stopButton);
  }

  // ── what a person does ──

  choose(kind) {
    this.kind = kind;
    for (const name of Object.keys(this.tabs)) {
      this.tabs[name].setAttribute("aria-selected", name === kind);
      this.tabs[name].tabIndex = name === kind ? 0 : -1;
      this.fields[name].hidden = name !== kind;
    }
    this.changed();
  }

  chooseKind() {
    const { low, high, step, default: strength } = this.options.kinds[this.perturbation.value];
    Object.assign(this.strength, { min: low, max: high, step, value: strength, disabled: low === high });
    this.strengthChanged();
  }

  strengthChanged() {
    this.strengthValue.textContent = this.strength.disabled ? "" : Number(this.strength.value).toString();
    this.look(60);
  }

  chooseSearch() {
    this.budget.disabled = !this.search.checked;
  }

  changed() {
    const [length, limit] = [this.text.value.length, this.options.limits.characters];
    this.counter.textContent = `${length.toLocaleString("en")} of ${limit.toLocaleString("en")} characters`;
    this.counter.classList.toggle("over", length > limit);
    this.look(PATIENCE);
  }

  settings() {
    const input = this.kind === "text" ? { text: this.text.value } : { vector: this.numbers.value };
    return {
      ...input,
      perturbation: this.perturbation.value,
      strength: Number(this.strength.value),
      policy: this.policy.value,
      num_steps: typed(this.steps),
      candidates: typed(this.candidates),
      max_queries: this.search.checked ? typed(this.budget) : 0,
      seed: typed(this.seed),
    };
  }

  // Has the vector drawn as it would be inverted now.
  look(milliseconds) {
    clearTimeout(this.looking);
    this.looking = setTimeout(() => {
      const input = this.kind === "text" ? this.text.value : this.numbers.value;
      if (input.trim() && !this.isRunning) this.send("look", { settings: this.settings() });
    }, milliseconds);
  }

  act(what) {
    clearTimeout(this.looking);
    this.steering.close();
    // A view that still follows an inversion is on its way to the last step: that one is meant.
    const step = this.player?.isFollowing ? this.player.last : this.player?.step;
    this.from = what === "invert" ? 0 : (step ?? 0);
    this.send(what, { settings: this.settings(), ...(this.player ? { step } : {}) });
  }

  upload(file) {
    if (!file) return;
    file.arrayBuffer().then((bytes) => this.send("upload", { name: file.name }, [bytes]));
    this.file.value = ""; // so that the same file may be chosen again
  }

  takeUpload() {
    this.choose("vector");
    this.numbers.value = this.model.get("uploaded").numbers;
    this.changed();
  }

  useAsInput() {
    this.text.value = this.model.get("outcome").text;
    this.choose("text");
    this.text.focus();
  }

  // Where a page is not served over HTTPS or from this machine there is no clipboard: then the text is selected.
  copyCode(button) {
    const code = this.back.querySelector("pre");
    this.back.querySelector("details").open = true;
    const done = () => (button.textContent = "Copied");
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, () => {});
    else if (document.execCommand("copy")) done();
  }

  // ── drawing ──

  drawFrames() {
    const frames = this.model.get("frames");
    if (!frames.tokens) return;
    this.steering.close();
    const isNew = !this.player;
    if (isNew) {
      this.empty.remove();
      this.player = new Player(this.stage, frames, this.steering);
      this.player.show(this.isRunning ? 0 : this.player.last);
    } else this.player.load(frames);
    if (this.isRunning && (isNew || this.hasBegun)) this.follow();
    this.hasBegun = false;
  }

  // The person sees every step, from where the run began.
  follow() {
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const pace = Math.min(240, Math.max(30, MILLISECONDS_TO_WATCH / Math.max(1, typed(this.steps))));
    this.player.isGrowing = true;
    this.player.show(this.from ?? 0);
    this.player.follow(isStill ? 0 : pace);
  }

  drawProgress() {
    const { state, found } = this.model.get("progress");
    const isBusy = state === "running";
    this.drawBusy();
    this.invertButton.classList.toggle("busy", isBusy); // not disabled: a click is answered
    this.stopButton.disabled = state === "idle";
    if (isBusy && this.wasState !== "running") this.hasBegun = true;
    if (this.player) this.player.isGrowing = isBusy;
    this.wasState = state;
    const best = found && `Searching. Best so far, cosine ${found.cosine.toFixed(3)}: ${found.text}`;
    const held = "Held between two steps: Step once goes on, Run on finishes, or change a token first.";
    this.say(this.doing, { running: best || "Inverting …", held }[state] ?? "");
    this.drawSteering();
  }

  drawNotice() {
    const { kind, text } = this.model.get("notice");
    this.say(this.alert, kind === "error" ? text : "");
    this.say(this.note, kind === "note" ? text : "");
  }

  say(place, text) {
    place.hidden = !text;
    if (place.textContent !== text) place.textContent = text;
  }

  drawSteering() {
    this.player?.show(this.player.step); // what is set for the next run stands on the tokens
  }

  drawVector() {
    const { bars, top, norm, stored, cosine } = this.model.get("vector");
    if (!bars) return;
    const line = (name, sign) =>
      s("path", { class: name, d: bars.map((bar, i) => (bar * sign > 0 ? `M${i + 0.5} 100v${-bar}` : "")).join("") });
    const said = `Vector of ${bars.length} numbers between -${top} and ${top}`;
    const shape = { viewBox: `0 0 ${bars.length} 200`, preserveAspectRatio: "none", role: "img", "aria-label": said };
    const svg = s("svg", shape, line("above", 1), line("below", -1));
    this.strip.replaceChildren(svg);
    const moved = cosine < 0.99995 ? ` · cosine ${cosine.toFixed(3)} to the clean vector` : "";
    this.norm.textContent = `${stored} dimensions · norm ${norm.toFixed(3)}${moved}`;
  }

  drawOutcome() {
    const outcome = this.model.get("outcome");
    this.back.hidden = outcome.text === undefined;
    if (this.back.hidden) return;
    const copy = action("Copy as code", "", () => this.copyCode(copy));
    copy.disabled = !outcome.code;
    const use = action("Use as new input", "", () => this.useAsInput());
    this.back.replaceChildren(...cameBack(outcome, h("div", { class: "actions" }, use, copy)));
  }
}

function labelled(label, field) {
  return h("label", { class: "field" }, h("span", { class: "label" }, label), field);
}

function select(label, entries) {
  return h("select", { "aria-label": label }, ...entries.map(([value, text]) => h("option", { value }, text)));
}

function number(label, value, min, max) {
  const node = h("input", { type: "number", "aria-label": label, min, max, step: 1 });
  node.value = value;
  return node;
}

// A number; what is none travels as it was typed, and the answer says so.
function typed(field) {
  return field.value.trim() === "" || Number.isNaN(Number(field.value)) ? field.value : Number(field.value);
}

function action(label, kind, act, mark) {
  const node = h("button", { type: "button", class: `action ${kind}` }, ...(mark ? [icon(mark)] : []), label);
  return on(node, { click: act });
}
