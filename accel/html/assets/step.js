/* The page: what its sections show of the data block. docs/report.md describes the block. */

const DATA = JSON.parse(byId("data").textContent);
const STAGES = ["FF", "BP", "WU", "OPT", "VECTOR"];
const CAUSES = ["useful", "padding", "drain", "fill", "dram", "vector", "update"];
const FORMS = { FF: "circle", BP: "square", WU: "triangle", VECTOR: "diamond" };
const RUN = DATA.run;
const DENSE = DATA.dense;
const PAIR = DENSE ? [RUN, DENSE] : [RUN];

const bytes = (amount) => scaled(amount, "B");
const cycles = (amount) => `${whole(amount)} (${time(amount / RUN.clock_hz)})`;
const times = (factor) => (factor === null ? "–" : `${factor.toFixed(3)}×`);
const ofStep = (run, amount) => percent(run.totals.cycles ? amount / run.totals.cycles : 0);

function records({ columns, lines }) {
  return lines.map((line, order) => Object.fromEntries([["order", order], ...columns.map((name, index) => [name, line[index]])]));
}

for (const run of PAIR) run.records = records(run.rows);

/* Head and totals */

function drawHead() {
  const { totals } = RUN;
  const than = DENSE ? `, ${times(totals.speedup_over_dense)} as fast as dense (${time(DENSE.totals.seconds)})` : "";
  byId("headline").textContent = `One training step takes ${time(totals.seconds)}${than}; `
    + `the PEs multiply nonzeros ${percent(totals.utilization_frac)} of the time.`;
  const free = RUN.free_layers.length ? `; not lowered, counted as free: ${RUN.free_layers.join(", ")}` : "";
  const pruned = RUN.pregenerate ? "written by the update" : "pruned on every load";
  const compact = DENSE ? `, compact weights ${pruned}` : "";
  byId("asked").textContent = `Batch ${whole(RUN.batch)}, optimizer ${RUN.optimizer}${compact}; clock ${scaled(RUN.clock_hz, "Hz")}${free}.`;
}

function drawCards() {
  const { totals, footprint } = RUN;
  const held = Object.entries(footprint).map(([name, size]) => `${name.replace("_bytes", "")} ${bytes(size)}`).join(", ");
  const cards = [
    ["cycles", scaled(totals.cycles, "cycles"), `${whole(totals.cycles)}; lower bound ${whole(totals.bound_cycles)}`],
    ["time of a step", time(totals.seconds), `at ${scaled(RUN.clock_hz, "Hz")}`],
    ["speedup over dense", times(totals.speedup_over_dense),
      `MACs alone ${times(totals.mac_cap)}; all products at their lower bounds ${times(totals.bound_speedup)}`],
    ["PEs busy with nonzeros", percent(totals.utilization_frac), DENSE ? `dense: ${percent(DENSE.totals.utilization_frac)}` : ""],
    ["MACs, nominal", scaled(totals.macs_nominal, ""), "as frameworks count them, padding included"],
    ["MACs, dense", scaled(totals.macs_dense, ""), "of the products as run, zeros included"],
    ["MACs, useful", scaled(totals.macs_useful, ""), `nonzeros only; ${percent(totals.mac_saving_frac)} of the nominal are saved`],
    ["DRAM traffic", bytes(totals.dram_bytes), DENSE ? `dense: ${bytes(DENSE.totals.dram_bytes)}` : ""],
    ["peak memory", bytes(totals.dram_peak_bytes), held],
  ];
  if (RUN.energy) {
    const { energy_joules: joules, average_power_watts: watts, energy_gain_over_dense: gain } = RUN.energy.totals;
    cards.push(["energy of a step", scaled(joules, "J"), `${scaled(watts, "W")} on average; dense takes ${times(gain)} the energy`]);
  }
  byId("cards").append(...cards.map(([name, value, more]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value), element("dd", { class: "more" }, more))));
}

/* Stages and stalls */

const entries = (keys) => keys.map((key) => ({ key, text: key }));

function stageSegments(run) {
  return STAGES.map((stage) => ({
    key: stage, value: run.stages[stage].cycles,
    tip: () => ({
      title: `${stage}, ${run.label}`,
      lines: [["cycles", cycles(run.stages[stage].cycles)], ["of the step", ofStep(run, run.stages[stage].cycles)]],
    }),
  }));
}

function stepBar(run) {
  return { label: run.label, segments: stageSegments(run), end: time(run.totals.seconds) };
}

function drawStages() {
  const figure = byId("stage-chart");
  interactive(figure, "Cycles of the step by stage");
  barChart(figure, [{ name: "", bars: PAIR.map(stepBar) }], entries(STAGES));
}

function stallSegments(run, name, part) {
  return CAUSES.map((cause) => {
    const value = cause === "useful" ? part.useful_cycles : part.losses[cause];
    const share = part.cycles ? percent(value / part.cycles) : "0%";
    return {
      key: cause, value,
      tip: () => ({
        title: `${name}, ${run.label}: ${cause === "useful" ? "useful" : `lost to ${cause}`}`,
        lines: [["cycles", cycles(value)], ["of the stage", share], ["of the step", ofStep(run, value)]],
      }),
    };
  });
}

const parts = (run) => [...STAGES.map((stage) => [stage, run.stages[stage]]), ["total", run.all_stages]];

function stallBar(run, name, part, shown) {
  const segments = stallSegments(run, name, part).filter((segment) => shown.includes(segment.key));
  return { label: run.label, segments, end: scaled(positive(segments), "") };
}

function redrawStalls() {
  const shown = byId("only-lost").checked ? CAUSES.slice(1) : CAUSES;
  const bars = PAIR.map((run) => parts(run).map(([name, part]) => stallBar(run, name, part, shown)));
  const groups = parts(RUN).map(([name], index) => ({ name, bars: bars.map((list) => list[index]) }));
  barChart(byId("stall-chart"), groups, entries(shown));
}

function drawStalls() {
  const box = element("input", { type: "checkbox", id: "only-lost" });
  box.addEventListener("change", redrawStalls);
  byId("stall-controls").append(element("label", {}, box, "lost cycles only, enlarged"));
  interactive(byId("stall-chart"), "Cycles of every stage by cause");
  redrawStalls();
  drawStallTable();
  drawLosses();
}

function drawStallTable() {
  const cells = parts(RUN).map(([name, part]) => [
    name, ...[part.cycles, part.useful_cycles, ...CAUSES.slice(1).map((cause) => part.losses[cause])].map(whole), ofStep(RUN, part.cycles),
    ...(DENSE ? [whole((name === "total" ? DENSE.all_stages : DENSE.stages[name]).cycles), times(RUN.stage_speedups[name])] : []),
  ]);
  const heads = ["stage", "cycles", ...CAUSES, "of the step"];
  plainTable(byId("stall-table"), `${RUN.label}, cycles: useful ones, and those lost to each cause`, [...heads, ...(DENSE ? ["dense cycles", "speedup"] : [])], cells);
}

function drawLosses() {
  const shown = DATA.speedup_losses.filter(([, , points]) => Math.abs(points) >= 0.0005);
  if (!DENSE || !shown.length) return;
  const names = { counting: "taps and ragged groups that frameworks do not count" };
  const cells = shown.sort((one, other) => other[2] - one[2])
    .map(([stage, cause, points]) => [names[cause] || `${stage} ${cause}`, points.toFixed(3)]);
  const table = element("table", { class: "narrow" });
  const title = `From the ${times(RUN.totals.mac_cap)} that the MACs alone would allow to ${times(RUN.totals.speedup_over_dense)}`;
  plainTable(table, `${title}: points of speedup lost`, ["stage and cause", "points"], cells);
  byId("losses").append(element("div", { class: "scroll" }, table));
}

/* A small table: the first column names its line, the others are numbers. */
function plainTable(table, caption, heads, lines, current = -1) {
  const head = heads.map((name, index) => element("th", { scope: "col", class: index ? "number" : null }, name));
  const body = lines.map((line, order) => element("tr", { class: order === current ? "this" : null }, ...line.map((text, index) =>
    (index ? element("td", { class: "number" }, text) : element("th", { scope: "row" }, text)))));
  table.replaceChildren(element("caption", {}, caption), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
}

/* Timeline */

const LINES = DATA.timeline;
const VIEW = { from: 0, to: 1 };
const SHORTEST_VIEW = 1000;

function laneItem(engine, [start, length, busy, site, instructions]) {
  const [layer, stage, part] = LINES.sites[site];
  const share = length ? busy / length : 1;
  return {
    start, cycles: length, share, key: stage,
    tip: () => ({
      title: [engine + ":", stage, layer, part].filter(Boolean).join(" "),
      lines: [
        ["from", cycles(start)], ["lasts", cycles(length)], ["at work", `${whole(busy)} cycles, ${percent(share)}`],
        ["instructions", whole(instructions)],
      ],
    }),
  };
}

function laneViews() {
  const used = Object.entries(LINES.lanes).filter(([, items]) => items.length);
  return used.map(([name, items]) => ({ name, items: items.map((item) => laneItem(name, item)) }));
}

function redrawTimeline() {
  const most = DATA.roofs.dram_bytes_per_cycle;
  const profiles = [
    { name: "PEs", key: "", values: LINES.pe_shares },
    { name: "DRAM port", key: "port", values: LINES.bytes_per_cycle.map((value) => value / most) },
  ];
  const stages = ["FF", "BP", "WU", "OPT"].filter((stage) => LINES.sites.some(([, other]) => other === stage));
  laneChart(byId("timeline-chart"), LINES.views, profiles, LINES.edges, VIEW, entries(stages));
  byId("timeline-range").textContent = `cycles ${whole(VIEW.from)} to ${whole(VIEW.to)} of ${whole(LINES.cycles)}, `
    + `${whole(byId("timeline-chart").marks.length)} marks of ${whole(LINES.instructions)} instructions`;
  const isWhole = VIEW.to - VIEW.from >= LINES.cycles;
  for (const id of ["earlier", "later", "out", "whole"]) byId(`timeline-${id}`).disabled = isWhole;
}

/* Show `length` cycles around `middle`, or as near to that as the step allows. */
function viewAround(middle, length) {
  const shown = Math.min(Math.max(length, Math.min(SHORTEST_VIEW, LINES.cycles)), LINES.cycles);
  VIEW.from = Math.round(Math.min(Math.max(middle - shown / 2, 0), LINES.cycles - shown));
  VIEW.to = Math.round(VIEW.from + shown);
  hideTip();
  redrawTimeline();
}

function moveView(shift, scale) {
  const length = VIEW.to - VIEW.from;
  viewAround((VIEW.from + VIEW.to) / 2 + shift * length, length * scale);
}

const MOVES = [
  ["in", "Zoom in", 0, 1 / 4], ["out", "Zoom out", 0, 4], ["earlier", "Earlier", -3 / 4, 1], ["later", "Later", 3 / 4, 1],
  ["whole", "Whole step", 0, Infinity],
];

/* A double click zooms in where it is; drawing with the mouse along the lanes shows what was drawn over. */
function zoomByPointer(figure) {
  let begun = null;
  const cycleOf = (event) => {
    const box = figure.querySelector("svg.lanes").getBoundingClientRect();
    return Math.min(Math.max(cycleAt(VIEW, (event.clientX - box.left) / box.width * WIDTH), VIEW.from), VIEW.to);
  };
  figure.addEventListener("dblclick", (event) => viewAround(cycleOf(event), (VIEW.to - VIEW.from) / 4));
  figure.addEventListener("pointerdown", (event) => { begun = event.pointerType === "mouse" ? event : null; });
  figure.addEventListener("pointerup", (event) => {
    if (begun && Math.abs(event.clientX - begun.clientX) > 8) {
      const [one, other] = [cycleOf(begun), cycleOf(event)];
      viewAround((one + other) / 2, Math.abs(other - one));
    }
    begun = null;
  });
}

function drawTimeline() {
  byId("timeline-none").hidden = Boolean(LINES);
  byId("timeline-shown").hidden = !LINES;
  if (!LINES) return;
  LINES.views = laneViews();
  const buttons = MOVES.map(([id, text, shift, scale]) => {
    const button = element("button", { type: "button", id: `timeline-${id}` }, text);
    button.addEventListener("click", () => moveView(shift, scale));
    return button;
  });
  byId("timeline-controls").append(...buttons, element("output", { id: "timeline-range" }));
  interactive(byId("timeline-chart"), "What each engine does when");
  zoomByPointer(byId("timeline-chart"));
  viewAround(0, LINES.cycles);
  drawWaits();
}

function drawWaits() {
  const waited = (stage, engine) => LINES.waits[stage]?.[engine] || 0;
  const stages = STAGES.filter((stage) => LINES.waits[stage]);
  const sum = (list) => list.reduce((total, value) => total + value, 0);
  const engines = Object.keys(LINES.lanes).filter((engine) => engine !== "COMPUTE" || stages.some((stage) => waited(stage, engine)));
  const lines = [...stages.map((stage) => [stage, ...engines.map((engine) => waited(stage, engine))]),
    ["total", ...engines.map((engine) => sum(stages.map((stage) => waited(stage, engine))))]];
  plainTable(byId("wait-table"), "Cycles that the array waited for each engine, by the stage that it then went on with",
    ["stage", ...engines, "all", "of the step"],
    lines.map(([name, ...values]) => [name, ...values.map(whole), whole(sum(values)), ofStep(RUN, sum(values))]));
}

/* Layers */

function rowLines(row) {
  const product = row.m === null ? [] : [
    ["product", `m ${whole(row.m)}, n ${whole(row.n)}, k ${whole(row.k)}${row.count > 1 ? `, ${whole(row.count)} times` : ""}`],
    ["pattern", row.pattern], ["dataflow", row.dataflow], ["mapping", row.mapping || "none"],
  ];
  const lost = Object.entries(row.losses).map(([cause, amount]) => `${cause} ${whole(amount)}`).join(", ");
  return [
    ...product, ["cycles", `${cycles(row.cycles)}, ${percent(row.share_frac)} of the step`],
    ...(row.busy_cycles === row.cycles ? [] : [["busy", cycles(row.busy_cycles)]]),
    ...(row.engine === "array" ? [["useful", percent(row.utilization_frac)]] : []),
    ...(lost ? [["lost cycles", lost]] : []), ["DRAM", bytes(row.dram_bytes)], ["bound", row.bound],
  ];
}

function shortLine(row) {
  const product = row.m === null ? "" : `${row.m}×${row.n}×${row.k}${row.count > 1 ? ` ×${row.count}` : ""}, ${row.pattern}, ${row.dataflow}, `;
  const useful = row.engine === "array" ? `${percent(row.utilization_frac)} useful, ` : "";
  return `${product}${whole(row.cycles)} cycles, ${useful}bound: ${row.bound}`;
}

function layerTip(run, name, stage, total) {
  const rows = run.records.filter((row) => row.name === name && row.group === stage);
  const title = `${name}, ${stage}, ${run.label}`;
  if (rows.length === 1) return { title, lines: rowLines(rows[0]) };
  const lines = rows.slice(0, 8).map((row) => [row.part || "product", shortLine(row)]);
  const rest = rows.length > 8 ? [["and", `${rows.length - 8} more`]] : [];
  return { title, lines: [["cycles", `${cycles(total)}, ${ofStep(run, total)} of the step`], ...lines, ...rest] };
}

function layerBar(run, index, stages, height) {
  const found = (run === RUN ? DATA.layers.cycles : DATA.layers.dense_cycles)[index];
  const name = DATA.layers.names[index];
  const segments = stages.map((stage) => {
    const value = found[STAGES.indexOf(stage)];
    return { key: stage, value, tip: () => layerTip(run, name, stage, value), act: () => showInSchedule(name) };
  });
  return { height, segments, end: run === RUN ? scaled(positive(segments), "") : "" };
}

const LAYER_ORDERS = {
  "most cycles first": (one, other) => other.here - one.here || one.index - other.index,
  "order of the step": (one, other) => one.index - other.index,
  "most saved over dense first": (one, other) => other.saved - one.saved || one.index - other.index,
  "by name": (one, other) => one.name.localeCompare(other.name, "en", { numeric: true }) || one.index - other.index,
};

function redrawLayers() {
  const stages = checked("layer");
  const sum = (list) => stages.reduce((total, stage) => total + list[STAGES.indexOf(stage)], 0);
  const layers = DATA.layers.names.map((name, index) => {
    const here = sum(DATA.layers.cycles[index]);
    const dense = sum(DATA.layers.dense_cycles[index]);
    return { name, index, here, dense, saved: dense - here };
  }).filter((layer) => layer.here || layer.dense).sort(LAYER_ORDERS[byId("layer-order").value]);
  const groups = layers.map(({ name, index }) =>
    ({ name, bars: PAIR.map((run) => layerBar(run, index, stages, run === RUN ? 14 : 5)) }));
  barChart(byId("layer-chart"), groups, entries(stages), DENSE ? `Thick: ${RUN.label}; thin: dense.` : "");
  byId("layer-count").textContent = `${whole(layers.length)} layers`;
}

function stageBoxes(prefix, stages, redraw) {
  return stages.map((stage) => {
    const box = element("input", { type: "checkbox", checked: "", id: `${prefix}-${stage}`, name: prefix, value: stage });
    box.addEventListener("change", redraw);
    return element("label", {}, box, stage);
  });
}

const checked = (prefix) => [...document.querySelectorAll(`input[name="${prefix}"]:checked`)].map((box) => box.value);

function drawLayers() {
  const order = element("select", { id: "layer-order" }, ...Object.keys(LAYER_ORDERS).map((name) => element("option", {}, name)));
  order.addEventListener("change", redrawLayers);
  byId("layer-controls").append(element("label", {}, "Order", order), ...stageBoxes("layer", STAGES, redrawLayers),
    element("output", { id: "layer-count" }));
  const figure = byId("layer-chart");
  figure.classList.add("tall");
  interactive(figure, "Cycles of every layer by stage");
  redrawLayers();
}

/* Roofline */

function roofPointsOf(run) {
  return run.records.filter((row) => row.macs_per_cycle !== null && row.macs_per_dram_byte !== null).map((row) => ({
    x: row.macs_per_dram_byte, y: row.macs_per_cycle, cycles: row.busy_cycles, key: row.group, form: FORMS[row.group],
    dense: run !== RUN, name: [row.name, row.stage, row.part].filter(Boolean).join(" "), act: () => showInSchedule(row.name),
    tip: () => ({
      title: `${[row.name, row.stage, row.part].filter(Boolean).join(" ")}, ${run.label}`,
      lines: [
        ["bound", row.bound], ["intensity", `${brief(row.macs_per_dram_byte)} useful MACs per DRAM byte`],
        ["achieved", `${brief(row.macs_per_cycle)} useful MACs per cycle`],
        ...rowLines(row).filter(([name]) => name !== "bound"),
      ],
    }),
  }));
}

function redrawRoofline() {
  const stages = checked("roof");
  const points = PAIR.map(roofPointsOf);
  const withDense = byId("roof-dense")?.checked;
  const shown = (withDense ? points.flat() : points[0]).filter((point) => stages.includes(point.key));
  const legendEntries = stages.map((key) => ({ key, text: key === "VECTOR" ? "on the vector unit" : key, form: FORMS[key] }));
  rooflineChart(byId("roofline-chart"), shown, points.flat(), DATA.roofs, legendEntries);
  byId("roof-count").textContent = `${whole(shown.length)} products`;
}

function drawRoofline() {
  const keys = new Set(PAIR.flatMap(roofPointsOf).map((point) => point.key));
  const controls = byId("roofline-controls");
  controls.append(...stageBoxes("roof", STAGES.filter((stage) => keys.has(stage)), redrawRoofline));
  if (DENSE) {
    const box = element("input", { type: "checkbox", id: "roof-dense" });
    box.addEventListener("change", redrawRoofline);
    controls.append(element("label", {}, box, "dense step too, hollow"));
  }
  controls.append(element("output", { id: "roof-count" }));
  interactive(byId("roofline-chart"), "Roofline of every product");
  redrawRoofline();
}

/* Schedule */

const optional = (format) => (value) => (value === null ? "" : format(value));
const COLUMNS = [
  ["layer", "name"], ["stage", "stage"], ["part", "part"], ["cycles", "cycles", whole], ["of step", "share_frac", percent],
  ["useful", "utilization_frac", percent], ["bound", "bound"], ["dataflow", "dataflow"], ["mapping", "mapping"],
  ["tile", "tile", null, (row) => row.tile || ""], ["pattern", "pattern"], ["m", "m", optional(whole)], ["n", "n", optional(whole)],
  ["k", "k", optional(whole)], ["count", "count", whole], ["busy cycles", "busy_cycles", whole],
  ["DRAM, MB", "dram_bytes", (value) => (value / 1e6).toFixed(2)],
].map(([title, key, format, own]) => {
  const text = own || ((row) => (format ? format(row[key]) : row[key]));
  return { title, key, text, numeric: Boolean(format), value: (row) => (format ? row[key] ?? -1 : String(text(row))) };
});

/* The tile has a column of its own. */
const cellText = (column, row) => {
  if (column.key === "mapping") return row.mapping.replace(/ tile \S+,/, "");
  if (row.m === null && column.key === "count" || row.engine !== "array" && column.key === "utilization_frac") return "";
  return column.text(row);
};

function scheduleLine(row) {
  const texts = COLUMNS.map((column) => cellText(column, row));
  const cells = texts.map((text, index) => element("td", { class: COLUMNS[index].numeric ? "number" : null }, text));
  cells[0].title = row.name;
  return { row, node: element("tr", {}, ...cells), words: texts.join(" ").toLowerCase() };
}

const SCHEDULE = RUN.records.map(scheduleLine);

function filterSchedule() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const onlyProducts = byId("only-products").checked;
  let [count, sum] = [0, 0];
  for (const line of SCHEDULE) {
    const shown = words.every((word) => line.words.includes(word)) && !(onlyProducts && line.row.m === null);
    line.node.hidden = !shown;
    if (shown) [count, sum] = [count + 1, sum + line.row.cycles];
  }
  byId("row-count").textContent = `${whole(count)} of ${whole(SCHEDULE.length)} rows, ${ofStep(RUN, sum)} of the step`;
}

function showInSchedule(name) {
  hideTip();
  byId("filter").value = name;
  byId("only-products").checked = false;
  filterSchedule();
  byId("schedule").scrollIntoView();
  byId("filter").focus({ preventScroll: true });
}

function drawSchedule() {
  sortableTable(byId("schedule-table"), COLUMNS)(SCHEDULE);
  const filter = element("input", { type: "search", id: "filter", placeholder: "words: layer1 FF OS drain", autocomplete: "off" });
  const products = element("input", { type: "checkbox", id: "only-products", checked: "" });
  filter.addEventListener("input", filterSchedule);
  products.addEventListener("change", filterSchedule);
  byId("schedule-controls").append(element("label", {}, "Filter", filter), element("label", {}, products, "products only"),
    element("output", { id: "row-count" }));
  filterSchedule();
}

/* Comparison and machine */

function drawComparison() {
  const figure = byId("comparison-chart");
  interactive(figure, "Cycles of the step by method, pattern and stage");
  barChart(figure, [{ name: "", bars: DATA.compared.map(stepBar) }], entries(STAGES));
  const heads = ["run", "time", "cycles", "speedup over dense", "MACs alone", "at lower bounds", "PEs busy", "useful MACs", "DRAM traffic",
    "peak memory"];
  const lines = DATA.compared.map(({ label, totals }) => [
    label, time(totals.seconds), whole(totals.cycles), times(totals.speedup_over_dense), times(totals.mac_cap), times(totals.bound_speedup),
    percent(totals.utilization_frac), scaled(totals.macs_useful, ""), bytes(totals.dram_bytes), bytes(totals.dram_peak_bytes),
  ]);
  const current = DATA.compared.findIndex((run) => run.label === RUN.label);
  plainTable(byId("comparison-table"), "Bold: the run that this page explains", heads, lines, current);
}

function drawMachine() {
  const { machine } = DATA;
  const about = machine.description ? `: ${machine.description}` : "";
  byId("machine-text").textContent = `${machine.name}${about}. ${machine.array_rows} rows by ${machine.array_cols} columns of PEs at `
    + `${scaled(machine.clock_hz, "Hz")}, words and groups of up to ${machine.group} elements; DRAM ${scaled(machine.dram_bytes_per_second, "B/s")} at its `
    + `peak, ${percent(machine.dram_efficiency_frac)} of it reached; buffers west ${bytes(machine.west_buffer_bytes)}, north `
    + `${bytes(machine.north_buffer_bytes)}, output ${bytes(machine.output_buffer_bytes)}; lanes of the vector unit `
    + `${whole(machine.vector_lanes)}, of SORE ${whole(machine.sore_lanes)}, of WUVE ${whole(machine.wuve_lanes)}.`;
}

for (const draw of [drawHead, drawCards, drawStages, drawStalls, drawTimeline, drawLayers, drawRoofline, drawSchedule, drawComparison, drawMachine]) draw();
