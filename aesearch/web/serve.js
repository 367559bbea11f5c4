"use strict";
/* The page of `aesearch serve`: what all views share. A view's address is all that it shows: #/name?parameters. */

const server = { version: "", info: null, values: null };
const uploads = []; // images that were given to this page; they are sent to the server to be searched for, and not kept there
const view = document.getElementById("view"), notice = document.getElementById("notice");

/* ---- asking */

class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/* An answer as JSON; a Refusal with the server's one line where there is none. */
async function ask(path, options) {
  const answer = await fetch(`/api/${path}`, options);
  notice.hidden = notice.dataset.kind === "gone" ? true : notice.hidden;
  noteVersion(answer.headers.get("X-Collection"));
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refusal(said.error || `the server answered ${answer.status}`, answer.status);
  }
  return answer.headers.get("Content-Type").startsWith("application/json") ? answer.json() : answer.blob();
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
  if (before) tell("the collection has changed", make("button", { type: "button", onclick: () => { hush(); render(); } }, "show it as it is now"));
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
    picture(pictureOf(image.row), image.id), ...lines.filter(Boolean).map((line, n) => make("span", { class: n ? "faint" : "" }, line)));
}

function shortName(image) {
  return image.id.split("/").pop();
}

function belonging(image) {
  return [image.label, image.cluster && `cluster ${image.cluster}`].filter(Boolean).join(" · ");
}

function wrong(error) {
  const [reason, command] = error.message.split(/: (?:run|make one with) (?=aesearch )/);
  if (!command) return make("p", { class: "wrong", role: "alert" }, error.message);
  return make("p", { class: "lacks" }, `${reason}. This makes it: `, make("code", {}, command));
}

/* Do something slow: what it shows when it is there, or what is wrong. */
async function fill(place, work) {
  const ticket = (place.ticket = {});
  place.classList.add("busy");
  try {
    const content = await work();
    if (place.ticket === ticket) place.replaceChildren(...[content].flat().filter((part) => part != null));
  } catch (error) {
    if (place.ticket === ticket) place.replaceChildren(...failure(error));
  } finally {
    if (place.ticket === ticket) place.classList.remove("busy");
  }
}

function failure(error) {
  if (error instanceof Refusal) return [wrong(error)];
  if (error instanceof TypeError && /fetch/i.test(error.message)) {
    tell("the server does not answer: is aesearch serve still running?", make("button", { type: "button", onclick: () => { hush(); render(); } }, "try again"), "gone");
    return [];
  }
  throw error;
}

function later(work, milliseconds = 150) {
  let waiting = 0;
  return (...values) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => work(...values), milliseconds);
  };
}

/* ---- which images: label, cluster, split, name */

/* A text that stands for itself in a condition. */
function literal(text) {
  return text.replace(/[[*?]/g, "[$&]");
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

function search(file) {
  if (!file) return;
  uploads.push({ file, url: URL.createObjectURL(file) });
  go("image", { upload: uploads.length });
}

function uploaded(number) {
  const found = uploads[Number(number) - 1];
  if (!found) throw new Refusal("that image was given to another page, which did not keep it: give it again", 404);
  return found;
}

document.querySelector(".choose input").addEventListener("change", (event) => {
  search(event.currentTarget.files[0]);
  event.currentTarget.value = "";
});
const dropping = document.getElementById("drop");
addEventListener("dragover", (event) => { event.preventDefault(); dropping.hidden = !event.dataTransfer.types.includes("Files"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) dropping.hidden = true; });
addEventListener("drop", (event) => { event.preventDefault(); dropping.hidden = true; search(event.dataTransfer.files[0]); });
addEventListener("paste", (event) => search([...event.clipboardData.files][0]));

/* ---- moving through a grid of images with the arrow keys */

document.addEventListener("keydown", (event) => {
  const here = document.activeElement;
  if (!here?.classList.contains("tile")) return;
  const tiles = [...view.querySelectorAll(".tile")], place = tiles.indexOf(here);
  const across = Math.max(1, tiles.filter((other) => other.offsetTop === here.offsetTop && other.parentNode === here.parentNode).length);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
  if (!step || !tiles[place + step]) return;
  event.preventDefault();
  tiles[place + step].focus();
});

setInterval(() => { if (!document.hidden) ask("info").then((told) => { server.info = told; }).catch(() => {}); }, 15000);
