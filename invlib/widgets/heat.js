// The heat map: steps downwards, positions to the right; in every cell the likeliest piece, the bluer the surer.

class HeatMap {
  // point: called with a position and a step that is pointed at. go: with a step that is clicked.
  constructor({ point, go }) {
    Object.assign(this, { point, go });
    const about =
      "What the model thought likeliest, step by step downwards; outlined where it was written. " +
      "Point for numbers, click to go there.";
    this.grid = h("div", { class: "grid", role: "img", "aria-label": "Heat map: one row per step, one column per token" });
    this.scroll = h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Heat map, scrolls" }, this.grid);
    this.node = h("div", { class: "heat" }, h("p", { class: "quiet" }, about), this.scroll);
    on(this.grid, {
      pointerover: ({ target }) => this.at(target, ([step, position]) => position >= 0 && this.point(position, step)),
      pointerleave: () => this.point(undefined),
      click: ({ target }) => this.at(target, ([step]) => this.go(step)),
    });
  }

  at(target, act) {
    const place = target.closest("[data-at]")?.dataset.at;
    if (place) act(place.split(" ").map(Number));
  }

  load(frames) {
    this.rows = frames.told.tokens.map((_, step) => this.row(frames, step));
    this.grid.style.setProperty("--columns", frames.length);
    this.grid.replaceChildren(...this.rows);
  }

  row(frames, step) {
    const number = h("span", { class: "step", "data-at": `${step} -1` }, step);
    return h("div", { class: "row" }, number, ...frames.told.tokens[step].map((_, i) => this.cell(frames, step, i)));
  }

  cell(frames, step, position) {
    const { kind, piece, p } = thought(frames, step, position);
    const cell = h("span", { class: `thought ${kind}`, "data-at": `${step} ${position}`, style: `--p: ${p / 10}%` });
    cell.textContent = kind === "stays" || piece < 0 ? "" : frames.word(piece);
    const numbers = [];
    const ranked = frames.ranked(step, position);
    for (let i = 0; i < ranked.length; i += 2) numbers.push(`${frames.word(ranked[i])} ${probability(ranked[i + 1])}`);
    cell.title = numbers.length ? numbers.join("\n") : frames.state(step, position);
    return cell;
  }

  show(step) {
    this.rows.forEach((row, index) => row.classList.toggle("now", index === step));
    const { offsetTop, offsetHeight } = this.rows[step];
    const { scrollTop, clientHeight } = this.scroll;
    if (offsetTop < scrollTop) this.scroll.scrollTop = offsetTop;
    else if (offsetTop + offsetHeight > scrollTop + clientHeight) {
      this.scroll.scrollTop = offsetTop + offsetHeight - clientHeight;
    }
  }
}

// What a cell shows: written in this step, stays since, a guess behind a mask, or nothing.
function thought(frames, step, position) {
  const piece = frames.piece(step, position);
  const p = Math.max(frames.confidence(step, position), 0);
  if (piece === GONE) return { kind: "gone", piece, p: 0 };
  if (piece === MASKED) {
    const [likeliest = MASKED, probability = 0] = frames.ranked(step, position);
    return { kind: "guess", piece: likeliest, p: probability };
  }
  const isNew = frames.marks(step, position).some((mark) => mark === "uncovered" || mark === "rewritten");
  return { kind: isNew ? "new" : step ? "stays" : "given", piece, p };
}

