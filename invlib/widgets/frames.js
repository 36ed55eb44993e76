// What the frames of one inversion say; how they are packed stands in player.py.

const MASKED = -1;
const GONE = -2;
const UNKNOWN = -1;

// Every mark is a colour and a shape, in the tile's corner and in the legend.
const MARKS = {
  uncovered: "just revealed",
  remasked: "masked again in this step",
  rewritten: "replaced in this step",
  pinned: "pinned: given, not uncovered",
};

class Frames {
  constructor(told) {
    this.told = told;
    this.last = told.tokens.length - 1;
    this.length = told.tokens[0].length;
    this.pinned = new Map((told.pinned ?? []).map((position, i) => [position, told.pinned_since?.[i] ?? 0]));
  }

  piece(step, position) {
    return this.told.tokens[step][position];
  }

  word(piece) {
    return piece === MASKED ? "[MASK]" : piece === GONE ? "" : visible(this.told.pieces[piece]);
  }

  confidence(step, position) {
    return this.told.confidence[step][position];
  }

  // [piece, probability, piece, probability, …]: what the model thought of a position in a step.
  ranked(step, position) {
    return this.told.top[step][position];
  }

  // The cosine of a step's text to the vector, and how many texts were encoded by then; nothing where nobody asked.
  asked(step) {
    const [cosine, queries] = this.told.asked?.[step] ?? [];
    return cosine === undefined ? [] : [count(queries, "query", "queries"), `cosine ${cosine.toFixed(3)}`];
  }

  // Its place in the text, where a search has put in or taken away tokens before it.
  place(step, position) {
    return this.told.tokens[step].slice(0, position).filter((piece) => piece !== GONE).length;
  }

  isPinned(step, position) {
    return this.pinned.get(position) <= step;
  }

  marks(step, position) {
    const now = this.piece(step, position);
    const before = step ? this.piece(step - 1, position) : now;
    const marks = [];
    if (before === MASKED && now >= 0) marks.push("uncovered");
    if (before >= 0 && now === MASKED) marks.push("remasked");
    if (before !== MASKED && now >= 0 && before !== now) marks.push("rewritten");
    if (this.isPinned(step, position)) marks.push("pinned");
    return marks;
  }

  // A draft may still change: by a policy that looks back, or by a search.
  isDraft(step, position) {
    return this.piece(step, position) >= 0 && step < (this.told.open ?? 0) && !this.isPinned(step, position);
  }

  // The step in which the token that is shown now was written; 0: it was there from the start.
  since(step, position) {
    const now = this.piece(step, position);
    while (step > 0 && this.piece(step - 1, position) === now) step--;
    return step;
  }

  // The latest step up to this one in which the model was asked about the position; -1: never.
  lastAsked(step, position) {
    while (step >= 0 && !this.ranked(step, position).length) step--;
    return step;
  }

  state(step, position) {
    const piece = this.piece(step, position);
    if (piece === MASKED) return "masked";
    if (piece === GONE) return "no token here in this step";
    const since = this.since(step, position);
    const p = this.confidence(step, position);
    const pinned = this.pinned.get(position);
    if (pinned > 0 && pinned <= step) return `pinned in step ${pinned}`;
    const when = since ? `written in step ${since}` : "given from the start";
    return p === UNKNOWN ? when : `${when} with probability ${probability(p)}`;
  }

  summary(step) {
    const now = this.told.tokens[step];
    const hidden = now.filter((piece) => piece === MASKED).length;
    const all = now.filter((piece) => piece !== GONE).length;
    const marked = (mark) => now.filter((_, i) => this.marks(step, i).includes(mark)).length;
    const taken = step ? now.filter((piece, i) => piece === GONE && this.piece(step - 1, i) !== GONE).length : 0;
    const parts = [`Step ${step} of ${this.last}`, hidden ? `${hidden} of ${all} masked` : "nothing masked"];
    const counts = [
      [marked("uncovered"), "uncovered"],
      [marked("remasked"), "masked again"],
      [marked("rewritten"), "replaced"],
      [taken, "taken away"],
    ];
    for (const [n, what] of counts) if (n) parts.push(`${n} ${what}`);
    return [...parts, ...this.asked(step)].join(" · ");
  }

  // The text of a step as it is read; the last one's is known, the others are put together here.
  spoken(step) {
    if (step === this.last && !this.told.tokens[step].includes(MASKED)) return this.told.text;
    const words = [];
    for (const piece of this.told.tokens[step].filter((one) => one !== GONE)) {
      const word = piece === MASKED ? "▁▁" : this.told.pieces[piece];
      if (word.startsWith("##") && words.length) words[words.length - 1] += word.slice(2);
      else words.push(word.trim());
    }
    return words.join(" ").replace(/ (?=[.,;:!?)\]%])/g, "").replace(/ (['’]) (?=\w)/g, "$1");
  }
}

