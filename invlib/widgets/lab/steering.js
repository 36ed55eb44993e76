// Steering: what a person does with a token, and what is set for the next run. The player asks it about every token.

class Steering {
  constructor(lab) {
    this.lab = lab;
    this.runOn = action("Run on", "", () => lab.act("run on"));
    this.hint = h("span", { class: "quiet" });
    this.bar = h("div", { class: "steer", role: "group", "aria-label": "Steering", hidden: "" }, this.runOn, this.hint);
    this.menu = null;
  }

  // What differs from the frames' last step: {position: word}, positions.
  get set() {
    return this.lab.model.get("steering");
  }

  standing(player, position) {
    const { pinned, masked } = this.set;
    const isMasked = masked.includes(position);
    const isWritten = player.frames.piece(player.step, position) >= 0;
    return { isPinned: String(position) in pinned, isMasked, isWritten: isWritten && !isMasked };
  }

  pin(player, position) {
    this.lab.send("pin", { position, step: player.step });
  }

  // ── the menu of a token ──

  open(player, position) {
    this.close();
    if (this.lab.isRunning) return;
    player.timeline.pause();
    const menu = h("div", { class: "menu", role: "toolbar", "aria-label": `Token ${position}` });
    const done = (act) => () => {
      menu.remove();
      act?.();
      player.tokens.cells[position]?.focus();
    };
    menu.append(...this.choices(player, position, done), this.wordField(position, done));
    on(menu, {
      keydown: (event) => event.key === "Escape" && done()(),
      focusout: ({ relatedTarget }) => relatedTarget && !menu.contains(relatedTarget) && menu.remove(),
    });
    this.place(menu, player.tokens.cells[position]);
    this.menu = menu;
  }

  close() {
    this.menu?.remove();
  }

  choices(player, position, done) {
    const { isPinned, isMasked, isWritten } = this.standing(player, position);
    const offered = [];
    const offer = (label, act, mark) => offered.push(action(label, "", done(act), mark));
    if (isPinned) offer("Unpin", () => this.lab.send("release", { position }));
    else if (isWritten) offer("Pin", () => this.pin(player, position), "pinned");
    if (isMasked) offer("Keep", () => this.lab.send("release", { position }));
    else if (isWritten) offer("Mask again", () => this.lab.send("remask", { position }), "remasked");
    return offered;
  }

  wordField(position, done) {
    const said = { placeholder: "another word", "aria-label": "Another word to pin" };
    const word = h("input", { type: "text", size: 10, ...said });
    const keydown = ({ key }) => {
      const token = word.value.trim();
      if (key === "Enter" && token) done(() => this.lab.send("pin", { position, token }))();
    };
    return on(word, { keydown });
  }

  // Below its token, and inside the lab.
  place(menu, cell) {
    cell.parentElement.after(menu);
    menu.style.left = `${clamp(cell.offsetLeft, cell.parentElement.clientWidth - menu.offsetWidth)}px`;
    menu.style.top = `${cell.offsetTop + cell.offsetHeight + 6}px`;
  }

  // ── what the player asks ──

  // True for a key that steers.
  key(player, key, position) {
    const { isPinned, isMasked, isWritten } = this.standing(player, position);
    const press = key.toLowerCase();
    if (press === "enter") {
      this.open(player, position);
      this.menu?.querySelector("button, input").focus();
    } else if (press === "escape") this.close();
    else if (press === "p" && isPinned) this.lab.send("release", { position });
    else if (press === "p" && isWritten) this.pin(player, position);
    else if (press === "m" && isMasked) this.lab.send("release", { position });
    else if (press === "m" && isWritten) this.lab.send("remask", { position });
    else return false;
    return true;
  }

  // What is set for the next run and does not stand in the frames yet.
  plan(player, position) {
    if (this.lab.isRunning) return undefined;
    const { pinned, masked } = this.set;
    if (masked.includes(position)) return { mark: "remasked", word: "[MASK]", meaning: "to be written anew" };
    const now = player.frames.word(player.frames.piece(player.step, position));
    const wasPinned = player.frames.isPinned(player.step, position);
    const word = pinned[String(position)];
    if (word === undefined) return wasPinned ? { mark: "released", word: now, meaning: "no longer pinned" } : undefined;
    if (wasPinned && now === visible(word)) return undefined;
    return { mark: "pinned", word, meaning: "pinned for the next run" };
  }

  // Beside an alternative: pin that one; instead of what stands, unless it is that.
  offer(position, piece, stands) {
    const label = stands ? `Pin ${piece}, which stands here` : `Pin ${piece} instead`;
    const pin = button(label, "pinned", () => this.lab.send("pin", { position, token: piece }));
    pin.classList.add("offer");
    return pin;
  }

  // Called whenever a step is shown: the person runs on from there.
  shown({ step, frames }) {
    this.lab.drawResult();
    const { pinned, masked } = this.set;
    const isHidden = (piece, i) => (piece === MASKED || (piece >= 0 && masked.includes(i))) && !(i in pinned);
    const hidden = frames.told.tokens[step].filter(isHidden).length;
    const held = Object.keys(pinned).length;
    const hints = [];
    if (held) hints.push(`${count(held, "token")} pinned: Invert writes all others anew.`);
    const them = hidden === 1 ? "it" : "them";
    if (hidden) hints.push(`${count(hidden, "token")} masked here: Run on fills ${them}, the rest stays.`);
    const invitation = "Click a token to pin it or to mask it again. Then run on from the step that is shown.";
    this.bar.hidden = false;
    this.runOn.disabled = this.lab.isRunning || !hidden;
    this.hint.textContent = hints.join(" ") || invitation;
  }
}

