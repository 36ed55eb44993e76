// The timeline: play, pause, step, scrub. It knows how many steps there are, and shows one by calling `show`.

const MILLISECONDS_PER_STEP = 700; // at speed 1
const SPEEDS = [0.5, 1, 2, 4];

class Timeline {
  constructor(show) {
    Object.assign(this, { draw: show, step: 0, last: 0, speed: 1, timer: null, isGrowing: false, isFollowing: false });
    this.playButton = button("Play", "play", () => (this.timer ? this.pause() : this.play()));
    this.backButton = button("Previous step", "back", () => this.go(this.step - 1));
    this.forwardButton = button("Next step", "forward", () => this.go(this.step + 1));
    this.slider = h("input", { type: "range", min: 0, max: 0, step: 1, "aria-label": "Step" });
    on(this.slider, { input: () => this.go(Number(this.slider.value)) });
    this.counter = h("span", { class: "counter", "aria-hidden": "true" });
    const buttons = [this.backButton, this.playButton, this.forwardButton];
    this.node = h("div", { class: "controls" }, ...buttons, this.slider, this.counter, this.speeds());
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

  reach(last) {
    this.last = last;
    this.slider.max = last;
  }

  show(step) {
    this.step = clamp(step, this.last);
    this.slider.value = this.step;
    this.slider.setAttribute("aria-valuetext", `step ${this.step} of ${this.last}`);
    this.counter.textContent = `${this.step} / ${this.last}`;
    this.backButton.disabled = this.step === 0;
    this.forwardButton.disabled = this.step === this.last;
    this.draw(this.step);
  }

  play() {
    clearInterval(this.timer);
    this.isFollowing = false;
    if (this.step === this.last) this.show(0);
    this.timer = setInterval(() => {
      this.show(this.step + 1);
      if (this.step === this.last) this.pause();
    }, MILLISECONDS_PER_STEP / this.speed);
    this.drawPlaying();
    this.draw(this.step);
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
    const was = this.timer;
    this.timer = null;
    this.isFollowing = false;
    this.drawPlaying();
    if (was) this.draw(this.step);
  }

  go(step) {
    this.pause();
    this.show(step);
  }

  drawPlaying() {
    const label = this.timer ? "Pause" : "Play";
    this.playButton.setAttribute("aria-label", label);
    this.playButton.title = label;
    this.playButton.replaceChildren(icon(this.timer ? "pause" : "play"));
  }

  // True for a key that moves it.
  key({ key, target }) {
    const moves = { ArrowLeft: this.step - 1, ArrowRight: this.step + 1, Home: 0, End: this.last };
    if (key in moves) this.go(moves[key]);
    else if (key === " " && !target.matches("button, summary")) this.timer ? this.pause() : this.play();
    else return false;
    return true;
  }
}

