"use strict";
/* The page of `aesearch serve`: what all views share. A view's address is all that it shows: #/name?parameters. */

const server = { version: "", info: null, values: null };
const uploads = new Map(); // images that were given to this page; the server is asked about them, and does not keep them
const SHORT = 12, END = 9; // letters of a caption that always has room; at the end of a longer one, those always shown
const view = document.getElementById("view"), notice = document.getElementById("notice");

/* ---- asking */

class Refusal extends Error {}
class Gone extends Error {}
let leaving = new AbortController(); // ends what is asked for a view that is left

/* An answer as JSON; a Refusal with the server's one line where there is none. */
async function ask(path, options) {
  let answer, found;
  try {
    answer = await fetch(`/api/${path}`, { signal: leaving.signal, ...options });
    const isJson = answer.headers.get("Content-Type")?.startsWith("application/json");
    found = await (isJson ? answer.json() : answer.blob());
  } catch (error) {
    throw error.name === "AbortError" ? error : new Gone();
  }
  noteVersion(answer.headers.get("X-Collection"));
  if (!answer.ok) throw new Refusal(found.error || `the server answered ${answer.status}`);
  return found;
}

function send(path, document, method = "POST") {
  return ask(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(document) });
}

function sendImage(path, file) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file });
}

/* The collection may be changed underneath by other commands: what is shown is then of before. */
function noteVersion(version) {
  if (!version || version === server.version) return;
  const before = server.version;
  server.version = version;
  server.info = server.values = null;
  if (before) sayChanged();
}

function sayChanged() {
  tell("the collection has changed", again("reload"));
}

function tell(text, button, kind = "") {
  notice.replaceChildren(`${text} `, button || "");
  notice.dataset.kind = kind;
  notice.hidden = false;
}

function hush() {
  notice.hidden = true;
}

async function info() {
  return (server.info ||= await ask("info"));
}

async function values() {
  return (server.values ||= await ask("values"));
}

/* ---- addresses */

/* parameters: {name: value or list}; what is empty is left out. */
function address(name, parameters = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== "" && one != null) query.append(key, one);
  }
  const text = query.toString();
  return `#/${name}${text ? `?${text}` : ""}`;
}

function go(name, parameters) {
  location.hash = address(name, parameters);
}

/* The same view, a little other: no step for the back button. */
function amend(name, parameters) {
  history.replaceState(null, "", address(name, parameters));
}

function where() {
  const [name, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { name, given: new URLSearchParams(query || "") };
}

/* ---- pieces */

function pictureOf(row, kind = "") {
  return `/api/images/${row}${kind}?version=${server.version}`;
}

/* Small pictures are shown pixel for pixel. */
function picture(source, text, attributes = {}) {
  const image = make("img", { loading: "lazy", decoding: "async", alt: text, src: source, ...attributes });
  image.addEventListener("load", () => { if (Math.max(image.naturalWidth, image.naturalHeight) <= 96) image.classList.add("exact"); });
  return image;
}

/* An image of the collection that leads to its neighbours. */
function tile(image, ...lines) {
  return make("a", { class: "tile", href: address("image", { row: image.row }), title: image.id },
    picture(pictureOf(image.row), image.id), ...lines.flat().filter(Boolean).map((text, n) => line(text, n ? "faint" : "")));
}

/* The file of each image, with as many of its folders as tell it from others among them: {image.id: text}. */
function shortNames(images) {
  const ids = [...new Set(images.map((image) => image.id))], shown = Object.create(null);
  let open = ids;
  for (let depth = 1; open.length; depth++) {
    const taken = new Map();
    for (const id of open) {
      shown[id] = id.split("/").slice(-depth).join("/");
      taken.set(shown[id], (taken.get(shown[id]) || 0) + 1);
    }
    open = open.filter((id) => taken.get(shown[id]) > 1 && shown[id] !== id);
  }
  return shown;
}

/* A line under a picture that is cut in the middle where there is no room for it: its end stays. */
function line(told, kind = "") {
  const text = told.replace(/\s+/g, " ");
  const end = text.length > SHORT ? text.length - END : text.length;
  return make("span", { class: `cut ${kind}` }, make("span", {}, text.slice(0, end)), make("span", {}, text.slice(end)));
}

/* The lines that say what an image belongs to. */
function belonging(image) {
  return [image.label, image.cluster && `cluster ${image.cluster}`];
}

function wrong(error) {
  const [reason, command] = error.message.split(/: (?:run|make one with) (?=aesearch )/);
  if (!command) return make("p", { class: "wrong", role: "alert" }, error.message);
  return make("p", { class: "lacks" }, `${reason}. To make it, run: `, make("code", {}, command));
}

/* Do something slow: what it shows when it is there, or what is wrong. */
async function fill(place, work) {
  const ticket = (place.ticket = {}), current = () => place.ticket === ticket;
  place.classList.add("busy");
  try {
    const content = await work(current);
    if (current()) replace(place, ...[content].flat().filter((part) => part != null));
  } catch (error) {
    if (current()) replace(place, ...failure(error));
  } finally {
    if (current()) place.classList.remove("busy");
  }
}

/* Other content; who was in there with the keyboard stays there. */
function replace(place, ...content) {
  const within = place.contains(document.activeElement);
  place.replaceChildren(...content);
  if (within) {
    place.tabIndex = -1;
    place.focus({ preventScroll: true });
  }
}

function failure(error) {
  if (error instanceof Refusal) return [wrong(error)];
  if (error.name === "AbortError") return [];
  if (!(error instanceof Gone)) throw error;
  tell("the server does not answer: is aesearch serve still running?", again("try again"), "gone");
  return [make("p", { class: "wrong", role: "alert" }, "the server does not answer")];
}

/* A button that shows the view anew. */
function again(text) {
  return make("button", { type: "button", onclick: () => { hush(); render(); } }, text);
}

/* What a hand does quickly several times is done once; not any more when the view is left. */
const pending = new Set();
function later(work, milliseconds = 150) {
  let waiting = 0;
  return (...values) => {
    clearTimeout(waiting);
    pending.delete(waiting);
    waiting = setTimeout(() => { pending.delete(waiting); work(...values); }, milliseconds);
    pending.add(waiting);
  };
}

/* ---- which images: label, cluster, split, name */

/* A text that stands for itself in a condition. */
function literal(text) {
  return text.replace(/[[*?]|^\s|\s$/g, "[$&]"); // spaces at the ends would be dropped
}

/* Chosen values of a bar of filters, as conditions. */
function conditions(chosen) {
  return Object.entries(chosen).filter(([, value]) => value)
    .map(([name, value]) => (name === "id" ? `id=*${literal(value)}*` : `${name}=${literal(value)}`));
}

/* Selects of what there is; changed({label, cluster, split, id}) is told. */
async function filterBar(chosen, changed) {
  const known = await values(), bar = [];
  for (const name of ["label", "cluster", "split"]) {
    if (!known[name].length) continue;
    const choice = make("select", { onchange: () => { chosen[name] = choice.value; changed(chosen); } },
      make("option", { value: "" }, "all"),
      ...known[name].sort((a, b) => natural(a.value, b.value))
        .map(({ value, images }) => make("option", { value }, `${value} (${images.toLocaleString("en")})`)));
    choice.value = chosen[name] || "";
    bar.push(make("label", {}, name, choice));
  }
  const told = later(() => { chosen.id = text.value.trim(); changed(chosen); }, 300);
  const text = make("input", { type: "search", placeholder: "part of a name", "aria-label": "part of a name", value: chosen.id || "", oninput: told });
  return [...bar, text];
}

function chosenIn(given) {
  return Object.fromEntries(["label", "cluster", "split", "id"].map((name) => [name, given.get(name) || ""]));
}

/* ---- images from outside: chosen, dropped, pasted */

async function search(file) {
  if (!file) return;
  const bytes = await file.arrayBuffer().catch(() => null); // as it is now; folders have none
  if (!bytes) return tell("that is no file that can be read");
  const key = Date.now().toString(36), kept = new File([bytes], file.name, { type: file.type });
  uploads.set(key, { file: kept, url: URL.createObjectURL(kept) });
  go("image", { upload: key });
}

function uploaded(key) {
  const found = uploads.get(key);
  if (!found) throw new Refusal("this page does not have that image: choose it again");
  return found;
}

document.querySelector(".choose input").addEventListener("change", (event) => {
  search(event.currentTarget.files[0]);
  event.currentTarget.value = "";
});
const dropping = document.getElementById("drop");
const brings = (event) => event.dataTransfer?.types.includes("Files"); // or else a text, into a field
addEventListener("dragover", (event) => { if (brings(event)) { event.preventDefault(); dropping.hidden = false; } });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) dropping.hidden = true; });
addEventListener("drop", (event) => {
  if (!brings(event)) return;
  event.preventDefault();
  dropping.hidden = true;
  search(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const isText = event.target.closest?.("input") && event.clipboardData.types.includes("text/plain");
  if (!isText) search([...event.clipboardData.files][0]);
});

/* ---- moving through a grid of images with the arrow keys */

document.addEventListener("keydown", (event) => {
  const here = document.activeElement;
  if (!here?.classList.contains("tile") || event.altKey || event.ctrlKey || event.metaKey) return;
  const tiles = [...view.querySelectorAll(".tile")], place = tiles.indexOf(here), foot = (tile) => tile.getBoundingClientRect().bottom;
  const across = Math.max(1, tiles.filter((other) => other.parentNode === here.parentNode && Math.abs(foot(other) - foot(here)) < 3).length);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
  if (!step || !tiles[place + step]) return;
  event.preventDefault();
  tiles[place + step].focus();
});
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); view.focus(); });

/* Whether the collection has changed, and whether the server that was gone is there again. */
setInterval(async () => {
  if (document.hidden) return;
  try {
    server.info = await ask("info", { signal: null });
    if (notice.dataset.kind === "gone" && !notice.hidden) { hush(); render(); }
  } catch { /* a view that asks will say so */ }
}, 15000);
