"use strict";
/* A map with all around it: what colours it, a search by name, a lasso, an image's neighbours. Used by the page that
   `aesearch map` writes and by `aesearch serve`. */

const LISTED = 300; // images of a selection that are shown one by one

class MapView {
  /* element: where it goes; given: the document of a map; asks: what a server can tell beside it, each optional:
       neighbours(i): promise of points; imagine(x, y): promise of {picture, points} for a place without images;
       actions(points): elements for an image, or a selection; coloured(name): what colours it now; failed(error):
       elements that say what is wrong. */
  constructor(element, given, asks = {}) {
    this.given = given;
    this.asks = asks;
    this.count = given.names.length;
    this.rows = numbers(given.rows, Int32Array);
    this.columns = {};
    for (const [name, column] of Object.entries(given.columns)) {
      this.columns[name] = { codes: numbers(column.codes, Uint16Array), names: column.names, legend: column.legend };
    }
    this.scores = given.scores && numbers(given.scores, Float32Array);
    this.near = given.neighbours && numbers(given.neighbours, Int32Array);
    this.atlas = new Atlas(given.atlas, () => this.map.redraw());
    this.build(element);
    this.map = new ImageMap(this.ground, {
      count: this.count, x: numbers(given.x, Float32Array), y: numbers(given.y, Float32Array), columns: this.columns,
      other: given.other, plain: given.plain, scores: this.scores, thumb: (i) => this.atlas.thumb(i),
    }, {
      colourBy: given.colourBy, picked: (i) => this.open(i), hovered: (i, point) => this.hover(i, point),
      emptied: (x, y) => this.imagine(x, y), wandered: (x, y, point) => this.wander(x, y, point),
      left: () => { this.wanted = null; },
    });
    this.colour();
  }

  /* ---- the elements */

  build(element) {
    this.choice = make("select", { onchange: () => { this.colour(); this.asks.coloured?.(this.choice.value); } },
      ...Object.keys(this.columns).map((name) => make("option", { value: name }, name)),
      ...(this.scores ? [make("option", { value: "score" }, this.given.scoreName)] : []),
      make("option", { value: "none" }, "nothing"));
    this.choice.value = this.given.colourBy || "none";
    this.name = make("input", { name: "name", type: "search", placeholder: "search by name", "aria-label": "search by name" });
    this.lasso = make("button", { type: "button", "aria-pressed": "false", title: "draw around images to list them",
      onclick: () => this.drawLasso() }, "lasso");
    this.status = make("span", { class: "status", role: "status" });
    this.hovering = make("div", { class: "hover", hidden: true });
    this.ground = make("div", { class: "ground", role: "application", "aria-label": "map of the images: arrow keys move it, plus and minus zoom" },
      this.hovering);
    this.panel = make("aside", { class: "panel", "aria-label": "details", tabindex: "0", hidden: true });
    this.legend = make("div", { class: "legend", role: "group", "aria-label": "what the colours mean", tabindex: "0" });
    element.classList.add("mapview");
    element.replaceChildren(
      make("div", { class: "bar" }, make("label", {}, "colour by ", this.choice),
        make("form", { role: "search", onsubmit: (event) => this.search(event) }, this.name), this.lasso,
        this.given.told ? make("small", {}, this.given.told) : null, this.status),
      this.ground, this.panel, this.legend);
    element.addEventListener("keydown", (event) => { if (event.key === "Escape") this.close(); });
  }

  close() {
    this.map.endLasso();
    this.lasso.setAttribute("aria-pressed", "false");
    this.panel.hidden = true;
    this.opened = null;
    this.map.mark([]);
  }

  colour() {
    const shown = this.map.colourBy(this.choice.value);
    this.legend.replaceChildren(...shown.map(({ name, colour: shade, count: n, code }) => {
      const swatch = make("i", {});
      swatch.style.background = shade;
      if (code === null) return make("span", {}, swatch, name);
      const button = make("button", { type: "button", "aria-pressed": "true", title: "show or hide",
        onclick: () => button.setAttribute("aria-pressed", String(this.map.toggle(code))) },
      swatch, `${name} `, make("small", {}, n.toLocaleString("en")));
      return button;
    }));
  }

  colourBy(name) {
    if ([...this.choice.options].some((option) => option.value === name)) {
      this.choice.value = name;
      this.colour();
    }
  }

  facts(i) {
    const told = Object.entries(this.columns).map(([name, c]) => [name, c.names[c.codes[i]]]).filter((f) => f[1] !== "");
    if (this.scores) told.push([this.given.scoreName, this.scores[i].toPrecision(4)]);
    return told.map(([name, value]) => `${name} ${value}`).join(" · ");
  }

  hover(i, point) {
    this.wanted = null;
    this.hovering.hidden = i < 0;
    if (i >= 0) this.hoverOver(point, this.atlas.picture(i, 96), make("b", {}, this.given.names[i]), make("span", {}, this.facts(i)));
  }

  hoverOver(point, ...content) {
    this.hovering.replaceChildren(...content);
    this.hovering.hidden = false;
    const width = this.ground.clientWidth, flip = point.x > width / 2;
    this.hovering.style.left = flip ? "" : `${point.x + 18}px`;
    this.hovering.style.right = flip ? `${width - point.x + 18}px` : "";
    this.hovering.style.top = `${Math.max(4, Math.min(point.y - 40, this.ground.clientHeight - 170))}px`;
  }

  show(title, ...content) {
    const close = make("button", { type: "button", class: "close", "aria-label": "close", onclick: () => this.close() }, "×");
    const within = this.panel.contains(document.activeElement);
    this.wanted = null;
    this.hovering.hidden = true;
    this.panel.replaceChildren(close, make("h2", {}, title), ...content.filter((part) => part != null));
    this.panel.hidden = false;
    this.panel.scrollTop = 0;
    if (within) this.panel.focus({ preventScroll: true });
  }

  entry(i, more) {
    return make("button", { type: "button", class: "entry", onclick: () => { this.open(i); this.map.goTo(i); } },
      this.atlas.picture(i, 56), make("span", {}, make("b", {}, this.given.names[i]), make("small", {}, more || this.facts(i))));
  }

  /* ---- one image, and its neighbours */

  async open(i) {
    const mine = (this.opened = {}), place = make("div", {});
    this.show(this.given.names[i], this.atlas.picture(i, 160), make("p", {}, this.facts(i)), this.actions([i]), place);
    this.map.mark([i]);
    let near = this.written(i);
    try {
      if (this.asks.neighbours) near = await this.asks.neighbours(i);
    } catch (error) {
      place.append(...this.asks.failed(error));
    }
    if (this.opened !== mine || !near.length) return;
    place.append(make("h3", {}, "nearest neighbours"), ...near.map((j) => this.entry(j)));
    this.map.mark([i, ...near]);
  }

  written(i) {
    const k = this.near ? this.near.length / this.count : 0;
    return this.near ? [...this.near.subarray(i * k, i * k + k)].filter((j) => j >= 0) : [];
  }

  actions(points) {
    const found = this.asks.actions?.(points);
    return found ? make("p", { class: "actions" }, ...found) : null;
  }

  /* ---- a place without images: what the decoder imagines there */

  async wander(x, y, point) {
    this.wanted = point;
    if (!this.asks.imagine || this.asking) return; // one at a time: the next move asks again
    this.asking = true;
    try {
      const { picture } = await this.asks.imagine(x, y);
      if (this.wanted && !this.map.lasso) this.hoverOver(point, picture, make("span", {}, "imagined here"));
    } catch {
      this.hovering.hidden = true; // a click will say what is wrong
    } finally {
      this.asking = false;
    }
  }

  async imagine(x, y) {
    if (!this.asks.imagine) return;
    const mine = (this.opened = {});
    this.map.mark([]);
    try {
      const { picture, points } = await this.asks.imagine(x, y);
      if (this.opened !== mine) return;
      this.show("imagined here", picture, make("p", {}, "what the decoder makes of the images around this place"),
        make("h3", {}, "around it"), ...points.map((i) => this.entry(i)));
    } catch (error) {
      if (this.opened === mine) this.show("imagined here", ...this.asks.failed(error));
    }
  }

  /* ---- many */

  list(points, title) {
    const names = points.map((i) => this.given.names[i]), columns = Object.entries(this.columns);
    const table = [["row", "id", ...columns.map(([name]) => name), ...(this.scores ? [this.given.scoreName] : [])],
      ...points.map((i) => [this.rows[i], this.given.names[i], ...columns.map(([, c]) => c.names[c.codes[i]]),
        ...(this.scores ? [this.scores[i]] : [])])];
    const more = points.length > LISTED ? make("p", {}, `and ${(points.length - LISTED).toLocaleString("en")} more`) : null;
    this.opened = null;
    this.show(title, make("p", { class: "actions" }, ...exports(names, table, (said) => { this.status.textContent = said; })),
      this.actions(points), ...points.slice(0, LISTED).map((i) => this.entry(i)), more);
    this.map.mark(points.length <= LISTED ? points : []);
  }

  drawLasso() {
    const stop = () => this.lasso.setAttribute("aria-pressed", "false");
    if (this.map.lasso) { this.map.endLasso(); stop(); return; }
    this.lasso.setAttribute("aria-pressed", "true");
    this.hovering.hidden = true;
    this.map.drawLasso((points) => {
      stop();
      if (points.length) this.list(points, `${points.length.toLocaleString("en")} selected`);
      else this.status.textContent = "no images selected";
    });
  }

  search(event) {
    event.preventDefault();
    const text = this.name.value.trim().toLowerCase(), found = [];
    if (!text) return;
    for (let i = 0; i < this.count; i++) if (this.given.names[i].toLowerCase().includes(text)) found.push(i);
    this.status.textContent = found.length ? "" : "no name matches";
    if (found.length === 1) { this.open(found[0]); this.map.goTo(found[0]); }
    else if (found.length) this.list(found, `${found.length.toLocaleString("en")} found`);
  }
}
