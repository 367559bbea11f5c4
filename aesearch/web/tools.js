"use strict";
/* What the pages share: elements, texts, files, and the sheets that small images lie on. */

/* Binary arrays travel as base64. */
function numbers(text, Type) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Type(bytes.buffer);
}

/* 2 before 10, and numbers before words. */
function natural(a, b) {
  return a.localeCompare(b, "en", { numeric: true });
}

/* An element with children; text is always text, never markup. */
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/* What a spreadsheet opens without taking a text for a formula. */
function toCsv(rows) {
  const cell = (value) => {
    const text = String(value), safe = /^[=+\-@\t\r]/.test(text) && typeof value === "string" ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function download(name, text, type) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/* Buttons that copy names and save a table; said(text) is told what came of it. */
function exports(names, table, said) {
  const copy = make("button", { type: "button", async onclick() {
    try { await navigator.clipboard.writeText(names.join("\n")); said("copied"); }
    catch { said("the browser does not let this page copy: take the CSV"); }
  } }, "copy names");
  const save = make("button", { type: "button", onclick() { download("selection.csv", toCsv(table), "text/csv"); } }, "CSV");
  return [copy, save];
}

/* The small images of a collection, several hundred to a sheet; sheets are decoded when they are first needed. */
class Atlas {
  /* given: {side, across, places, sizes, sheets} as the server writes it, or null; loaded() is told when more is there. */
  constructor(given, loaded) {
    this.given = given;
    this.loaded = loaded;
    this.places = given && numbers(given.places, Int32Array);
    this.sizes = given && numbers(given.sizes, Uint8Array);
    this.sheets = given ? given.sheets.map(() => null) : [];
    this.waiting = 0;
  }

  has(i) {
    return Boolean(this.given) && this.places[i] >= 0;
  }

  /* Where an image's thumbnail lies, or null while it is not there. */
  thumb(i) {
    if (!this.has(i)) return null;
    const { side, across, sheets: sources } = this.given, each = across * across;
    const sheet = Math.floor(this.places[i] / each), place = this.places[i] % each;
    if (!this.sheets[sheet]) {
      const held = this.sheets[sheet] = { image: new Image(), ready: false };
      held.image.onload = () => {
        held.ready = true;
        clearTimeout(this.waiting);
        this.waiting = setTimeout(this.loaded, 30);
      };
      held.image.src = sources[sheet];
    }
    if (!this.sheets[sheet].ready) return null;
    return {
      image: this.sheets[sheet].image, x: (place % across) * side, y: Math.floor(place / across) * side,
      width: this.sizes[2 * this.places[i]], height: this.sizes[2 * this.places[i] + 1],
    };
  }

  /* An image on its own small canvas, once its sheet is there. */
  picture(i, side) {
    const canvas = make("canvas", { width: side, height: side, "aria-hidden": "true" });
    const draw = (tries) => {
      const found = this.thumb(i);
      if (!found) { if (tries && this.has(i)) setTimeout(() => draw(tries - 1), 60); return; }
      const grow = side / Math.max(found.width, found.height), pen = canvas.getContext("2d");
      canvas.width = Math.max(1, Math.round(found.width * grow));
      canvas.height = Math.max(1, Math.round(found.height * grow));
      pen.imageSmoothingEnabled = grow < 2;
      pen.drawImage(found.image, found.x, found.y, found.width, found.height, 0, 0, canvas.width, canvas.height);
    };
    draw(100);
    return canvas;
  }
}
