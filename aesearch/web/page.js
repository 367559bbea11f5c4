"use strict";
/* The page that `aesearch map` writes: a map, what colours it, a search by name, a lasso, and an image's neighbours. */

(function () {
  const given = JSON.parse(document.getElementById("data").textContent);
  const count = given.names.length;
  document.querySelector("h1").textContent = document.title;
  const columns = {};
  for (const [name, column] of Object.entries(given.columns)) {
    columns[name] = { codes: numbers(column.codes, Uint16Array), names: column.names };
  }
  const scores = given.scores && numbers(given.scores, Float32Array);
  const neighbours = given.neighbours && numbers(given.neighbours, Int32Array);
  const sizes = given.atlas && numbers(given.atlas.sizes, Uint8Array);
  const places = given.atlas && numbers(given.atlas.places, Int32Array);
  const sheets = given.atlas ? given.atlas.sheets.map(() => null) : [];
  let waiting = 0;

  /* Where an image's thumbnail lies on its sheet; sheets are decoded when they are first needed. */
  function thumb(i) {
    if (!given.atlas || places[i] < 0) return null;
    const { side, across, sheets: sources } = given.atlas, each = across * across;
    const sheet = Math.floor(places[i] / each), place = places[i] % each;
    if (!sheets[sheet]) {
      const image = new Image();
      sheets[sheet] = { image, ready: false };
      image.onload = () => {
        sheets[sheet].ready = true;
        clearTimeout(waiting);
        waiting = setTimeout(() => map.redraw(), 30);
      };
      image.src = sources[sheet];
    }
    if (!sheets[sheet].ready) return null;
    return {
      image: sheets[sheet].image, x: (place % across) * side, y: Math.floor(place / across) * side,
      width: sizes[2 * places[i]], height: sizes[2 * places[i] + 1],
    };
  }

  /* An image on its own small canvas, once its sheet is there. */
  function picture(i, side) {
    const canvas = make("canvas", { width: side, height: side, "aria-hidden": "true" });
    const draw = (tries) => {
      const found = thumb(i);
      if (!found) { if (tries && given.atlas && places[i] >= 0) setTimeout(() => draw(tries - 1), 60); return; }
      const grow = side / Math.max(found.width, found.height), pen = canvas.getContext("2d");
      canvas.width = Math.max(1, Math.round(found.width * grow));
      canvas.height = Math.max(1, Math.round(found.height * grow));
      pen.imageSmoothingEnabled = grow < 2;
      pen.drawImage(found.image, found.x, found.y, found.width, found.height, 0, 0, canvas.width, canvas.height);
    };
    draw(100);
    return canvas;
  }

  function facts(i) {
    const told = Object.entries(columns).map(([name, c]) => [name, c.names[c.codes[i]]]).filter((f) => f[1] !== "");
    if (scores) told.push([given.scoreName, scores[i].toPrecision(4)]);
    return told.map(([name, value]) => `${name} ${value}`).join(" · ");
  }

  const hover = document.getElementById("hover"), panel = document.getElementById("panel");
  const legend = document.getElementById("legend"), status = document.getElementById("status");
  const choice = document.getElementById("colour");

  const map = new ImageMap(document.getElementById("map"), { count, x: numbers(given.x, Float32Array),
    y: numbers(given.y, Float32Array), columns, scores, thumb }, {
    colourBy: given.colourBy,
    picked: open,
    hovered(i, point) {
      hover.hidden = i < 0;
      if (i < 0) return;
      hover.replaceChildren(picture(i, 96), make("b", {}, given.names[i]), make("span", {}, facts(i)));
      const flip = point.x > window.innerWidth / 2;
      hover.style.left = flip ? "" : `${point.x + 18}px`;
      hover.style.right = flip ? `${document.getElementById("map").clientWidth - point.x + 18}px` : "";
      hover.style.top = `${Math.max(4, point.y - 40)}px`;
    },
  });
  window.imageMap = map; // for whoever looks at it from outside

  function colour() {
    const shown = map.colourBy(choice.value);
    legend.replaceChildren(...shown.map(({ name, colour: shade, count: n, code }) => {
      const swatch = make("i", {});
      swatch.style.background = shade;
      if (code === null) return make("span", {}, swatch, name);
      const button = make("button", { type: "button", "aria-pressed": "true", title: "show or hide",
        onclick() { button.setAttribute("aria-pressed", String(map.toggle(code))); } },
      swatch, `${name} `, make("small", {}, n.toLocaleString("en")));
      return button;
    }));
  }

  function show(title, ...content) {
    const close = make("button", { type: "button", class: "close", "aria-label": "close", onclick() {
      panel.hidden = true; map.mark([]);
    } }, "×");
    panel.replaceChildren(close, make("h2", {}, title), ...content);
    panel.hidden = false;
    panel.scrollTop = 0;
  }

  function entry(i, more) {
    return make("button", { type: "button", class: "entry", onclick() { open(i); map.goTo(i); } },
      picture(i, 56), make("span", {}, make("b", {}, given.names[i]), make("small", {}, more || facts(i))));
  }

  function open(i) {
    const near = [];
    if (neighbours) {
      const k = neighbours.length / count;
      for (let n = 0; n < k; n++) if (neighbours[i * k + n] >= 0) near.push(neighbours[i * k + n]);
    }
    show(given.names[i], picture(i, 160), make("p", {}, facts(i)),
      near.length ? make("h3", {}, "nearest neighbours") : null, ...near.map((j) => entry(j)));
    map.mark([i, ...near]);
  }

  const LISTED = 300;
  function list(points, title) {
    const names = points.map((i) => given.names[i]);
    const table = [["id", ...Object.keys(columns), ...(scores ? [given.scoreName] : [])],
      ...points.map((i) => [given.names[i], ...Object.values(columns).map((c) => c.names[c.codes[i]]),
        ...(scores ? [scores[i]] : [])])];
    const copy = make("button", { type: "button", async onclick() {
      try { await navigator.clipboard.writeText(names.join("\n")); status.textContent = "copied"; }
      catch { status.textContent = "the browser does not let this page copy: take the CSV"; }
    } }, "copy names");
    const save = make("button", { type: "button", onclick() { download("selection.csv", toCsv(table), "text/csv"); } }, "CSV");
    const more = points.length > LISTED ? make("p", {}, `and ${(points.length - LISTED).toLocaleString("en")} more`) : null;
    show(title, make("p", { class: "actions" }, copy, save), ...points.slice(0, LISTED).map((i) => entry(i)), more);
    map.mark(points.length <= LISTED ? points : []);
  }

  choice.append(...Object.keys(columns).map((name) => make("option", { value: name }, name)),
    ...(scores ? [make("option", { value: "score" }, given.scoreName)] : []), make("option", { value: "none" }, "nothing"));
  choice.value = given.colourBy || "none";
  choice.addEventListener("change", colour);
  document.getElementById("lasso").addEventListener("click", (event) => {
    const button = event.currentTarget;
    const stop = () => button.setAttribute("aria-pressed", "false");
    if (map.lasso) { map.endLasso(); stop(); return; }
    button.setAttribute("aria-pressed", "true");
    map.drawLasso((points) => {
      stop();
      if (points.length) list(points, `${points.length.toLocaleString("en")} selected`);
      else status.textContent = "nothing lies in there";
    });
  });
  document.getElementById("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = new FormData(event.currentTarget).get("name").trim().toLowerCase();
    if (!text) return;
    const found = [];
    for (let i = 0; i < count; i++) if (given.names[i].toLowerCase().includes(text)) found.push(i);
    status.textContent = found.length ? "" : "no name has that in it";
    if (found.length === 1) { open(found[0]); map.goTo(found[0]); } else if (found.length) list(found, `${found.length.toLocaleString("en")} found`);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { map.endLasso(); document.getElementById("lasso").setAttribute("aria-pressed", "false"); panel.hidden = true; map.mark([]); }
  });
  colour();
})();
