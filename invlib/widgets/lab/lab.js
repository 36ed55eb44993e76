// The inversion lab, around a player. What the traits hold is said in lab.py.

const MILLISECONDS_TO_WATCH = 2400; // of a whole run: the model is faster than the eye
const PATIENCE = 300; // milliseconds after the last key until the vector is drawn anew
const NARROW = 900; // below it, one column

const KINDS_OF_SENTENCES = {
  everyday: "everyday",
  encyclopaedic: "facts",
  question: "questions",
  names_numbers: "names and numbers",
  long: "long",
  short: "short",
};

function renderLab({ model, el }) {
  const lab = new Lab(el, model);
  return listening(lab, model, {
    "change:frames": () => lab.drawFrames(),
    "change:steering": () => lab.drawSteering(),
    "change:outcome": () => lab.drawOutcome(),
    "change:vector": () => lab.drawVector(),
    "change:uploaded": () => lab.takeUpload(),
    "change:lanes": () => lab.compare.draw(),
    "change:notice": () => lab.drawNotice(),
    "change:progress": () => lab.drawProgress(),
    "change:answered": () => lab.hear(),
    "msg:custom": (told, buffers) => lab.take.arrive(told, buffers),
  });
}

class Lab extends Pane {
  constructor(el, model) {
    super(el, "lab", "Inversion lab");
    this.model = model;
    this.options = model.get("options");
    this.kind = "text";
    this.isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    // Several pages may show one lab: each waits for the answers to what it asked itself.
    Object.assign(this, { page: Math.random().toString(36).slice(2), asked: 0, answered: 0 });
    on(this.root, { keydown: (event) => event.stopPropagation() });
    this.build();
    this.drawFrames();
    this.drawVector();
    this.drawOutcome();
    this.drawNotice();
    this.drawProgress();
    this.compare.draw();
    const asked = readAddress();
    setTimeout(() => this.begin(asked)); // when the page has it
  }

  close() {
    clearTimeout(this.looking);
    clearInterval(this.ticking);
    this.sizes.disconnect();
    this.player?.close();
    this.compare.close();
    super.close();
  }

  // ── the parts ──

  build() {
    this.note = h("p", { class: "note answer", role: "status", hidden: "" });
    this.alert = h("p", { class: "note error", role: "alert", hidden: "" });
    this.stage = h("div", { class: "stage" });
    this.result = new Result();
    this.steering = new Steering(this);
    this.take = new Take(this);
    this.compare = new Compare(this);
    this.code = h("pre");
    this.told = h("div", { class: "about" });
    const code = h("details", {}, h("summary", {}, "The code that repeats it"), this.code);
    const use = action("Use as new input", "", () => this.useAsInput());
    const about = { class: "panel back", "aria-label": "About this result", hidden: "" };
    this.back = h("section", about, this.told, h("div", { class: "actions small" }, use), this.take.node, code);
    const side = h("div", { class: "side" }, this.inputPanel(), this.actions(), this.alert, this.note);
    const main = [this.result.node, this.stage, this.steering.bar, this.back, this.compare.node];
    this.main = h("div", { class: "main" }, ...main);
    this.root.append(h("div", { class: "columns" }, side, this.main, this.morePanel()));
    this.choose("text");
    this.chooseKind();
    this.sizes = new ResizeObserver(() => this.fold());
    this.sizes.observe(this.root);
  }

  get isNarrow() {
    return this.root.clientWidth < NARROW;
  }

  // On a narrow page the settings wait below what came back, folded, until somebody opens them.
  fold() {
    if (!this.root.clientWidth || this.isNarrow === this.wasNarrow) return;
    this.wasNarrow = this.isNarrow;
    this.more.open = !this.isNarrow;
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
    this.counter = h("span", { class: "count" });
    on(this.text, { input: () => this.changed(), keydown: (event) => this.entered(event) });
    const keys = h("span", {}, h("kbd", {}, "Enter"), " inverts, ", h("kbd", {}, "Shift+Enter"), " breaks the line");
    const below = h("p", { class: "quiet below" }, keys, this.counter);
    this.advice = h("p", { class: "note advice", role: "status", hidden: "" });
    const parts = [this.text, below, this.advice, this.sentences()];
    return h("div", { role: "tabpanel", "aria-label": "Text" }, ...parts);
  }

  // A sentence nobody has thought of, of a kind.
  sentences() {
    const kinds = Object.keys(this.options.sentences);
    if (!kinds.length) return h("span");
    this.domain = select("Kind of sentence", kinds.map((kind) => [kind, KINDS_OF_SENTENCES[kind] ?? words(kind)]));
    const roll = action("Another sentence", "", () => this.roll(), "dice");
    return h("div", { class: "dice" }, roll, this.domain);
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
    const dragover = (event) => event.preventDefault();
    const keydown = (event) => this.entered(event);
    on(this.numbers, { input: () => this.changed(), keydown, dragover, drop });
    const file = h("label", { class: "file" }, h("span", { class: "quiet" }, "or a file: .npy, .json, .csv"), this.file);
    return h("div", { role: "tabpanel", "aria-label": "Vector" }, this.numbers, file);
  }

  actions() {
    this.invertButton = action("Invert", "primary", () => this.act("invert"));
    this.searchButton = action("Search closer", "second", () => this.act("search"));
    this.searchButton.title = "Ask the encoder what the draft misses, and mend it";
    this.stepButton = action("Step once", "", () => this.act("step"));
    this.stopButton = action("Stop", "", () => this.send("stop"));
    const buttons = [this.invertButton, this.searchButton, this.stepButton, this.stopButton];
    return h("div", { class: "actions main-actions" }, ...buttons);
  }

  morePanel() {
    const { limits, defaults } = this.options;
    this.steps = number("Steps", defaults.num_steps, 1, limits.num_steps);
    this.candidates = number("Candidates", defaults.candidates, 1, limits.candidates);
    this.seed = number("Seed", defaults.seed, 0, limits.seed);
    this.guidance = number("Guidance", defaults.guidance_scale, 0, limits.guidance_scale, 0.5);
    this.budget = number("Encoder queries", defaults.max_queries, 1, limits.max_queries);
    const [watch, watching] = checkbox("Watch the cosine: one query a step");
    this.watch = watch;
    const numbers = [
      labelled("Steps", this.steps),
      labelled("Candidates", this.candidates),
      labelled("Seed", this.seed),
      labelled("Guidance", this.guidance),
      labelled("Search budget", this.budget),
    ];
    const grid = h("div", { class: "grid" }, this.policyField(), ...numbers, h("div", { class: "wide" }, watching));
    this.more = h(
      "details",
      { class: "panel more", "aria-label": "How to invert", role: "region" },
      h("summary", {}, "More: policy, steps, seed, noise"),
      grid,
      this.noisePanel(),
    );
    on(this.more, { input: () => this.look(PATIENCE) });
    return this.more;
  }

  policyField() {
    const { policies, defaults } = this.options;
    this.policy = select("Policy", Object.keys(policies).map((name) => [name, words(name)]));
    this.policy.value = defaults.policy;
    this.hint = h("p", { class: "quiet hint" }, policies[defaults.policy]);
    on(this.policy, { change: () => this.choosePolicy() });
    return h("div", { class: "wide" }, labelled("Policy: which masks go first", this.policy), this.hint);
  }

  noisePanel() {
    const kinds = Object.entries(this.options.kinds);
    this.perturbation = select("Perturbation", kinds.map(([name, { label }]) => [name, label]));
    on(this.perturbation, { change: () => this.chooseKind() });
    this.strength = h("input", { type: "range", "aria-label": "Strength of the perturbation" });
    this.strengthValue = h("output", { class: "value" });
    on(this.strength, { input: () => this.strengthChanged() });
    const slide = h("div", { class: "slide" }, this.strength, this.strengthValue);
    return h("div", { class: "noise" }, labelled("Disturb the vector", this.perturbation), slide);
  }

  // ── what the page asks ──

  // Says why, and sends nothing, where the connection would end on what is sent.
  send(action, more = {}, buffers = []) {
    const trouble = this.trouble(more);
    if (trouble) return this.say(this.alert, trouble);
    this.asked += 1;
    this.model.send({ do: action, page: this.page, number: this.asked, ...more }, undefined, buffers);
    return this.drawBusy();
  }

  trouble({ settings = {}, token = "", name = "" }) {
    const { limits } = this.options;
    const { text = "", vector = "" } = settings;
    const long = (what, length, most) =>
      `${what} has ${grouped(length)} characters; the lab takes ${grouped(most)} at most: shorten it`;
    if (text.length > limits.characters) return long("The text", text.length, limits.characters);
    if (vector.length > limits.bytes) return long("The vector", vector.length, limits.bytes);
    if (isWhole(text + vector + token + name)) return "";
    return "The text holds half a character (a lone surrogate), which cannot be sent: delete it, or type it anew";
  }

  hear() {
    const { page, number } = this.model.get("answered");
    if (page !== this.page) return;
    this.answered = number;
    this.drawBusy();
  }

  // Busy from the click on, and not only from when the kernel has heard of it.
  drawBusy() {
    this.root.setAttribute("aria-busy", this.isRunning || this.answered < this.asked || Boolean(this.next));
  }

  get isRunning() {
    return this.model.get("progress").state === "running";
  }

  // What the address asks for; else, where nothing was inverted yet, the sentence that stands there.
  begin(asked) {
    if (asked) this.fill(asked);
    const isFresh = !this.model.get("frames").tokens && this.model.get("progress").state === "idle";
    if (isFresh && this.input.trim()) this.act(asked && !asked.search ? "invert" : "search", {}, true);
    else this.look(0);
  }

  // The fields as an address has them. What there is not to choose stays as it was, and is named.
  fill(asked) {
    const plain = { num_steps: this.steps, candidates: this.candidates, seed: this.seed, guidance_scale: this.guidance };
    Object.assign(plain, { max_queries: this.budget, text: this.text, vector: this.numbers, strength: this.strength });
    const unknown = Object.entries({ policy: this.policy, perturbation: this.perturbation }).filter(([name, field]) => {
      const isKnown = [...field.options].some(({ value }) => value === asked[name]);
      if (isKnown) field.value = asked[name];
      return name in asked && !isKnown;
    });
    this.choosePolicy();
    this.chooseKind();
    for (const [name, field] of Object.entries(plain)) if (name in asked) field.value = asked[name];
    this.watch.checked = asked.watch === "true";
    this.choose("vector" in asked ? "vector" : "text");
    this.strengthChanged();
    const instead = ([name, field]) => `“${asked[name]}” is no ${name}; this is ${words(field.value)}`;
    if (unknown.length) this.say(this.note, `The address asks for what there is not: ${unknown.map(instead).join("; ")}`);
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

  choosePolicy() {
    this.hint.textContent = this.options.policies[this.policy.value];
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

  entered(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.act("invert");
  }

  roll() {
    const all = this.options.sentences[this.domain.value].filter((text) => text !== this.text.value);
    this.text.value = all[Math.floor(Math.random() * all.length)];
    this.changed();
    this.act("search");
  }

  get input() {
    return this.kind === "text" ? this.text.value : this.numbers.value;
  }

  // What was said is about what stood there before.
  changed() {
    this.drawCounter();
    this.say(this.alert, "");
    this.say(this.note, "");
    this.drawStale();
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
      max_queries: typed(this.budget),
      seed: typed(this.seed),
      guidance_scale: typed(this.guidance),
      watch: this.watch.checked,
    };
  }

  // Has the vector drawn as it would be inverted now.
  look(milliseconds) {
    clearTimeout(this.looking);
    this.looking = setTimeout(() => {
      if (this.input.trim() && !this.isRunning) this.send("look", { settings: this.settings() });
    }, milliseconds);
  }

  // Who asks for something else while a run works, has it stopped first.
  act(what, more = {}, isByItself = false) {
    clearTimeout(this.looking);
    this.steering.close();
    const settings = this.settings();
    const wish = JSON.stringify([what, more, settings]);
    if (this.isRunning && what !== "step" && wish !== this.wish) {
      this.next = () => this.act(what, more);
      return this.send("stop");
    }
    this.wish = wish;
    // A view that still follows an inversion is on its way to the last step: that one is meant.
    const step = this.player?.isFollowing ? this.player.last : this.player?.step;
    this.from = { "run on": step, step, search: this.player?.last }[what] ?? 0;
    if (what !== "compare") Object.assign(this, { isOn: this.input, sent: this.kind === "text" ? this.input : null });
    this.send(what, { settings, ...more, ...(this.player ? { step } : {}) });
    if (what === "invert" || what === "search") {
      this.link = addressOf(settings, this.options.defaults, what === "search");
      if (!isByItself) writeAddress(this.link, settings);
    }
    if (!isByItself && what !== "step" && what !== "compare") this.goToResult();
    return undefined;
  }

  // On a narrow page the result begins below the buttons, where nobody sees it.
  goToResult() {
    if (!this.isNarrow) return;
    this.result.node.focus({ preventScroll: true });
    this.result.node.scrollIntoView({ block: "start", behavior: this.isStill ? "auto" : "smooth" });
  }

  upload(file) {
    if (!file) return;
    const most = this.options.limits.bytes;
    this.changed();
    clearTimeout(this.looking); // what is told of the file is not to be taken back
    if (file.size > most) {
      const told = `The file ${file.name} has ${grouped(file.size)} bytes; one vector needs less than ${grouped(most)}`;
      this.say(this.alert, told);
    } else file.arrayBuffer().then((bytes) => this.send("upload", { name: file.name }, [bytes]));
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

  // ── drawing ──

  drawFrames() {
    const frames = this.model.get("frames");
    if (!frames.tokens) return;
    this.steering.close();
    const isNew = !this.player;
    if (isNew) {
      this.player = new Player(this.stage, frames, this.steering);
      this.player.show(this.isRunning ? 0 : this.player.last);
    } else this.player.load(frames);
    if (this.isRunning && (isNew || this.hasBegun)) this.follow();
    this.hasBegun = false;
  }

  // The person sees every step, from where the run began.
  follow() {
    const pace = Math.min(240, Math.max(30, MILLISECONDS_TO_WATCH / Math.max(1, typed(this.steps))));
    this.player.timeline.isGrowing = true;
    this.player.show(Math.min(this.from ?? 0, this.player.last));
    this.player.timeline.follow(this.isStill ? 0 : pace);
  }

  drawProgress() {
    const { state, compares } = this.model.get("progress");
    const isBusy = state === "running";
    this.drawBusy();
    this.invertButton.classList.toggle("busy", isBusy); // not disabled: a click is answered
    this.searchButton.classList.toggle("busy", isBusy);
    this.stopButton.disabled = state === "idle";
    if (isBusy && this.wasState !== "running") {
      this.hasBegun = !compares;
      this.began = performance.now();
      this.ticking = setInterval(() => this.drawDoing(), 200);
    }
    if (!isBusy) clearInterval(this.ticking);
    if (this.player) this.player.timeline.isGrowing = isBusy && !compares;
    this.wasState = state;
    this.drawDoing();
    this.drawSteering();
    this.drawResult();
    if (state === "idle" && this.next) this.goOn();
  }

  goOn() {
    setTimeout(() => {
      const next = this.next; // not in the midst of what is being told
      this.next = undefined;
      next?.();
    });
  }

  // What is being done, and how far it is.
  drawDoing() {
    const { state, compares, ...run } = this.model.get("progress");
    const held = "Held between two steps: Step once goes on, Run on finishes, or change a token first.";
    if (state !== "running") return this.result.drawDoing(state === "held" ? held : "");
    const seconds = `${((performance.now() - this.began) / 1000).toFixed(1)} s`;
    const cosine = (name) => (run.cosine == null ? [] : [`${name} ${run.cosine.toFixed(3)}`]);
    const number = this.model.get("lanes").length + 1;
    if (compares) return this.result.drawDoing(["Comparing", `run ${number}`, seconds].join(" · "));
    if (run.budget && run.step === run.num_steps) {
      const queries = `${grouped(run.queries)} of ${grouped(run.budget)} queries`;
      const told = ["Searching", queries, ...cosine("best cosine"), seconds].join(" · ");
      return this.result.drawDoing(told, run.queries / run.budget);
    }
    const { step = 0, num_steps: last = 1, steps_per_second: rate } = run;
    const pace = rate ? [`${rate} steps a second`] : [];
    const told = ["Inverting", `step ${step} of ${last}`, ...pace, ...cosine("cosine"), seconds].join(" · ");
    return this.result.drawDoing(told, step / last);
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

  drawCounter() {
    const { pieces, advice } = this.model.get("vector");
    const [length, most] = [this.text.value.length, this.options.limits.characters];
    const isLong = length > most;
    const told = pieces ? `${pieces} of ${this.options.limits.pieces} pieces` : "";
    this.counter.textContent = isLong ? `${grouped(length)} of ${grouped(most)} characters` : told;
    this.counter.classList.toggle("over", isLong || pieces > this.options.limits.pieces);
    this.say(this.advice, this.kind === "text" && this.text.value.trim() ? (advice ?? "") : "");
  }

  drawVector() {
    const { bars, top, norm, stored, cosine } = this.model.get("vector");
    if (!bars) return;
    const line = (name, sign) =>
      s("path", { class: name, d: bars.map((bar, i) => (bar * sign > 0 ? `M${i + 0.5} 100v${-bar}` : "")).join("") });
    const said = `Vector of ${bars.length} numbers between -${top} and ${top}`;
    const shape = { viewBox: `0 0 ${bars.length} 200`, preserveAspectRatio: "none", role: "img", "aria-label": said };
    this.strip.replaceChildren(s("svg", shape, line("above", 1), line("below", -1)));
    const moved = cosine < 0.99995 ? ` · cosine ${cosine.toFixed(3)} to the clean vector` : "";
    this.norm.textContent = `${stored} dimensions · norm ${norm.toFixed(3)}${moved}`;
    this.drawCounter();
  }

  drawOutcome() {
    const outcome = this.model.get("outcome");
    const has = outcome.text !== undefined;
    this.back.hidden = !has;
    this.take.code.disabled = !outcome.code;
    if (has) this.told.replaceChildren(...detailsOf(outcome, this.code));
    this.compare.draw();
    this.drawResult();
  }

  // One result, of the sentence that is told above it; while it is on its way, what stands there by then.
  drawResult() {
    const outcome = this.model.get("outcome");
    const [player, isDone] = [this.player, outcome.text !== undefined && !this.player?.isFollowing];
    this.compare.node.hidden = !player;
    const invitation = "Press Invert: from the vector alone, the text comes back here.";
    if (!player) return this.result.draw("", this.isRunning ? "" : invitation);
    const original = outcome.text !== undefined ? outcome.original : this.isOn === undefined ? "" : this.sent;
    const text = isDone ? outcome.text || "nothing came back" : player.frames.spoken(player.step);
    this.result.draw(original, text, isDone ? outcome : undefined);
    this.back.classList.toggle("waiting", !isDone);
    return this.drawStale();
  }

  // What is shown is of another sentence than the one in the field.
  drawStale() {
    const { text, original } = this.model.get("outcome");
    const shown = original ?? this.isOn;
    const isOther = this.input.trim() && shown !== undefined && shown !== this.input;
    this.main.classList.toggle("stale", Boolean(text !== undefined && !this.isRunning && isOther));
  }
}

