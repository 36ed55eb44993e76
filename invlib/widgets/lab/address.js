// The address carries what was asked, behind its #: a reload or a link shows the same, and no server hears of it.

const ADDRESSED = ["text", "policy", "seed", "num_steps"]; // always told; all others where they are not as usual
const IN_ADDRESS = { num_steps: "steps", guidance_scale: "guidance", max_queries: "budget" };
const KNOWN = [...ADDRESSED, "candidates", "guidance_scale", "perturbation", "strength", "max_queries", "watch", "vector"];
const KEPT = "invlib-vector"; // a vector is too long for an address: the tab remembers it

// What the address of the page asks for: a value for some settings; nothing the second time, when a cell runs again.
function readAddress() {
  if (window.invlibAddressIsRead) return undefined;
  window.invlibAddressIsRead = true;
  const told = new URLSearchParams(location.search);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) told.set(name, value);
  const asked = Object.fromEntries(told);
  for (const [setting, name] of Object.entries(IN_ADDRESS)) if (name in asked) asked[setting] = asked[name];
  if (!KNOWN.some((name) => name in asked)) return undefined;
  if ("vector" in asked) asked.vector = remembered() ?? "";
  return asked;
}

function addressOf(settings, usual, isSearch) {
  const told = new URLSearchParams();
  for (const [setting, value] of Object.entries(settings)) {
    if (setting === "vector") told.set("vector", "");
    else if (ADDRESSED.includes(setting) || value !== usual[setting]) told.set(IN_ADDRESS[setting] ?? setting, value);
  }
  if (isSearch) told.set("search", 1);
  return `${location.origin}${location.pathname}${location.search}#${told}`;
}

function writeAddress(address, settings) {
  try {
    if ("vector" in settings) sessionStorage.setItem(KEPT, settings.vector);
    history.replaceState(history.state, "", address);
  } catch {
    // a page in a frame may be allowed neither; then a reload begins anew
  }
}

function remembered() {
  try {
    return sessionStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

