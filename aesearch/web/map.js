"use strict";
/* A map of images, drawn with Leaflet: points in canvas tiles, and the images themselves where there is room for them. */

const WORLD = 256; // map units of the longer side
const DEEPEST = 9;
const CELLS = 128; // a side, of the grid that points are looked up in
/* Pixels of a place where an image may be drawn, by zoom … */
const placeAt = (zoom) => (zoom > 4 ? 96 : zoom > 2 ? 64 : 48);
const FEW = 3; // … if no more than so many points lie in it
const NEAR = 12; // pixels from a point that count as on it

/* The colour of a share in [0, 1]: dark blue over red to yellow. */
function heat(share) {
  const s = Math.min(1, Math.max(0, share));
  return `hsl(${Math.round(250 + 170 * s) % 360} ${Math.round(60 + 35 * s)}% ${Math.round(28 + 34 * s)}%)`;
}

class ImageMap {
  /* data: count, x, y (any scale), columns {name: {codes: Uint16Array, names: [string], legend: [[code, colour]]}}, other
     (the colour of what is in no legend), plain (that of all, if nothing colours them), scores (Float32Array or null), thumb(i) giving {image, x, y, width, height} or null while it is not loaded; options: colourBy, and what is told of
     the pointer: picked(i), emptied(x, y), hovered(i, point), wandered(x, y, point), left(), i of an image, -1 for none, x and y
     of a place without one. */
  constructor(element, data, options) {
    this.data = data;
    this.options = options;
    this.hidden = new Set();
    this.marked = [];
    this.place();
    this.map = L.map(element, {
      crs: L.CRS.Simple, minZoom: -1, maxZoom: DEEPEST, zoomSnap: 0.5, attributionControl: false, wheelPxPerZoomLevel: 90,
      renderer: L.canvas(), // no SVG: its markup would come from nowhere else
    });
    this.bounds = L.latLngBounds([[-this.height, 0], [0, this.width]]);
    this.map.fitBounds(this.bounds.pad(0.02), { animate: false });
    this.layer = this.tiles();
    this.colourBy(options.colourBy);
    this.layer.addTo(this.map);
    this.rings = L.layerGroup().addTo(this.map);
    this.listen(element);
  }

  /* Fit coordinates into the world, and sort points into cells. */
  place() {
    const { x, y, count } = this.data;
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < count; i++) {
      left = Math.min(left, x[i]); right = Math.max(right, x[i]);
      low = Math.min(low, y[i]); high = Math.max(high, y[i]);
    }
    const scale = WORLD / (Math.max(right - left, high - low) || 1);
    this.origin = { left, high, scale };
    this.width = (right - left) * scale || 1;
    this.height = (high - low) * scale || 1;
    this.px = new Float32Array(count);
    this.py = new Float32Array(count); // downwards, as on the screen
    this.cell = WORLD / CELLS;
    const starts = new Uint32Array(CELLS * CELLS + 1);
    const of = new Uint32Array(count);
    for (let i = 0; i < count; i++) {
      this.px[i] = (x[i] - left) * scale;
      this.py[i] = (high - y[i]) * scale;
      of[i] = this.cellOf(this.px[i], this.py[i]);
      starts[of[i] + 1]++;
    }
    for (let c = 0; c < CELLS * CELLS; c++) starts[c + 1] += starts[c];
    this.starts = starts.slice();
    this.order = new Uint32Array(count);
    for (let i = 0; i < count; i++) this.order[starts[of[i]]++] = i;
  }

  /* Where a place on the map lies in the coordinates that were given. */
  original(latLng) {
    const { left, high, scale } = this.origin;
    return [left + latLng.lng / scale, high + latLng.lat / scale];
  }

  cellOf(x, y) {
    const clip = (v) => Math.min(CELLS - 1, Math.max(0, Math.floor(v / this.cell)));
    return clip(y) * CELLS + clip(x);
  }

  /* Every shown point in a rectangle of the world. */
  within(left, top, right, bottom, found) {
    const clip = (v) => Math.min(CELLS - 1, Math.max(0, Math.floor(v / this.cell)));
    for (let row = clip(top); row <= clip(bottom); row++) {
      const from = this.starts[row * CELLS + clip(left)], to = this.starts[row * CELLS + clip(right) + 1];
      for (let k = from; k < to; k++) {
        const i = this.order[k];
        if (this.px[i] >= left && this.px[i] <= right && this.py[i] >= top && this.py[i] <= bottom && this.isShown(i)) found(i);
      }
    }
  }

  isShown(i) {
    return !this.hidden.size || !this.column || !this.hidden.has(this.column.codes[i]);
  }

  /* ---- drawing */

  tiles() {
    const self = this;
    const Tiles = L.GridLayer.extend({
      createTile(at) {
        const tile = document.createElement("canvas");
        const size = this.getTileSize(), ratio = window.devicePixelRatio || 1;
        tile.width = size.x * ratio; tile.height = size.y * ratio;
        const pen = tile.getContext("2d");
        pen.scale(ratio, ratio);
        self.drawTile(pen, at, size.x);
        return tile;
      },
    });
    return new Tiles({ tileSize: 256, keepBuffer: 1, updateWhenZooming: false, minZoom: -1, maxNativeZoom: DEEPEST });
  }

  /* Points, and over them one image for each place of a grid in which few lie: the grid is that of the whole map, so that
     an image on the edge of two tiles is drawn alike in both. */
  drawTile(pen, at, size) {
    const scale = 2 ** at.z, left = at.x * size, top = at.y * size; // in pixels of this zoom
    const side = placeAt(at.z), seen = [];
    // An image lies around its point: all places whose images may reach into this tile, each as a whole, or tiles
    // would disagree on which image a place shows.
    const first = (from) => (Math.floor((from - side) / side) * side) / scale;
    const last = (from) => (Math.ceil((from + size + side) / side) * side) / scale;
    this.within(first(left), first(top), last(left), last(top), (i) => seen.push(i));
    const radius = Math.min(4, Math.max(1, 1.7 + at.z * 0.5 - Math.log10(this.data.count) * 0.25));
    const places = new Map();
    for (const i of seen) {
      const x = this.px[i] * scale, y = this.py[i] * scale;
      pen.fillStyle = this.colours[i];
      pen.fillRect(x - left - radius, y - top - radius, 2 * radius, 2 * radius);
      const key = `${Math.floor(x / side)} ${Math.floor(y / side)}`, held = places.get(key);
      if (held) held.count++; else places.set(key, { i, x: x - left, y: y - top, count: 1 });
    }
    for (const { i, x, y, count } of places.values()) {
      const thumb = count <= FEW ? this.data.thumb(i) : null;
      if (!thumb) continue;
      const grow = (side * 0.9) / Math.max(thumb.width, thumb.height), w = thumb.width * grow, h = thumb.height * grow;
      pen.fillStyle = this.colours[i]; // as a frame
      pen.fillRect(x - w / 2 - 2, y - h / 2 - 2, w + 4, h + 4);
      pen.imageSmoothingEnabled = grow < 2;
      pen.drawImage(thumb.image, thumb.x, thumb.y, thumb.width, thumb.height, x - w / 2, y - h / 2, w, h);
    }
  }

  redraw() {
    this.layer.redraw();
  }

  /* Colour by a column, or by "score"; gives what a legend shows: [{name, colour, count, code}]. */
  colourBy(name) {
    const { count, columns, scores } = this.data;
    this.hidden.clear();
    this.column = columns[name] || null;
    this.colours = new Array(count);
    let legend = [];
    if (this.column) {
      const { codes, names, legend: chosen } = this.column;
      const counts = new Uint32Array(names.length), colourOf = names.map(() => this.data.other);
      for (const [code, colour] of chosen) colourOf[code] = colour;
      for (let i = 0; i < count; i++) {
        counts[codes[i]]++;
        this.colours[i] = colourOf[codes[i]];
      }
      legend = chosen.map(([code, colour]) => ({ name: names[code], colour, count: counts[code], code }));
    } else if (name === "score" && scores) {
      const sorted = Float32Array.from(scores).sort();
      const low = sorted[Math.floor(count * 0.02)], high = sorted[Math.floor((count - 1) * 0.98)];
      for (let i = 0; i < count; i++) this.colours[i] = heat((scores[i] - low) / (high - low || 1));
      legend = [0, 0.5, 1].map((s) => ({ name: (low + s * (high - low)).toPrecision(3), colour: heat(s), code: null }));
    } else {
      this.colours.fill(this.data.plain);
    }
    this.redraw();
    return legend;
  }

  toggle(code) {
    if (!this.hidden.delete(code)) this.hidden.add(code);
    this.redraw();
    return !this.hidden.has(code);
  }

  /* ---- finding */

  latLng(i) {
    return L.latLng(-this.py[i], this.px[i]);
  }

  nearest(latLng) {
    const scale = 2 ** this.map.getZoom(), reach = (NEAR + (this.map.getZoom() > 3 ? 16 : 0)) / scale;
    const x = latLng.lng, y = -latLng.lat;
    let best = -1, least = Infinity;
    this.within(x - reach, y - reach, x + reach, y + reach, (i) => {
      const far = (this.px[i] - x) ** 2 + (this.py[i] - y) ** 2;
      if (far < least) { least = far; best = i; }
    });
    return best;
  }

  listen(element) {
    let last = -1;
    this.map.on("mousemove", (event) => {
      if (this.lasso) return;
      const i = this.nearest(event.latlng);
      if (i !== last) this.options.hovered?.(i, event.containerPoint);
      if (i < 0) this.options.wandered?.(...this.original(event.latlng), event.containerPoint);
      last = i;
    });
    this.map.on("mouseout movestart", () => { last = -1; this.options.hovered?.(-1); this.options.left?.(); });
    this.map.on("click", (event) => {
      if (this.lasso || this.drawn) return;
      const i = this.nearest(event.latlng);
      if (i >= 0) this.options.picked?.(i); else this.options.emptied?.(...this.original(event.latlng));
    });
    this.watch = new ResizeObserver(() => this.map.invalidateSize({ animate: false }));
    this.watch.observe(element);
  }

  /* Let go of all that it holds. */
  remove() {
    this.watch.disconnect();
    this.map.remove();
  }

  /* Ring some points. */
  mark(points) {
    this.rings.clearLayers();
    points.forEach((i, n) => L.circleMarker(this.latLng(i), {
      radius: n ? 8 : 12, color: "#d6336c", weight: n ? 2 : 3, fill: false, interactive: false,
    }).addTo(this.rings));
  }

  goTo(i) {
    this.map.setView(this.latLng(i), Math.max(this.map.getZoom(), 4));
  }

  /* ---- lasso: while it is on, dragging draws an outline; done(points) gets what lies in it */
  drawLasso(done) {
    const element = this.map.getContainer();
    const outline = [];
    const line = L.polyline([], { color: "#d6336c", weight: 2, interactive: false });
    const at = (event) => this.map.mouseEventToLatLng(event);
    const begin = (event) => {
      event.preventDefault();
      outline.length = 0;
      outline.push(at(event));
      line.setLatLngs(outline).addTo(this.map);
      element.setPointerCapture?.(event.pointerId);
    };
    const draw = (event) => {
      if (!outline.length) return;
      outline.push(at(event));
      line.setLatLngs(outline);
    };
    const end = () => {
      if (!outline.length) return;
      const points = this.inside(outline.map((p) => [p.lng, -p.lat]));
      this.endLasso();
      this.drawn = true; // the click that comes now is the end of the outline
      setTimeout(() => { this.drawn = false; }, 50);
      done(points);
    };
    const events = { pointerdown: begin, pointermove: draw, pointerup: end, pointercancel: () => this.endLasso() };
    this.endLasso();
    this.map.dragging.disable();
    element.classList.add("lasso");
    Object.entries(events).forEach(([name, work]) => element.addEventListener(name, work));
    this.lasso = () => {
      Object.entries(events).forEach(([name, work]) => element.removeEventListener(name, work));
      line.remove();
      element.classList.remove("lasso");
      this.map.dragging.enable();
    };
  }

  endLasso() {
    this.lasso?.();
    this.lasso = null;
  }

  /* Shown points inside a polygon, by the even-odd rule. */
  inside(polygon) {
    const xs = polygon.map((p) => p[0]), ys = polygon.map((p) => p[1]), found = [];
    this.within(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), (i) => {
      const x = this.px[i], y = this.py[i];
      let odd = false;
      for (let a = 0, b = polygon.length - 1; a < polygon.length; b = a++) {
        const [ax, ay] = polygon[a], [bx, by] = polygon[b];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
      }
      if (odd) found.push(i);
    });
    return found;
  }
}
