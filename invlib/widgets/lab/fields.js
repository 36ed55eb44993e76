// Fields and buttons of the lab.

function labelled(label, field) {
  return h("label", { class: "field" }, h("span", { class: "label" }, label), field);
}

function select(label, entries) {
  return h("select", { "aria-label": label }, ...entries.map(([value, text]) => h("option", { value }, text)));
}

function number(label, value, min, max, step = 1) {
  const node = h("input", { type: "number", "aria-label": label, min, max, step });
  node.value = value;
  return node;
}

function checkbox(label) {
  const box = h("input", { type: "checkbox" });
  return [box, h("label", { class: "check" }, box, h("span", {}, label))];
}

// A number; what is none travels as it was typed, and the answer says so.
function typed(field) {
  return field.value.trim() === "" || Number.isNaN(Number(field.value)) ? field.value : Number(field.value);
}

function action(label, kind, act, mark) {
  const node = h("button", { type: "button", class: `action ${kind}` }, ...(mark ? [icon(mark)] : []), label);
  return on(node, { click: act });
}

// A click is answered on the button itself, for a moment.
function answer(node, text) {
  const before = node.textContent;
  node.textContent = text;
  setTimeout(() => (node.textContent = before), 2000);
}

function grouped(n) {
  return n.toLocaleString("en");
}

// Half of a surrogate pair, which no encoding can carry: the connection would end on it.
function isWhole(text) {
  return !/[\uD800-\uDFFF]/u.test(text);
}

function words(name) {
  return name.replaceAll("_", " ");
}

