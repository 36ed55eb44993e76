// Small signs, and buttons that show one.

const ICONS = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  back: "M12 3v10L5 8zM3 3h1.7v10H3z",
  forward: "M4 3v10l7-5zM11.3 3H13v10h-1.7z",
  uncovered: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11z",
  remasked: "M6.5 1.5 1.5 6l5 4.5V7.2H10a2.4 2.4 0 0 1 0 4.8H5v2.2h5A4.6 4.6 0 0 0 10 5H6.5z",
  rewritten: "M5.2 1 1 4.7l4.2 3.6V5.8H13V3.6H5.2zM10.8 7.7 15 11.3 10.8 15v-2.6H3v-2.2h7.8z",
  pinned: "M5 1h6v1.6l-1 .8v3.4L12.4 9v1.6H9V15H7v-4.4H3.6V9L6 6.8V3.4l-1-.8z",
  written: "M6.2 12.6 1.9 8.3l1.6-1.6 2.7 2.7 6.3-6.3 1.6 1.6z",
  far: "M8 1 15.5 14.5H.5zM7.2 5.5v4.4h1.6V5.5zm0 5.6v1.7h1.6v-1.7z",
  close: "M2 5.2c2-2.4 4-2 6-.8s3.6 1.4 6-.8v2.6c-2 2.4-4 2-6 .8s-3.6-1.4-6 .8zM2 10c2-2.4 4-2 6-.8s3.6 1.4 6-.8V11c-2 2.4-4 2-6 .8s-3.6-1.4-6 .8z",
  dice: "M3 1.5h10A1.5 1.5 0 0 1 14.5 3v10a1.5 1.5 0 0 1-1.5 1.5H3A1.5 1.5 0 0 1 1.5 13V3A1.5 1.5 0 0 1 3 1.5zM3 3v10h10V3zm2.3 1.1a1.3 1.3 0 1 1 0 2.6 1.3 1.3 0 0 1 0-2.6zm5.4 5.2a1.3 1.3 0 1 1 0 2.6 1.3 1.3 0 0 1 0-2.6zM8 6.7a1.3 1.3 0 1 1 0 2.6 1.3 1.3 0 0 1 0-2.6z",
};

function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function icon(name) {
  const path = s("path", { d: ICONS[name], "fill-rule": "evenodd" });
  return s("svg", { class: `icon ${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, path);
}

// A button that shows a sign alone; its label is its name and its tooltip.
function button(label, name, act) {
  return on(h("button", { type: "button", "aria-label": label, title: label }, icon(name)), { click: act });
}

