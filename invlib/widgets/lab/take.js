// Take it away: what is shown as a file, as a link and as code.

const FILES = {
  html: ["HTML", "A page that plays it, without a network", "text/html"],
  svg: ["SVG", "A moving picture for a page or a README", "image/svg+xml"],
  gif: ["GIF", "A moving picture for slides and mail", "image/gif"],
  npz: ["Trajectory", "For invlib.trajectory.Trajectory.load", "application/octet-stream"],
};

class Take {
  constructor(lab) {
    this.lab = lab;
    this.link = action("Copy link", "", () => copied(this.link, lab.link ?? location.href));
    this.link.title = "Sentence, policy, seed and steps stand in the address of this page";
    this.code = action("Copy as code", "", () => copied(this.code, lab.model.get("outcome").code, lab.code));
    this.node = this.row("Take it away", "run", [this.link, this.code]);
  }

  // Buttons that save what is shown: of the run, or of the lanes side by side.
  row(label, of, more = []) {
    const files = Object.entries(FILES).map(([what, [name, title]]) => {
      const node = action(name, "", () => this.lab.send("save", { what, of }));
      node.title = title;
      return node;
    });
    const buttons = h("div", { class: "actions small", role: "group", "aria-label": label }, ...files, ...more);
    return h("div", { class: "take" }, h("p", { class: "label" }, label), buttons);
  }

  // A file that the kernel has sent, to the page that asked for it.
  arrive({ file, page }, [bytes]) {
    if (page !== this.lab.page) return;
    const type = FILES[file.split(".").pop()]?.[2] ?? "application/zip";
    const url = URL.createObjectURL(new Blob([bytes], { type }));
    h("a", { href: url, download: file }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}

// Where a page is not served over HTTPS or from this machine there is no clipboard: then the text is selected.
function copied(node, text, place) {
  const done = () => answer(node, "Copied");
  if (place) {
    place.closest("details").open = true;
    const range = document.createRange();
    range.selectNodeContents(place);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  }
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => answer(node, "Not allowed here"));
  else if (place && document.execCommand("copy")) done();
}
