"use strict";
/* The views of `aesearch serve`: each gets its parameters and fills an element. */

const PAGE = 60, RATES = [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2];
const SCORES = ["combined", "nap", "reconstruction", "neighbours"], METHODS = ["umap", "tsne", "pca", "latent"];
const FRAMES = 33;

const VIEWS = {
  "": { title: "images", show: showImages },
  map: { title: "map", show: showMap },
  anomalies: { title: "anomalies", show: showAnomalies },
  clusters: { title: "clusters", show: showClusters },
  duplicates: { title: "duplicates", show: showDuplicates },
  between: { title: "between", show: showBetween },
  about: { title: "about", show: showAbout },
  image: { show: showImage },
};

/* ---- all images, or some */

async function showImages(root, given) {
  const chosen = chosenIn(given), rows = given.get("rows");
  let offset = Number(given.get("offset")) || 0;
  const list = make("div", {}), controls = make("div", { class: "controls" });
  const parameters = () => ({ ...chosen, rows, offset: offset || "" });
  let buttons = null; // of a selection, asked for once
  const show = () => fill(list, async () => {
    const wanted = rows ? { rows: unpackRows(rows) } : { where: conditions(chosen) };
    const found = await send("rows", { ...wanted, offset, limit: PAGE });
    const turn = (by) => {
      offset = Math.max(0, Math.min(offset + by, PAGE * Math.floor((found.total - 1) / PAGE)));
      amend("", parameters());
      show();
      view.scrollTop = 0;
    };
    const names = shortNames(found.rows);
    const last = Math.min(found.total, offset + PAGE), more = make("span", { class: "actions" });
    if (rows) (buttons ||= exportRows(wanted.rows)).then((made) => more.replaceChildren(...made), () => {});
    return [
      make("div", { class: "controls" }, make("span", { class: "told" },
        `${(found.total && offset + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${found.total.toLocaleString("en")} images`),
      make("button", { type: "button", disabled: offset === 0, onclick: () => turn(-PAGE) }, "previous"),
      make("button", { type: "button", disabled: last >= found.total, onclick: () => turn(PAGE) }, "next"), more),
      make("div", { class: "grid" }, ...found.rows.map((image) => tile(image, names[image.id], belonging(image)))),
    ];
  });
  root.append(make("h1", {}, rows ? "selected images" : "images"),
    make("p", { class: "told" }, "Click an image for its neighbours; drop, paste or choose one of your own."), controls, list);
  if (rows) controls.remove();
  else controls.append(...await filterBar(chosen, () => { offset = 0; amend("", parameters()); show(); }));
  await show();
}

/* A selection as names and CSV. */
async function exportRows(rows) {
  const table = [["row", "id", "label", "split", "cluster"]];
  for (let start = 0; start < rows.length; start += 1000) {
    const part = await send("rows", { rows: rows.slice(start, start + 1000), limit: 1000 });
    table.push(...part.rows.map((image) => table[0].map((name) => image[name])));
  }
  return exports(table.slice(1).map((line) => line[1]), table, (said) => tell(said));
}

/* 1,2,3,7 as 1-3,7, and back: an address holds a selection. */
function packRows(rows) {
  const sorted = [...rows].sort((a, b) => a - b), parts = [];
  for (let i = 0; i < sorted.length;) {
    let end = i;
    while (sorted[end + 1] === sorted[end] + 1) end++;
    parts.push(end > i ? `${sorted[i]}-${sorted[end]}` : `${sorted[i]}`);
    i = end + 1;
  }
  return parts.join(",");
}

function unpackRows(text) {
  const rows = [];
  for (const part of text.split(",")) {
    const [first, last] = part.split("-").map(Number);
    for (let row = first; row <= (last ?? first) && rows.length < 200000; row++) rows.push(row);
  }
  return rows;
}

/* ---- one image: what it is, what the network makes of it, what is near */

async function showImage(root, given) {
  const row = given.get("row"), upload = given.get("upload");
  const chosen = chosenIn(given);
  let k = Math.max(1, Number(given.get("k")) || 20);
  const own = upload ? uploaded(upload) : null;
  const aside = make("aside", {}), near = make("div", {});
  const controls = make("div", { class: "controls" });
  const parameters = () => ({ row, upload, ...chosen, k: k === 20 ? "" : k });
  const show = () => fill(near, async () => {
    const query = new URLSearchParams({ k });
    conditions(chosen).forEach((condition) => query.append("where", condition));
    if (!own) query.set("row", row);
    const found = own ? await sendImage(`query?${query}`, own.file) : await ask(`query?${query}`);
    const { hits } = found.queries[0], names = shortNames(hits);
    return make("div", { class: "grid" }, ...hits.map((hit) =>
      tile(hit, `${hit.rank}.  ${hit.distance.toFixed(4)}`, belonging(hit), names[hit.id])));
  });
  const moved = later(() => { amend("image", parameters()); show(); });
  const number = make("output", {}, String(k));
  const slider = make("input", { type: "range", min: 1, max: 100, value: k,
    oninput: () => { k = Number(slider.value); number.textContent = k; moved(); } });
  root.append(make("div", { class: "split" }, aside, make("section", {}, make("h2", {}, "nearest neighbours"), controls, near)));
  const [bar] = await Promise.all([filterBar(chosen, moved), show(), describeImage(aside, row, upload, own)]);
  controls.append(make("label", {}, "how many", slider, number), ...bar);
}

async function describeImage(aside, row, upload, own) {
  const image = own ? { id: own.file.name || "your image" } : (await send("rows", { rows: [Number(row)] })).rows[0];
  const shown = picture(own ? own.url : pictureOf(row), image.id, { class: "picture query", loading: "eager" });
  const facts = Object.entries({ row: own ? "" : row, label: image.label, cluster: image.cluster, split: image.split }).filter((f) => f[1]);
  const three = make("div", { class: "three" });
  const cut = !own && (await info()).artifacts.features.source.tiles;
  const whole = cut ? [picture(pictureOf(row, "/place"), "where it lies in its picture", { class: "picture", loading: "eager" })] : [];
  aside.append(make("h1", {}, image.id), shown, ...whole,
    make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    make("p", { class: "actions" }, make("a", { href: address("between", { from: row, upload }) }, "from this one to another")), three);
  await fill(three, async () => {
    const made = own ? await sendImage("reconstruct", own.file) : await ask(`reconstruct/${row}`);
    shown.addEventListener("error", () => { shown.src = made.original; }, { once: true }); // the browser cannot show such files
    if (shown.complete && !shown.naturalWidth) shown.src = made.original;
    const parts = [["original", "as the encoder sees it"], ["rebuilt", "as the decoder rebuilds it"], ["difference", `where it errs; brightest: ${made.brightest.toPrecision(2)} or more`]];
    return parts.map(([name, told]) => make("div", {}, picture(made[name], name, { class: "picture", loading: "eager" }), told));
  });
}

/* ---- the map */

async function showMap(root, given) {
  const made = (await info()).artifacts;
  const known = METHODS.filter((method) => made[`map-${method}`]);
  const method = given.get("method") || known[0] || "umap";
  const data = await ask(`map?${new URLSearchParams({ method })}`);
  if (!root.isConnected) return;
  const byRow = new Map();
  const shown = new MapView(root, data, {
    async neighbours(i) {
      const found = await ask(`query?${new URLSearchParams({ row: shown.rows[i], k: 12 })}`);
      return found.queries[0].hits.map((hit) => byRow.get(hit.row)).filter((j) => j !== undefined);
    },
    async imagine(x, y) {
      const found = await ask(`map/imagine?${new URLSearchParams({ method, x, y })}`);
      return { picture: picture(found.picture, "what the decoder imagines here", { class: "picture", loading: "eager" }),
        points: found.rows.map((row) => byRow.get(row)).filter((j) => j !== undefined) };
    },
    actions(points) {
      if (points.length === 1) return [make("a", { href: address("image", { row: shown.rows[points[0]] }) }, "all about it")];
      return [make("a", { href: address("", { rows: packRows(points.map((i) => shown.rows[i])) }) }, "as a list")];
    },
    coloured: (colour) => amend("map", { method, colour }),
    failed: failure,
  });
  shown.rows.forEach((row, i) => byRow.set(row, i));
  if (given.get("colour")) shown.colourBy(given.get("colour"));
  const choice = make("select", { onchange: () => go("map", { method: choice.value, colour: shown.choice.value }) },
    ...known.map((name) => make("option", { value: name }, name)));
  choice.value = method;
  root.querySelector(".bar").prepend(make("label", {}, "map by ", choice));
  window.imageMap = shown.map;
}

/* ---- anomalies */

async function showAnomalies(root, given) {
  const made = (await info()).artifacts;
  let score = given.get("score") || (made.combined ? "combined" : "reconstruction");
  let rate = Number(given.get("rate")) || 0, top = Number(given.get("top")) || PAGE;
  const told = make("p", { class: "told", role: "status" }), list = make("div", {});
  const choice = make("select", { onchange: () => { score = choice.value; changed(); } },
    ...SCORES.map((name) => make("option", { value: name }, name)));
  choice.value = score;
  const slider = make("input", { type: "range", min: 0, max: RATES.length - 1, step: 1, "aria-label": "expected false alarms",
    value: Math.max(0, RATES.indexOf(rate)), oninput: () => { rate = RATES[slider.value]; number.textContent = asked(); later_(); } });
  const asked = () => (rate ? `${(100 * rate).toLocaleString("en")} %` : "no threshold");
  const number = make("output", {}, asked());
  const changed = () => { amend("anomalies", { score, rate: rate || "", top: top === PAGE ? "" : top }); show(); };
  const later_ = later(changed);
  const show = () => fill(list, async (current) => {
    const query = new URLSearchParams({ score, top });
    if (rate) query.set("false_alarms", rate);
    told.textContent = "";
    const found = await ask(`anomalies?${query}`), alarms = found.false_alarms;
    if (!current()) return [];
    told.textContent = alarms
      ? `threshold ${alarms.threshold.toPrecision(4)}: ${(100 * alarms.asked).toLocaleString("en")} % of normal images are expected above it, ` +
        `${(100 * alarms.measured).toFixed(2)} % of ${alarms.learned_from.toLocaleString("en")} were, in 10-fold cross-validation; ` +
        `${alarms.flagged.toLocaleString("en")} of ${found.scored.toLocaleString("en")} images lie above; ` +
        `p ${chance(alarms.least_p_value, alarms.least_p_value)}: odder than all ${alarms.learned_from.toLocaleString("en")} it was learned from`
      : `${found.scored.toLocaleString("en")} images ranked; the slider sets a threshold by the share of normal images that exceed it`;
    const names = Object.keys(found.anomalies[0] || { rank: 0 }), shown = shortNames(found.anomalies);
    const table = [names, ...found.anomalies.map((one) => names.map((name) => one[name]))];
    const more = found.anomalies.length === top && top < 1000
      ? make("button", { type: "button", onclick: () => { top = Math.min(1000, 2 * top); changed(); } }, "more") : null;
    return [
      make("div", { class: "controls" }, ...exports(found.anomalies.map((one) => one.id), table, (said) => tell(said))),
      make("div", { class: "grid wide" }, ...found.anomalies.map((one) => make("a", { class: "tile", href: address("image", { row: one.row }), title: one.id },
        make("div", { class: "pair" }, picture(pictureOf(one.row), one.id), picture(pictureOf(one.row, "/heat"), "heat-map", { title: "heat-map; one scale for all: 1 in 200 pixels of the collection has the brightest colour" })),
        line(`${one.rank}.  ${one.score.toFixed(4)}${one.p_value === undefined ? "" : `  p ${chance(one.p_value, alarms.least_p_value)}`}`),
        ...[one.why, one.label, shown[one.id]].filter(Boolean).map((text) => line(text, "faint"))))),
      make("p", {}, more || ""),
    ];
  });
  root.append(make("h1", {}, "the oddest images"), make("div", { class: "controls" }, make("label", {}, "score ", choice),
    make("label", {}, "false alarms", slider, number)), told, list);
  await show();
}

/* A p-value in two digits; the least one that so few images can tell, rounded up, as a bound. */
function chance(value, least) {
  if (value > least * (1 + 1e-9)) return Number(value.toPrecision(2));
  const unit = 10 ** (Math.floor(Math.log10(value)) - 1);
  return `≤ ${Number((Math.ceil((value / unit) * (1 - 1e-9)) * unit).toPrecision(2))}`;
}

/* ---- clusters */

async function showClusters(root) {
  const list = make("div", {});
  root.append(make("h1", {}, "clusters"), list);
  await fill(list, async () => {
    const found = await ask("clusters");
    found.version = server.version;
    const facts = [`${found.clusters} by ${found.method} on ${found.space}`,
      found.silhouette != null && `silhouette ${found.silhouette.toFixed(3)}`,
      found.stability != null && `stability over resamples ${found.stability.toFixed(3)}`,
      found.noise && `${found.noise.toLocaleString("en")} in none`,
      ...Object.entries(found.against_labels || {}).map(([name, value]) => `${name} ${value.toFixed(3)}`)].filter(Boolean);
    return [make("p", { class: "told" }, facts.join(" · ")),
      found.unclear ? make("p", { class: "lacks" }, "No clear structure: another sample of these images would be grouped differently.") : null,
      ...found.sizes.map((size, number) => cluster(found, number, size))];
  });
}

function cluster(found, number, size) {
  const own = () => (found.names[number] === String(number) ? "" : found.names[number]);
  const name = make("input", { value: own(), maxlength: 100, placeholder: `cluster ${number}`, title: "give it a name", "aria-label": `name of cluster ${number}` });
  const all = make("a", { href: address("", { cluster: found.names[number] }) }, "all of them");
  let keeping = false; // Enter changes, and submits
  const keep = async (event) => {
    event.preventDefault();
    if (keeping || name.value.trim() === own()) return;
    keeping = true;
    try {
      const query = new URLSearchParams({ version: found.version }); // of other clusters, it would be another's name
      found.names = (await send(`clusters/${number}/name?${query}`, { name: name.value }, "PUT")).names;
      found.version = server.version;
      hush(); // the change is our own
    } catch (error) {
      if (error instanceof Refusal) tell(error.message, again("reload"));
      else failure(error);
    }
    keeping = false;
    name.value = own();
    all.href = address("", { cluster: found.names[number] });
  };
  name.addEventListener("change", keep);
  const centre = picture(`/api/clusters/${number}/centre?version=${server.version}`, `decoded centre of cluster ${number}`, { class: "picture" });
  return make("section", { class: "cluster" },
    make("header", {}, make("form", { onsubmit: keep }, name), make("span", { class: "told" }, `${size.toLocaleString("en")} images`), all),
    make("div", { class: "row", tabindex: 0, role: "group", "aria-label": `images nearest to the centre of cluster ${number}` },
      make("figure", { title: "what the decoder makes of the centre" }, centre),
      ...found.nearest[number].map((row) => make("a", { class: "tile", href: address("image", { row }) }, picture(pictureOf(row), `row ${row}`)))));
}

/* ---- duplicates */

async function showDuplicates(root, given) {
  let threshold = given.get("threshold") || "", shown = PAGE;
  const list = make("div", {}), told = make("p", { class: "told", role: "status" });
  const box = make("input", { type: "number", min: 0, step: "any", value: threshold, placeholder: "auto",
    onchange: () => { threshold = box.value; amend("duplicates", { threshold }); show(); } });
  const show = () => fill(list, async (current) => {
    told.textContent = "comparing all images; the first time this can take a while …";
    const found = await ask(`duplicates${threshold ? `?${new URLSearchParams({ threshold })}` : ""}`)
      .catch((error) => { if (current()) told.textContent = ""; throw error; });
    if (!current()) return [];
    const images = found.groups.reduce((sum, group) => sum + group.length, 0);
    told.textContent = `${found.groups.length.toLocaleString("en")} groups of ${images.toLocaleString("en")} images within ${found.metric} ` +
      `${found.threshold.toPrecision(3)}; ${found.exact.filter(Boolean).length.toLocaleString("en")} are exact copies`;
    if (found.rejected) told.textContent += `; ${found.rejected.toLocaleString("en")} more pairs with features as near were left out, as their pixels differ`;
    const kind = (n) => found.exact[n] ? "exact" : found.pixel_distances[n] === null ? "near" : `near, pixels ${found.pixel_distances[n].toFixed(2)}`;
    const table = [["group", "copies", "row", "id"], ...found.groups.flatMap((group, n) => group.map((one) => [n + 1, kind(n), one.row, one.id]))];
    const groups = make("div", { class: "groups" }), more = make("p", {});
    const extend = () => {
      const from = groups.children.length;
      groups.append(...found.groups.slice(from, shown).map((group, n) => [group, n, shortNames(group.slice(0, 10))]).map(([group, n, names]) => make("section", {},
        make("h2", {}, kind(from + n), group.length > 10 ? `, ${group.length} images` : ""),
        make("div", { class: "row", tabindex: 0, role: "group", "aria-label": `group ${from + n + 1}` }, ...group.slice(0, 10).map((one) => tile(one, names[one.id]))))));
      more.replaceChildren(...(found.groups.length > shown ? [make("button", { type: "button", onclick: () => { shown += PAGE; extend(); } }, "more")] : []));
    };
    extend();
    return [make("div", { class: "controls" }, ...exports(table.slice(1).map((line) => line[3]), table, (said) => tell(said))), groups, more];
  });
  root.append(make("h1", {}, "duplicates and near-duplicates"),
    make("div", { class: "controls" }, make("label", {}, "largest distance", box)), told, list);
  await show();
}

/* ---- from one image to another */

async function showBetween(root, given) {
  const { rows } = await info();
  if (!root.isConnected) return;
  const some = () => Math.floor(Math.random() * rows);
  const upload = given.get("upload"), from = given.get("from") ?? (upload ? null : String(some())), to = given.get("to") ?? String(some());
  amend("between", { from, upload, to });
  const own = upload ? uploaded(upload) : null;
  const side = (name, row) => make("div", {}, picture(row === null ? own.url : pictureOf(row), row === null ? own.file.name : `row ${row}`, { class: "picture", loading: "eager" }),
    row === null ? "your image" : make("label", {}, "row ", make("input", { type: "number", min: 0, max: rows - 1, value: row, "aria-label": `${name} row`,
      onchange: (event) => go("between", { from, upload, to, [name]: event.currentTarget.value }) })));
  const canvas = make("canvas", { role: "img", "aria-label": "the decoded path", width: 64, height: 64 });
  const film = make("canvas", { class: "film pixels", "aria-hidden": "true", width: 64, height: 8 });
  const slider = make("input", { type: "range", min: 0, max: FRAMES - 1, value: 0, step: 1, "aria-label": "how far along the path" });
  const place = make("div", {});
  root.append(make("h1", {}, "from one image to another"),
    make("p", { class: "told" }, "The straight path between two images in the latent space, decoded: drag across the picture in the middle."),
    make("div", { class: "controls" }, make("button", { type: "button", onclick: () => go("between", { from: some(), to: some() }) }, "another pair"),
      make("button", { type: "button", onclick: () => play() }, "play"), make("button", { type: "button", onclick: () => go("between", { from: to, to: from ?? some() }) }, "swap")),
    place);
  let strip = null, playing = 0;
  const draw = () => {
    if (!strip) return;
    const width = strip.width / FRAMES;
    canvas.width = width; canvas.height = strip.height;
    canvas.getContext("2d").drawImage(strip, slider.value * width, 0, width, strip.height, 0, 0, width, strip.height);
    canvas.classList.toggle("pixels", Math.max(width, strip.height) <= 96);
  };
  const play = () => {
    clearInterval(playing);
    slider.value = 0;
    playing = setInterval(() => {
      if (!canvas.isConnected || Number(slider.value) >= FRAMES - 1) return clearInterval(playing);
      slider.value = Number(slider.value) + 1;
      draw();
    }, 60);
  };
  slider.addEventListener("input", draw);
  const follow = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = canvas.getBoundingClientRect();
    slider.value = Math.round(((event.clientX - box.left) / box.width) * (FRAMES - 1));
    draw();
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); follow(event); });
  for (const kind of ["pointermove", "pointerup"]) canvas.addEventListener(kind, follow);
  await fill(place, async () => {
    const latentOf = async (row) => (row === null ? await sendImage("latents", own.file) : await ask(`latents/${row}`)).latent;
    const [start, end] = await Promise.all([latentOf(from), latentOf(to)]);
    const latents = Array.from({ length: FRAMES }, (_, n) => start.map((value, i) => Number((value + (end[i] - value) * (n / (FRAMES - 1))).toPrecision(7))));
    strip = await createImageBitmap(await send("decode", { latents }));
    slider.value = (FRAMES - 1) / 2;
    draw();
    const width = strip.width / FRAMES, shown = 9;
    film.width = width * shown; film.height = strip.height;
    for (let n = 0; n < shown; n++) film.getContext("2d").drawImage(strip, Math.round((n * (FRAMES - 1)) / (shown - 1)) * width, 0, width, strip.height, n * width, 0, width, strip.height);
    return [make("div", { class: "between" }, side("from", from), make("div", {}, canvas, slider), side("to", to)), film];
  });
}

/* ---- about the collection */

async function showAbout(root) {
  const told = await info();
  const number = (value) => (typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value);
  const plain = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(number(value)));
  const table = (facts) => make("table", {}, make("tbody", {}, ...facts.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value)))));
  const free = (found) => make("table", { class: "free" }, make("thead", {}, make("tr", {}, ...["on a sample, beside untrained baselines", "linear probe", "10 nearest"].map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...Object.entries(found).map(([name, of]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, of.linear_accuracy.toFixed(3)), make("td", {}, of.knn_accuracy.toFixed(3))))));
  root.append(make("h1", {}, told.name), table([["images", told.rows.toLocaleString("en")], ["source", told.source], ["features per image", told.dim], ["network", told.arch]]),
    ...Object.entries(told.artifacts).flatMap(([name, artifact]) => [make("h2", {}, name),
      table([["made", artifact.time], ...Object.entries(artifact.figures).filter(([key]) => key !== "free").map(([key, value]) => [key.replaceAll("_", " "), plain(value).slice(0, 200)])]),
      ...(Object.keys(artifact.figures.free || {}).length ? [free(artifact.figures.free)] : [])]),
    make("h2", {}, "for other programs"), make("p", {}, "The same answers as JSON: ", make("a", { href: "/api/openapi.json" }, "/api/openapi.json"), " describes them."),
    make("p", {}, "A page to send to a colleague: ", make("code", {}, told.report)));
}

/* ---- which of them */

let turn = 0;
const tops = new Map(); // how far a view was scrolled when it was left, by address
async function render(moved = false) {
  const { name, given } = where(), mine = ++turn;
  const chosen = VIEWS[name] || VIEWS[""];
  leaving.abort();
  leaving = new AbortController();
  pending.forEach(clearTimeout);
  pending.clear();
  document.querySelectorAll("nav a").forEach((link) => {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  });
  const root = make("div", { class: "root" });
  view.setAttribute("aria-busy", "true");
  try {
    const told = await info();
    if (mine !== turn) return;
    document.title = `${chosen.title ? `${chosen.title} · ` : ""}${told.name}`;
    document.querySelector(".name").textContent = told.name;
    open(root, name);
    await chosen.show(root, given);
    if (mine !== turn) return;
    view.scrollTop = tops.get(location.hash) || 0;
  } catch (error) {
    if (mine !== turn) return;
    root.replaceChildren(make("h1", {}, chosen.title || "image"), ...failure(error));
    open(root, "");
  } finally {
    if (mine === turn) {
      view.setAttribute("aria-busy", "false");
      if (moved && document.activeElement === document.body) view.focus({ preventScroll: true });
    }
  }
}

/* Put a view in place of the one before. */
function open(root, name) {
  window.imageMap?.remove();
  window.imageMap = null;
  view.classList.toggle("whole", name === "map");
  view.replaceChildren(root);
  view.scrollTop = 0;
}

document.querySelector("nav").append(...Object.entries(VIEWS).filter(([, one]) => one.title)
  .map(([name, one]) => make("a", { href: address(name), "data-view": name }, one.title)));
view.addEventListener("scroll", () => { tops.set(location.hash, view.scrollTop); }, { passive: true });
addEventListener("hashchange", () => { hush(); render(true); });
render();
