// The player: tokens step by step. What `frames` holds is said in player.py.

const MASKED = -1;
const UNKNOWN = -1;
const MILLISECONDS_PER_STEP = 700; // at speed 1
const SPEEDS = [0.5, 1, 2, 4];
const KEYS = "space, ← → Home End; ↑ ↓ choose a token";

// Every mark is a colour and a shape, in the tile's corner and in the legend.
const MARKS = {
  uncovered: "uncovered in this step",
  remasked: "masked again in this step",
  rewritten: "replaced in this step",
  pinned: "pinned: given, not uncovered",
};

const ICONS = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  back: "M12 3v10L5 8zM3 3h1.7v10H3z",
  forward: "M4 3v10l7-5zM11.3 3H13v10h-1.7z",
  uncovered: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11z",
  remasked: "M6.5 1.5 1.5 6l5 4.5V7.2H10a2.4 2.4 0 0 1 0 4.8H5v2.2h5A4.6 4.6 0 0 0 10 5H6.5z",
  rewritten: "M5.2 1 1 4.7l4.2 3.6V5.8H13V3.6H5.2zM10.8 7.7 15 11.3 10.8 15v-2.6H3v-2.2h7.8z",
  pinned: "M5 1h6v1.6l-1 .8v3.4L12.4 9v1.6H9V15H7v-4.4H3.6V9L6 6.8V3.4l-1-.8z",
  written: "M6.2 12.6 1.9 8.3l1.6-1.6 2.7 2.7 6.3-6.3 1.6 1.6z",
};

function renderPlayer({ model, el }) {
  const player = new Player(el, model.get("frames"));
  return listening(player, model, { "change:frames": () => player.load(model.get("frames")) });
}

function drawPlayer(el, frames) {
  new Player(el, frames);
}

class Player extends Pane {
  // steering: what the lab lets a person do with a token; nothing where there is no kernel.
  constructor(el, frames, steering = null) {
    super(el, "player", "Player");
    Object.assign(this, { steering, speed: 1, timer: null, isGrowing: false, isFollowing: false });
    this.root.classList.add("panel");
    on(this.root, { keydown: (event) => this.key(event) });
    this.load(frames);
  }

  close() {
    this.pause();
    super.close();
  }

  // New frames keep the step; a view of the last step follows an inversion that is still growing.
  load(frames) {
    const atEnd = this.step === this.last;
    this.frames = frames;
    this.last = frames.tokens.length - 1;
    this.length = frames.tokens[0].length;
    this.pinned = new Map((frames.pinned ?? []).map((position, i) => [position, frames.pinned_since?.[i] ?? 0]));
    this.position = Math.min(this.position ?? 0, this.length - 1);
    this.root.setAttribute("aria-label", `Player: ${this.length} tokens, ${count(this.last, "step")}`);
    this.root.replaceChildren(
      this.controls(),
      h("div", { class: "body" }, this.sentence(), this.details()),
      this.legend(),
    );
    this.drawPlaying();
    this.show(this.step === undefined ? 0 : atEnd && !this.timer ? this.last : this.step);
  }

  // ── the parts ──

  controls() {
    this.playButton = button("Play", "play", () => (this.timer ? this.pause() : this.play()));
    this.backButton = button("Previous step", "back", () => this.go(this.step - 1));
    this.forwardButton = button("Next step", "forward", () => this.go(this.step + 1));
    this.slider = h("input", { type: "range", min: 0, max: this.last, step: 1, "aria-label": "Step" });
    on(this.slider, { input: () => this.go(Number(this.slider.value)) });
    this.counter = h("span", { class: "counter", "aria-hidden": "true" });
    const buttons = [this.backButton, this.playButton, this.forwardButton];
    return h("div", { class: "controls" }, ...buttons, this.slider, this.counter, this.speeds());
  }

  speeds() {
    const options = SPEEDS.map((times) => h("option", { value: times }, `${times}×`));
    const speed = h("select", { "aria-label": "Speed" }, ...options);
    speed.value = this.speed;
    const change = () => {
      this.speed = Number(speed.value);
      if (this.timer) this.play();
    };
    return on(speed, { change });
  }

  sentence() {
    return h("div", { class: "sentence" }, this.tokens(), this.strips(), this.text());
  }

  tokens() {
    this.cells = this.frames.tokens[0].map((_, position) => this.cell(position));
    this.status = h("p", { class: "quiet", role: "status" });
    const list = h("div", { class: "tokens", role: "listbox", "aria-label": "Tokens" }, ...this.cells);
    return h("div", {}, this.status, list);
  }

  cell(position) {
    // All that it will show, one below the other, unseen: as wide as the widest, so no token moves while it plays.
    const shown = new Set(this.frames.tokens.map((step) => this.word(step[position])));
    const room = h("span", { class: "room", "aria-hidden": "true" }, [...shown].join("\n"));
    const word = h("span", { class: "word", dir: "auto" });
    const marks = h("span", { class: "marks" });
    const cell = h("div", { class: "cell", role: "option", tabindex: -1 }, room, word, bar(0), marks);
    const inspect = () => this.inspect(position);
    return on(cell, { pointerenter: inspect, focus: inspect, click: () => this.steering?.open(this, position) });
  }

  // One strip per step, steps downwards, positions to the right: the darker, the more confident; empty is masked.
  strips() {
    const rows = this.last + 1;
    const svg = s("svg", {
      viewBox: `0 0 ${this.length} ${rows}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": "Confidence: one strip per step from top to bottom, one place per token",
      style: `height: ${clamp(Math.max(rows * 9, 60), 200)}px; max-width: ${this.length * 44}px`,
    });
    for (let position = 0; position < this.length; position++) svg.append(...this.column(position, rows));
    const lines = Array.from({ length: this.last }, (_, step) => `M0 ${step + 1}H${this.length}`);
    this.cursor = s("rect", { class: "cursor", x: 0, width: this.length, height: 1 });
    svg.append(s("path", { class: "lines", d: lines.join("") }), this.cursor);
    const scrub = (event) => {
      if (!(event.buttons & 1)) return;
      const box = svg.getBoundingClientRect();
      this.inspect(clamp(Math.floor(((event.clientX - box.left) / box.width) * this.length), this.length - 1));
      this.go(Math.floor(((event.clientY - box.top) / box.height) * rows));
    };
    on(svg, { pointerdown: scrub, pointermove: scrub });
    const caption = `Confidence, one strip per step: 0 above, ${this.last} below; click to go there`;
    return h("div", { class: "strips" }, svg, h("p", { class: "quiet" }, caption));
  }

  // A position's strips: one for as many steps as show the same.
  column(position, rows) {
    const strips = [];
    for (let from = 0, to; from < rows; from = to) {
      for (to = from + 1; to < rows && this.confidence(to, position) === this.confidence(from, position); ) to++;
      if (this.frames.tokens[from][position] === MASKED) continue;
      const p = this.confidence(from, position);
      const rect = s("rect", { x: position + 0.04, y: from, width: 0.92, height: to - from });
      if (p === UNKNOWN) rect.setAttribute("class", "unknown");
      else rect.style.fillOpacity = 0.25 + (0.75 * p) / 1000;
      strips.push(rect);
    }
    return strips;
  }

  text() {
    return h("p", { class: "text" }, h("span", { class: "quiet" }, "After the last step: "), this.frames.text);
  }

  details() {
    this.heading = h("p", { class: "heading" });
    this.told = h("p");
    this.asked = h("p", { class: "quiet" });
    this.list = h("ol");
    this.most = Math.max(...this.frames.top.flat().map((ranked) => ranked.length / 2), 0);
    const box = h("div", { class: "details", role: "region", "aria-label": "Alternatives", id: this.id });
    box.append(this.heading, this.told, this.asked, this.list);
    return box;
  }

  // Only the marks that this inversion has.
  legend() {
    const seen = new Set();
    for (let step = 0; step <= this.last; step++) {
      for (let position = 0; position < this.length; position++) {
        for (const mark of this.marks(step, position)) seen.add(mark);
      }
    }
    for (const mark of this.steering ? ["uncovered", "remasked", "pinned"] : []) seen.add(mark);
    const entries = Object.entries(MARKS).filter(([mark]) => seen.has(mark));
    return h(
      "div",
      { class: "legend" },
      h("span", {}, h("span", { class: "swatch masked" }), "masked"),
      ...entries.map(([mark, meaning]) => h("span", {}, h("span", { class: `swatch ${mark}` }, icon(mark)), meaning)),
      h("span", {}, h("span", { class: "swatch bar" }, h("span")), "probability when written"),
      h("span", { class: "keys" }, `Keys: ${KEYS}${this.steering ? "; P pins, M masks" : ""}`),
    );
  }

  // ── what the frames say ──

  word(piece) {
    return piece === MASKED ? "[MASK]" : visible(this.frames.pieces[piece]);
  }

  confidence(step, position) {
    return this.frames.confidence[step][position];
  }

  marks(step, position) {
    const now = this.frames.tokens[step][position];
    const before = step ? this.frames.tokens[step - 1][position] : now;
    const marks = [];
    if (before === MASKED && now !== MASKED) marks.push("uncovered");
    if (before !== MASKED && now === MASKED) marks.push("remasked");
    if (before !== MASKED && now !== MASKED && before !== now) marks.push("rewritten");
    if (this.pinned.get(position) <= step) marks.push("pinned");
    return marks;
  }

  // The step in which the token that is shown now was written; 0: it was there from the start.
  since(step, position) {
    const now = this.frames.tokens[step][position];
    while (step > 0 && this.frames.tokens[step - 1][position] === now) step--;
    return step;
  }

  // The latest step up to this one in which the model was asked about the position; -1: never.
  lastAsked(step, position) {
    while (step >= 0 && !this.frames.top[step][position].length) step--;
    return step;
  }

  state(step, position) {
    if (this.frames.tokens[step][position] === MASKED) return "masked";
    const since = this.since(step, position);
    const p = this.confidence(step, position);
    const pinned = this.pinned.get(position);
    if (pinned > 0 && pinned <= step) return `pinned in step ${pinned}`;
    const when = since ? `written in step ${since}` : "given from the start";
    return p === UNKNOWN ? when : `${when} with probability ${probability(p)}`;
  }

  // ── what a person does ──

  play() {
    clearInterval(this.timer);
    this.isFollowing = false;
    if (this.step === this.last) this.show(0);
    this.timer = setInterval(() => {
      this.show(this.step + 1);
      if (this.step === this.last) this.pause();
    }, MILLISECONDS_PER_STEP / this.speed);
    this.drawPlaying();
  }

  // Towards the last step, no faster than a person can follow, for as long as new frames may come.
  follow(milliseconds) {
    clearInterval(this.timer);
    this.isFollowing = true;
    this.timer = setInterval(() => {
      if (this.step < this.last) this.show(this.step + 1);
      else if (!this.isGrowing) this.pause();
    }, milliseconds);
    this.drawPlaying();
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.isFollowing = false;
    this.drawPlaying();
  }

  go(step) {
    this.pause();
    this.show(step);
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches("select, [type=text]")) return;
    const native = event.target.matches("input") ? [] : ["ArrowUp", "ArrowDown"];
    const moves = { ArrowLeft: this.step - 1, ArrowRight: this.step + 1, Home: 0, End: this.last };
    if (event.key in moves) this.go(moves[event.key]);
    else if (native.includes(event.key)) this.choose(this.position + (event.key === "ArrowDown" ? 1 : -1));
    else if (this.isSteered(event)) return event.preventDefault();
    else if (event.key === " " && !event.target.matches("button")) this.timer ? this.pause() : this.play();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  isSteered({ target, key }) {
    return target.matches(".cell") && this.steering?.key(this, key, this.position);
  }

  choose(position) {
    this.inspect(clamp(position, this.length - 1));
    this.cells[this.position].focus();
  }

  // ── drawing ──

  drawPlaying() {
    const label = this.timer ? "Pause" : "Play";
    this.playButton.setAttribute("aria-label", label);
    this.playButton.title = label;
    this.playButton.replaceChildren(icon(this.timer ? "pause" : "play"));
    this.status.setAttribute("aria-live", this.timer ? "off" : "polite"); // a reader cannot keep up with playing
  }

  show(step) {
    this.step = clamp(step, this.last);
    this.slider.value = this.step;
    this.slider.setAttribute("aria-valuetext", `step ${this.step} of ${this.last}`);
    this.counter.textContent = `${this.step} / ${this.last}`;
    this.backButton.disabled = this.step === 0;
    this.forwardButton.disabled = this.step === this.last;
    this.cells.forEach((cell, position) => this.drawCell(cell, position));
    this.cursor.setAttribute("y", this.step);
    this.status.textContent = this.summary();
    this.inspect(this.position);
    this.steering?.shown(this);
  }

  drawCell(cell, position) {
    const piece = this.frames.tokens[this.step][position];
    const marks = this.marks(this.step, position);
    const p = this.confidence(this.step, position);
    cell.className = ["cell", ...(piece === MASKED ? ["masked"] : []), ...marks].join(" ");
    cell.querySelector(".word").textContent = this.word(piece);
    cell.querySelector(".marks").replaceChildren(...marks.map(icon));
    cell.querySelector(".bar").classList.toggle("hidden", p === UNKNOWN);
    cell.querySelector(".bar > span").style.width = `${Math.max(p, 0) / 10}%`;
    const said = [this.word(piece), ...marks.map((mark) => MARKS[mark])];
    if (piece !== MASKED) said.push(this.state(this.step, position));
    const plan = this.steering?.plan(this, position);
    if (plan) this.drawPlan(cell, plan, said);
    cell.setAttribute("aria-label", `position ${position}: ${said.join(", ")}`);
  }

  // What a person has set for the next run stands over what the frames say.
  drawPlan(cell, { mark, word, meaning }, said) {
    cell.className = `cell planned ${mark}${mark === "remasked" ? " masked" : ""}`;
    cell.querySelector(".word").textContent = visible(word);
    cell.querySelector(".marks").replaceChildren(...(mark in MARKS ? [icon(mark)] : []));
    cell.querySelector(".bar").classList.add("hidden");
    said.splice(0, said.length, visible(word), meaning);
  }

  summary() {
    const now = this.frames.tokens[this.step];
    const hidden = now.filter((piece) => piece === MASKED).length;
    const changed = (mark) => now.map((_, i) => i).filter((i) => this.marks(this.step, i).includes(mark));
    const parts = [`Step ${this.step} of ${this.last}`, hidden ? `${hidden} of ${this.length} masked` : "nothing masked"];
    if (changed("uncovered").length) parts.push(`${changed("uncovered").length} uncovered`);
    if (changed("remasked").length) parts.push(`${changed("remasked").length} masked again`);
    if (changed("rewritten").length) parts.push(`${changed("rewritten").length} replaced`);
    return parts.join(" · ");
  }

  inspect(position) {
    this.position = position;
    this.cells.forEach((cell, index) => {
      const chosen = index === position;
      cell.tabIndex = chosen ? 0 : -1; // one tab stop for all tokens
      cell.setAttribute("aria-selected", chosen);
      if (chosen) cell.setAttribute("aria-describedby", this.id);
      else cell.removeAttribute("aria-describedby");
    });
    const piece = this.frames.tokens[this.step][position];
    const asked = this.lastAsked(this.step, position);
    const ranked = asked < 0 ? [] : this.frames.top[asked][position];
    this.heading.replaceChildren(
      h("span", { class: "word", dir: "auto" }, this.word(piece)),
      h("span", { class: "quiet" }, `position ${position}`),
    );
    this.told.textContent = this.state(this.step, position);
    this.asked.textContent =
      asked < 0 ? "not asked so far" : `likeliest in step ${asked}${asked < this.step ? ", when last asked" : ""}`;
    this.list.replaceChildren(...this.alternatives(ranked, piece));
  }

  alternatives(ranked, shown) {
    const rows = [];
    for (let i = 0; i < ranked.length; i += 2) rows.push(this.alternative(ranked[i], ranked[i + 1], ranked[i] === shown));
    // Empty places keep their room: nothing below may move.
    while (rows.length < this.most) rows.push(h("li", { "aria-hidden": "true" }, bar(0)));
    return rows;
  }

  alternative(piece, p, written) {
    const tick = h("span", { class: "tick" });
    if (written) tick.append(icon("written"), h("span", { class: "unseen" }, "written"));
    return h(
      "li",
      { class: written ? "written" : "" },
      tick,
      h("span", { class: "word", dir: "auto" }, this.word(piece)),
      bar(p / 1000),
      h("span", { class: "number" }, probability(p)),
      ...(this.steering ? [this.steering.offer(this.position, this.frames.pieces[piece])] : []),
    );
  }
}

function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function icon(name) {
  return s("svg", { class: `icon ${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));
}

function button(label, name, act) {
  return on(h("button", { type: "button", "aria-label": label, title: label }, icon(name)), { click: act });
}

