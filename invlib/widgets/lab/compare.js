// Side by side: which runs are compared; Lanes shows them.

const COMPARISONS = {
  policies: "Policies",
  seeds: "Seeds",
  steps: "Steps",
  search: "Draft and search",
  noise: "Clean and noisy",
  guidance: "Guidance",
};

class Compare {
  constructor(lab) {
    this.lab = lab;
    const offers = lab.options.comparisons.map((what) =>
      action(COMPARISONS[what] ?? words(what), "", () => lab.act("compare", { what })),
    );
    this.keep = action("Keep this run", "", () => lab.send("keep"), "pinned");
    this.clear = action("Clear", "", () => lab.send("clear"));
    this.place = h("div", { class: "beside" });
    const buttons = h("div", { class: "actions small" }, ...offers, this.keep, this.clear);
    const label = h("p", { class: "label" }, "Side by side: the same vector under other settings, on one timeline");
    this.files = lab.take.row("Take these away", "lanes");
    const parts = [label, buttons, this.place, this.files];
    this.node = h("section", { class: "panel compare", "aria-label": "Compare", hidden: "" }, ...parts);
  }

  close() {
    this.lanes?.close();
  }

  draw() {
    const lanes = this.lab.model.get("lanes");
    this.clear.hidden = this.files.hidden = !lanes.length;
    this.keep.disabled = this.lab.model.get("outcome").text === undefined;
    if (!lanes.length) {
      this.lanes?.close();
      this.lanes = undefined;
      return;
    }
    const isNew = !this.lanes || this.lanes.lanes.length !== lanes.length;
    this.lanes ??= new Lanes(this.place);
    this.lanes.load(lanes);
    if (isNew) this.lanes.timeline.go(0);
    if (isNew && lanes.length > 1 && !this.lab.isStill) this.lanes.timeline.play();
  }
}

