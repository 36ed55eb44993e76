// The player: one inversion, step by step. What `frames` holds is said in player.py.

const KEYS = "space, ← → Home End; ↑ ↓ choose a token";

function renderPlayer({ model, el }) {
  const player = new Player(el, model.get("frames"));
  return listening(player, model, { "change:frames": () => player.load(model.get("frames")) });
}

function drawPlayer(el, frames) {
  new Player(el, frames);
}

class Player extends Pane {
  // steering: what the lab lets a person do with a token; nothing where there is no kernel.
  constructor(el, told, steering = null) {
    super(el, "player", "Player");
    this.steering = steering;
    this.root.classList.add("panel");
    on(this.root, { keydown: (event) => this.key(event) });
    this.build();
    this.load(told);
  }

  close() {
    this.timeline.pause();
    super.close();
  }

  build() {
    this.timeline = new Timeline((step) => this.draw(step));
    this.status = h("p", { class: "quiet", role: "status" });
    this.tokens = new Tokens({
      label: "Tokens",
      inspect: (position) => this.inspect(position),
      act: (position) => this.steering?.open(this, position),
      plan: (position) => this.steering?.plan(this, position),
    });
    this.heat = new HeatMap({
      point: (position, step) => this.inspect(position ?? this.position, position === undefined ? this.step : step),
      go: (step) => this.go(step),
    });
    this.text = h("p", { class: "text" });
    this.legend = h("div", { class: "legend" });
    const sentence = h("div", { class: "sentence" }, h("div", {}, this.status, this.tokens.node), this.text);
    this.body = h("div", { class: "body" }, sentence, this.details());
    this.root.append(this.timeline.node, this.body, this.heat.node, this.legend);
  }

  // New frames keep the step; a view of the last step follows an inversion that is still growing.
  load(told) {
    const isFirst = !this.frames;
    const atEnd = !isFirst && this.step === this.frames.last;
    const focused = this.tokens.cells?.indexOf(this.root.getRootNode().activeElement) ?? -1;
    this.frames = new Frames(told);
    this.position = Math.min(this.position ?? 0, this.frames.length - 1);
    this.most = Math.max(...told.top.flat().map((ranked) => ranked.length / 2), 0);
    this.root.setAttribute("aria-label", `Player: ${this.frames.length} tokens, ${count(this.frames.last, "step")}`);
    this.text.textContent = told.text;
    this.tokens.load(this.frames);
    this.heat.load(this.frames);
    const keys = `Keys: ${KEYS}${this.steering ? "; P pins, M masks" : ""}`;
    const always = this.steering ? ["remasked", "pinned"] : [];
    this.legend.replaceChildren(...legend([this.frames], always), h("span", { class: "keys" }, keys));
    this.timeline.reach(this.frames.last);
    this.timeline.show(isFirst ? 0 : atEnd && !this.timeline.timer ? this.frames.last : this.step);
    if (focused >= 0) this.tokens.cells[Math.min(focused, this.frames.length - 1)].focus();
  }

  details() {
    this.heading = h("p", { class: "heading" });
    this.told = h("p");
    this.asked = h("p", { class: "quiet" });
    this.list = h("ol");
    const parts = [this.heading, this.told, this.asked, this.list];
    return h("div", { class: "details", role: "region", "aria-label": "Alternatives", id: this.id }, ...parts);
  }

  // ── what a person does ──

  get step() {
    return this.timeline.step;
  }

  get last() {
    return this.frames.last;
  }

  get isFollowing() {
    return this.timeline.isFollowing;
  }

  show(step) {
    this.timeline.show(step);
  }

  go(step) {
    this.timeline.go(step);
  }

  key(event) {
    const isTyping = event.target.matches("select, [type=text], .scroll");
    if (event.altKey || event.ctrlKey || event.metaKey || isTyping || event.defaultPrevented) return;
    if (!this.moves(event) && !this.timeline.key(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  // True for a key that is about a token.
  moves({ key, target }) {
    if (target.matches(".cell") && this.steering?.key(this, key, this.position)) return true;
    if (target.matches("input") || (key !== "ArrowUp" && key !== "ArrowDown")) return false;
    this.choose(key === "ArrowDown" ? 1 : -1);
    return true;
  }

  // The next token that there is in this step, in one direction.
  choose(by) {
    let position = this.position;
    do position += by;
    while (this.tokens.cells[position]?.hidden);
    const cell = this.tokens.cells[position] ?? this.tokens.cells[this.position];
    this.inspect(this.tokens.cells.indexOf(cell));
    cell.focus();
  }

  // ── drawing ──

  draw(step) {
    this.tokens.show(step);
    this.heat.show(step);
    // A reader cannot keep up with playing.
    this.status.setAttribute("aria-live", this.timeline.timer ? "off" : "polite");
    this.status.textContent = this.frames.summary(step);
    this.text.classList.toggle("hidden", step < this.last); // it keeps its room: nothing below may move
    this.inspect(this.position);
    this.steering?.shown(this);
  }

  // What was thought of a position, at the step that is shown or another one.
  inspect(position, step = this.step) {
    const { frames } = this;
    this.position = position;
    this.tokens.choose(position, this.id);
    const piece = frames.piece(step, position);
    const asked = frames.lastAsked(step, position);
    const ranked = asked < 0 ? [] : frames.ranked(asked, position);
    const where = `position ${frames.place(step, position)}${step === this.step ? "" : `, step ${step}`}`;
    const word = h("span", { class: "word", dir: "auto" }, frames.word(piece) || "–");
    this.heading.replaceChildren(word, h("span", { class: "quiet" }, where));
    this.told.textContent = frames.state(step, position);
    const when = asked < step ? ", when last asked" : "";
    this.asked.textContent = asked < 0 ? "not asked so far" : `likeliest in step ${asked}${when}`;
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
      h("span", { class: "word", dir: "auto" }, this.frames.word(piece)),
      bar(p / 1000),
      h("span", { class: "number" }, probability(p)),
      ...(this.steering ? [this.steering.offer(this.position, this.frames.told.pieces[piece], written)] : []),
    );
  }
}

