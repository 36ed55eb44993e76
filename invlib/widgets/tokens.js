// A row of tokens at one step: a tile each, with its state, its marks and its probability.

class Tokens {
  // inspect, act: what happens on pointing at a token, and on clicking it. plan: what is set for it for the next run.
  constructor({ label, inspect, act, plan }) {
    Object.assign(this, { inspect, act, plan });
    const role = inspect ? "listbox" : "list";
    this.node = h("div", { class: "tokens", role, "aria-label": label });
  }

  load(frames) {
    this.frames = frames;
    this.cells = frames.told.tokens[0].map((_, position) => this.cell(position));
    this.node.replaceChildren(...this.cells);
  }

  cell(position) {
    // All that it will show, one below the other, unseen: as wide as the widest, so no token moves while it plays.
    const shown = new Set(this.frames.told.tokens.map((step) => this.frames.word(step[position])));
    const room = h("span", { class: "room", "aria-hidden": "true" }, [...shown].join("\n"));
    const parts = [room, h("span", { class: "word", dir: "auto" }), bar(0), h("span", { class: "marks" })];
    if (!this.inspect) return h("div", { class: "cell", role: "listitem" }, ...parts);
    const inspect = () => this.inspect(position);
    const cell = h("div", { class: "cell", role: "option", tabindex: -1 }, ...parts);
    return on(cell, { pointerenter: inspect, focus: inspect, click: () => this.act?.(position) });
  }

  show(step) {
    this.cells.forEach((cell, position) => this.draw(cell, step, position));
  }

  draw(cell, step, position) {
    const { frames } = this;
    const piece = frames.piece(step, position);
    const marks = frames.marks(step, position);
    const p = frames.confidence(step, position);
    const state = piece === MASKED ? ["masked"] : frames.isDraft(step, position) ? ["draft"] : [];
    cell.hidden = piece === GONE;
    cell.className = ["cell", ...state, ...marks].join(" ");
    cell.querySelector(".word").textContent = frames.word(piece);
    cell.querySelector(".marks").replaceChildren(...marks.map(icon));
    cell.querySelector(".bar").classList.toggle("hidden", p === UNKNOWN);
    cell.querySelector(".bar > span").style.width = `${Math.max(p, 0) / 10}%`;
    const said = [frames.word(piece), ...marks.map((mark) => MARKS[mark])];
    if (state[0] === "draft") said.push("may still change");
    if (piece !== MASKED) said.push(frames.state(step, position));
    const plan = this.plan?.(position);
    if (plan) this.drawPlan(cell, plan, said);
    cell.setAttribute("aria-label", `position ${frames.place(step, position)}: ${said.join(", ")}`);
  }

  // What a person has set for the next run stands over what the frames say.
  drawPlan(cell, { mark, word, meaning }, said) {
    cell.className = `cell planned ${mark}${mark === "remasked" ? " masked" : ""}`;
    cell.querySelector(".word").textContent = visible(word);
    cell.querySelector(".marks").replaceChildren(...(mark in MARKS ? [icon(mark)] : []));
    cell.querySelector(".bar").classList.add("hidden");
    said.splice(0, said.length, visible(word), meaning);
  }

  // One tab stop for all tokens.
  choose(position, describedBy) {
    this.cells.forEach((cell, index) => {
      const chosen = index === position;
      cell.tabIndex = chosen ? 0 : -1;
      cell.setAttribute("aria-selected", chosen);
      if (chosen) cell.setAttribute("aria-describedby", describedBy);
      else cell.removeAttribute("aria-describedby");
    });
  }
}

// The four states, and the marks that some frames have.
function legend(allFrames, always = []) {
  const seen = new Set(always);
  for (const frames of allFrames) {
    for (let step = 0; step <= frames.last; step++) {
      for (let position = 0; position < frames.length; position++) {
        for (const mark of frames.marks(step, position)) seen.add(mark);
        if (frames.isDraft(step, position)) seen.add("draft");
      }
    }
  }
  const others = ["remasked", "rewritten", "pinned"].filter((mark) => seen.has(mark));
  const entry = (kind, meaning, sign) => h("span", {}, h("span", { class: `swatch ${kind}` }, ...sign), meaning);
  return [
    entry("masked", "masked", []),
    entry("uncovered", MARKS.uncovered, [icon("uncovered")]),
    ...(seen.has("draft") ? [entry("draft", "draft, may still change", [])] : []),
    entry("committed", "committed", []),
    ...others.map((mark) => entry(mark, MARKS[mark], [icon(mark)])),
    entry("bar", "probability when written", [h("span")]),
  ];
}

