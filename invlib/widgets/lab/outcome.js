// What came back: the text and a verdict on it; word by word beside the original and the run before; in numbers.

// What became of a word, between the original and what came back, and between two runs.
const RECOVERED = {
  hit: { sign: "✓", meaning: "came back in place" },
  moved: { sign: "↔", meaning: "came back elsewhere" },
  miss: { sign: "✗", meaning: "lost" },
  extra: { sign: "+", meaning: "not in the original" },
};
const CHANGES = {
  hit: { sign: "=", meaning: "stayed" },
  moved: { sign: "↔", meaning: "moved" },
  miss: { sign: "−", meaning: "gone" },
  extra: { sign: "+", meaning: "new" },
};

const SCORES = {
  token_f1: ["token F1", "Share of the words that came back, in any order"],
  positional_accuracy: ["in place", "Share of the words at the very same place"],
  edit_similarity: ["edit similarity", "1 - edit distance / length, in characters"],
  exact_match: ["exact", "Every word right and in its place"],
  length_within_one: ["length ± 1", "As many words as the original, give or take one"],
};
const SHARES = ["exact_match", "length_within_one"]; // 0 or 1

// The one result on the page, and where a run stands while it works.
class Result {
  constructor() {
    this.of = h("p", { class: "quiet of" });
    this.text = h("p", { class: "recovered", role: "status", dir: "auto" });
    this.verdict = h("p", { class: "told", role: "status" });
    this.doing = h("p", { class: "note doing", hidden: "" });
    this.spent = bar(0, { class: "bar spent" });
    const about = { class: "panel result", "aria-label": "What came back", tabindex: -1 };
    this.node = h("section", about, this.of, this.text, this.verdict, this.doing, this.spent);
  }

  // text: what stands there now. outcome: of a run that has ended, else nothing.
  draw(original, text, outcome) {
    this.of.textContent = original === null ? "From a vector" : original ? `From the vector of “${original}”` : "";
    this.text.setAttribute("aria-live", outcome ? "polite" : "off"); // nobody can listen to every step
    this.text.classList.toggle("growing", !outcome);
    if (this.text.textContent !== text) this.text.textContent = text;
    const [kind, line] = outcome?.verdict ?? ["", ""];
    const note = outcome?.note ? [h("span", { class: "quiet" }, outcome.note)] : [];
    this.verdict.replaceChildren(...verdictOf(kind, line), ...note);
  }

  drawDoing(text, share) {
    this.doing.hidden = !text;
    if (this.doing.textContent !== text) this.doing.textContent = text;
    this.spent.hidden = share === undefined;
    this.spent.firstChild.style.width = `${100 * (share ?? 0)}%`;
  }
}

// All that is told about a result below its player; code: the node that shows the code.
function detailsOf(outcome, code) {
  code.textContent = outcome.code ?? "";
  return [
    ...alignment("Original and recovered, word by word", ["original", "recovered"], outcome.pairs, RECOVERED),
    ...alignment("What changed since the run before", ["before", "now"], outcome.changes, CHANGES),
    numbersOf(outcome),
  ];
}

function alignment(label, [above, below], pairs, kinds) {
  if (!pairs.length) return [];
  const items = pairs.map((pair) => alignedPair(pair, above, below, kinds));
  const seen = new Set(pairs.flatMap((pair) => [pair.expected_kind, pair.found_kind]));
  const all = Object.entries(kinds).filter(([kind]) => seen.has(kind));
  const rows = h("div", { class: "rows", "aria-hidden": "true" }, h("span", {}, above), h("span", {}, below));
  const signs = all.map(([kind, { sign, meaning }]) => h("span", { class: kind }, h("b", {}, sign), ` ${meaning}`));
  return [
    h("p", { class: "label" }, label),
    h("div", { class: "aligned" }, rows, h("ol", { class: "pairs", "aria-label": label }, ...items)),
    h("p", { class: "quiet signs" }, ...signs),
  ];
}

// Each word carries the mark that is its own.
function alignedPair({ expected, found, expected_kind, found_kind }, above, below, kinds) {
  const told = (where, word, kind) => (word ? `${where} ${word}: ${kinds[kind].meaning}` : `${where} nothing`);
  const said = `${told(above, expected, expected_kind)}; ${told(below, found, found_kind)}`;
  const word = (text, kind) => {
    if (!text) return h("span", { class: "half none" }, "·");
    const { sign, meaning } = kinds[kind];
    const parts = [h("span", { class: "word", dir: "auto" }, text), h("i", {}, sign)];
    return h("span", { class: `half ${kind}`, title: meaning }, ...parts);
  };
  return h("li", { class: "pair", "aria-label": said }, word(expected, expected_kind), word(found, found_kind));
}

function numbersOf({ scores, cosine, model_calls, encoder_queries, seconds }) {
  const cell = (name, value, title) => h("div", { title }, h("dt", {}, name), h("dd", {}, value));
  const told = Object.entries(SCORES).filter(([name]) => name in scores);
  const score = (name) => (SHARES.includes(name) ? (scores[name] ? "yes" : "no") : scores[name].toFixed(3));
  return h(
    "dl",
    { class: "scores" },
    ...(cosine === null ? [] : [cell("cosine", cosine.toFixed(3), "Of the text's own vector to the inverted one")]),
    ...told.map(([name, [label, title]]) => cell(label, score(name), title)),
    cell("model calls", grouped(model_calls), "Forward passes of the denoiser"),
    cell("encoder queries", grouped(encoder_queries), "Texts that were encoded"),
    cell("seconds", seconds.toFixed(2), "From the click to the text"),
  );
}

