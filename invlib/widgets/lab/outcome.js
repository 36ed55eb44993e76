// What came back: the text, word by word beside the original and the run before, and in numbers.

// What became of a word, between the original and what came back, and between two runs.
const RECOVERED = {
  hit: { sign: "✓", meaning: "came back" },
  moved: { sign: "↔", meaning: "came back elsewhere" },
  miss: { sign: "✗", meaning: "lost" },
  extra: { sign: "+", meaning: "not in the original" },
};
const CHANGES = {
  hit: { sign: "=", meaning: "stayed" },
  moved: { sign: "↔", meaning: "moved" },
  miss: { sign: "≠", meaning: "changed" },
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

function cameBack(outcome, actions) {
  return [
    h("p", { class: "label" }, "What came back"),
    h("p", { class: "recovered", role: "status", dir: "auto" }, outcome.text || "nothing yet"),
    ...(outcome.note ? [h("p", { class: "note" }, outcome.note)] : []),
    ...alignment("Original and recovered, word by word", ["original", "recovered"], outcome.pairs, RECOVERED),
    ...alignment("What changed since the run before", ["before", "now"], outcome.changes, CHANGES),
    numbersOf(outcome),
    actions,
    ...(outcome.code ? [codeOf(outcome)] : []),
  ];
}

function codeOf({ code }) {
  return h("details", {}, h("summary", {}, "The code that repeats it"), h("pre", {}, code));
}

function alignment(label, [above, below], pairs, kinds) {
  if (!pairs.length) return [];
  const items = pairs.map((pair) => alignedWord(pair, above, below, kinds[pair.kind]));
  const seen = new Set(pairs.map(({ kind }) => kind));
  const legend = Object.entries(kinds).filter(([kind]) => seen.has(kind));
  const rows = h("div", { class: "rows", "aria-hidden": "true" }, h("span", {}, above), h("span", {}, below));
  const signs = legend.map(([kind, { sign, meaning }]) => h("span", { class: kind }, h("b", {}, sign), ` ${meaning}`));
  return [
    h("p", { class: "label" }, label),
    h("div", { class: "aligned" }, rows, h("ol", { class: "pairs", "aria-label": label }, ...items)),
    h("p", { class: "quiet signs" }, ...signs),
  ];
}

function alignedWord({ expected, found, kind }, above, below, { sign, meaning }) {
  const said = `${above} ${expected ?? "nothing"}, ${below} ${found ?? "nothing"}: ${meaning}`;
  return h(
    "li",
    { class: `pair ${kind}`, title: meaning, "aria-label": said },
    h("span", { class: "word", dir: "auto" }, expected ?? "·"),
    h("span", { class: "word", dir: "auto" }, found ?? "·"),
    h("span", { class: "sign", "aria-hidden": "true" }, sign),
  );
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
    cell("model calls", model_calls.toLocaleString("en"), "Forward passes of the denoiser"),
    cell("encoder queries", encoder_queries.toLocaleString("en"), "Texts that were encoded"),
    cell("seconds", seconds.toFixed(2), "From the click to the text"),
  );
}

