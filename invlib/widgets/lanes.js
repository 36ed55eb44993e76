// Lanes: runs of one vector below each other, on one timeline.

function drawLanes(el, lanes) {
  new Lanes(el).load(lanes);
}

class Lanes extends Pane {
  constructor(el) {
    super(el, "lanes", "Side by side");
    this.root.classList.add("panel");
    this.timeline = new Timeline((step) => this.draw(step));
    this.list = h("div", { class: "lanes" });
    this.legend = h("div", { class: "legend" });
    this.root.append(this.timeline.node, this.list, this.legend);
    on(this.root, { keydown: (event) => this.key(event) });
  }

  close() {
    this.timeline.pause();
    super.close();
  }

  load(lanes) {
    this.lanes = lanes.map((told) => new Lane(told));
    this.list.replaceChildren(...this.lanes.map((lane) => lane.node));
    this.legend.replaceChildren(...legend(this.lanes.map((lane) => lane.frames)));
    this.timeline.reach(Math.max(...this.lanes.map((lane) => lane.frames.last)));
    this.timeline.show(this.timeline.step);
  }

  draw(step) {
    for (const lane of this.lanes) lane.show(step);
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches("select")) return;
    if (!this.timeline.key(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// One run. It stays at its end while a longer one goes on.
class Lane {
  constructor({ label, frames, text, verdict: [kind, line], model_calls, encoder_queries }) {
    this.frames = new Frames(frames);
    this.tokens = new Tokens({ label: `Tokens: ${label}` });
    this.tokens.load(this.frames);
    this.status = h("span", { class: "quiet" });
    const costs = `${count(model_calls, "model call")}, ${count(encoder_queries, "query", "queries")}`;
    this.end = h("p", { class: "end" }, ...verdictOf(kind, line), h("span", { class: "quiet" }, costs));
    const head = h("p", { class: "head" }, h("b", {}, label), this.status);
    const text_ = h("p", { class: "unseen" }, text);
    this.node = h("section", { class: "lane", "aria-label": label }, head, this.tokens.node, this.end, text_);
  }

  show(step) {
    const at = Math.min(step, this.frames.last);
    this.tokens.show(at);
    this.status.textContent = this.frames.summary(at);
    this.end.classList.toggle("hidden", at < this.frames.last);
  }
}

// A sign and a line: exact, close or far.
function verdictOf(kind, line) {
  const sign = { exact: "written", close: "close", far: "far" }[kind];
  return line ? [h("span", { class: `verdict ${kind}` }, ...(sign ? [icon(sign)] : []), line)] : [];
}

