/* The page of a sweep: filters, charts, the front as a table, the chosen point with its commands and its machine. */

const MOST_LINES_OF_TABLE = 1000;
const STATE = { chosen: null, shown: [], front: [], colour: null, zoomed: false };
const CHARTS = {};

const words = (columns) => columns.map((column) => column.label).join(", ");
const tipColumns = () => [...new Set([...OBJECTIVES, STATE.x, STATE.y, ...VARIED])];

function pointTip(point) {
  const lines = tipColumns().map((column) => [column.label, valueText(column, point)]);
  const why = runs(point) ? [] : [["cannot run", problemOf(point)]];
  return { title: `point ${INDICES[point]}`, lines: [...why, ...lines] };
}

/* Head */

function drawHead() {
  const front = frontOf(EVERY, OBJECTIVES);
  const cannot = DATA.total - DATA.runs;
  byId("headline").textContent = `${whole(front.length)} of ${whole(DATA.total)} points are on the front of ${words(OBJECTIVES)}`
    + `${cannot ? `; ${whole(cannot)} cannot run` : ""}.`;
  const networks = Object.entries(DATA.networks).map(([name, weight]) => `${name} (weight ${weight})`).join(", ");
  const sampled = SIZE < DATA.total
    ? ` Shown are ${whole(SIZE)} points: the front and a sample of the others (seed ${DATA.seed}); other fronts are those of the sample.` : "";
  byId("asked").textContent = `Machines around ${DATA.base}; ${networks}, batch ${DATA.batch}.${sampled}`;
}

/* Filters */

function rangeInputs(column) {
  const [low, high] = extent(column, EVERY);
  const make = (end, id) => {
    if (!column.levels) return element("input", { type: "number", step: "any", id, placeholder: brief(end), "aria-label": id });
    const options = column.levels.map((level) => element("option", { value: level }, levelText(column, level)));
    const select = element("select", { id, "aria-label": id }, ...options);
    select.value = end;
    return select;
  };
  column.inputs = [make(low, `from-${column.name}`), make(high, `to-${column.name}`)];
  const read = () => {
    const [from, to] = column.inputs.map((input) => input.value);
    const least = from === "" || Number(from) <= low && column.levels ? -Infinity : Number(from);
    const most = to === "" || Number(to) >= high && column.levels ? Infinity : Number(to);
    setRange(column, least, most);
    redraw();
  };
  column.inputs.forEach((input) => input.addEventListener(column.levels ? "change" : "input", read));
  const unit = column.levels || !column.unit ? "" : `, ${column.unit}`;
  return [element("span", { title: column.name }, column.label + unit), column.inputs[0], element("span", {}, "to"), column.inputs[1]];
}

const isWide = (column) => extent(column, EVERY).reduce((low, high) => low < high);

/* Show in the controls what a chart has set. */
function showRange(column) {
  const ends = extent(column, EVERY);
  const range = FILTERS.ranges.get(column);
  column.inputs?.forEach((input, side) => {
    const end = range?.[side] ?? Infinity;
    const value = Math.abs(end) === Infinity ? null : end;
    input.value = column.levels ? value ?? ends[side] : value ?? "";
  });
}

function changeRange(column, low, high) {
  setRange(column, low, high);
  showRange(column);
  redraw();
}

function drawFilters() {
  const only = element("input", { type: "checkbox", id: "only-runs", checked: "" });
  only.addEventListener("change", () => {
    FILTERS.onlyRuns = only.checked;
    redraw();
  });
  const clear = element("button", { type: "button", id: "clear" }, "Clear the ranges");
  clear.addEventListener("click", () => {
    const columns = [...FILTERS.ranges.keys()];
    FILTERS.ranges.clear();
    columns.forEach(showRange);
    redraw();
  });
  byId("filter-controls").append(element("label", {}, only, "only points that run"), clear);
  const columns = [...VARIED, ...AMOUNT_COLUMNS.filter((column) => !column.name.includes(".") && isWide(column))];
  byId("filter-grid").append(...columns.map((column) => element("div", {}, ...rangeInputs(column))));
}

/* Charts */

function columnSelect(id, title, chosen, act, none) {
  const columns = [...COLUMNS.values()].filter((column) => !column.isField || column.levels.length > 1);
  const options = columns.map((column) => element("option", { value: column.name }, column.label));
  const select = element("select", { id }, ...(none ? [element("option", { value: "" }, none)] : []), ...options);
  select.value = chosen?.name ?? "";
  select.addEventListener("change", () => act(COLUMNS.get(select.value) ?? null));
  return element("label", {}, title, select);
}

function checkBox(id, title, checked, act) {
  const box = element("input", { type: "checkbox", id });
  box.checked = checked;
  box.addEventListener("change", () => act(box.checked));
  return element("label", {}, box, title);
}

const wantsLog = (column) => !column.isList && spansMuch(extent(column, EVERY));

function setAxis(axis, column) {
  STATE[axis] = column;
  STATE[`${axis}Log`] = wantsLog(column);
  byId(`${axis}-log`).checked = STATE[`${axis}Log`];
  redraw();
}

function drawControls() {
  [STATE.x, STATE.y] = [OBJECTIVES[0], OBJECTIVES[1] ?? AMOUNT_COLUMNS.find((column) => column !== OBJECTIVES[0])];
  const axes = ["x", "y"].flatMap((axis) => {
    STATE[`${axis}Log`] = wantsLog(STATE[axis]);
    return [
      columnSelect(`${axis}-axis`, axis, STATE[axis], (column) => setAxis(axis, column)),
      checkBox(`${axis}-log`, "log", STATE[`${axis}Log`], (checked) => { STATE[`${axis}Log`] = checked; redraw(); }),
    ];
  });
  const colour = columnSelect("colour", "colour", null, (column) => { STATE.colour = column; redraw(); }, "none");
  const zoom = checkBox("zoom", "axes fit the points shown", false, (checked) => { STATE.zoomed = checked; redraw(); });
  byId("scatter-controls").append(...axes, colour, zoom);
  CHARTS.scatter = canvasChart(byId("scatter-chart"), SCATTER.height, "Points of the sweep, the front marked");
  CHARTS.parallel = canvasChart(byId("parallel-chart"), PARALLEL.height, "Parallel coordinates of the points");
  STATE.tracks = [...VARIED, ...OBJECTIVES.filter((column) => !column.isField)].map(evenScale);
  brushed(CHARTS.parallel, () => STATE.tracks, changeRange);
}

/* The front */

const FRONT_COLUMNS = [
  { title: "point", numeric: true, value: ({ point }) => Number(INDICES[point]), text: (point) => INDICES[point] },
  ...[...new Set([...OBJECTIVES, ...FIELDS])].map((column) => ({
    title: column.label, numeric: !column.isList, value: ({ point }) => (column.isList ? valueText(column, point) : column.numbers[point]),
    text: (point) => valueText(column, point),
  })),
];

function frontLineOf(point, order) {
  const cells = FRONT_COLUMNS.map((column) => element("td", { class: column.numeric ? "number" : null }, column.text(point)));
  const button = element("button", { type: "button", title: "choose this point" }, cells[0].textContent);
  cells[0].replaceChildren(button);
  const node = element("tr", { class: point === STATE.chosen ? "this" : null }, ...cells);
  node.addEventListener("click", () => choosePoint(point));
  return { row: { point, order }, node };
}

function redrawFront() {
  const lines = STATE.front.slice(0, MOST_LINES_OF_TABLE);
  const more = lines.length < STATE.front.length ? ` The first ${whole(lines.length)} of ${whole(STATE.front.length)}.` : "";
  byId("front-text").textContent = `What no other point shown beats in ${words(OBJECTIVES)}: ${whole(STATE.front.length)}. A click chooses a point.${more}`;
  STATE.fillTable(lines.map(frontLineOf));
}

/* The chosen point */

function choosePoint(point) {
  STATE.chosen = point;
  hideTip();
  for (const chart of Object.values(CHARTS)) chart.showChosen(point);
  redrawFront();
  drawPoint();
  byId("point").scrollIntoView({ block: "nearest" });
}

function drawPoint() {
  const point = STATE.chosen;
  byId("point-text").textContent = point === null ? "None: no point is on the front."
    : `Point ${INDICES[point]}${runs(point) ? "" : ` cannot run: ${problemOf(point)}`}`;
  byId("point-runs").hidden = point === null || !runs(point);
  if (point === null) return;
  const columns = [...COLUMNS.values()].filter((column) => column.isField || !Number.isNaN(column.numbers[point]));
  byId("point-words").replaceChildren(...columns.map((column) =>
    element("div", {}, element("dt", {}, column.label), element("dd", {}, valueText(column, point)))));
  if (!runs(point)) return;
  const file = `${machineName(point)}.toml`;
  byId("machine-name").textContent = file;
  byId("machine-command").textContent = named(DATA.machine_command, point);
  byId("point-commands").textContent = DATA.commands.map((command) => named(command, point)).join("\n");
  byId("point-machine").textContent = machineFile(point);
  filled(byId("save-machine"), { download: file, href: `data:application/toml,${encodeURIComponent(machineFile(point))}` }, []);
}

function copies(button, source) {
  byId(button).addEventListener("click", () => {
    getSelection().selectAllChildren(byId(source));
    navigator.clipboard?.writeText(byId(source).textContent).catch(() => {});
  });
}

function redraw() {
  STATE.shown = shownPoints();
  STATE.front = frontOf(STATE.shown, OBJECTIVES);
  byId("shown-count").textContent = `${whole(STATE.shown.length)} of ${whole(SIZE)} points pass the filters, `
    + `${whole(STATE.front.length)} of them are on their front of ${words(OBJECTIVES)}.`;
  drawScatter(CHARTS.scatter, STATE);
  drawParallel(CHARTS.parallel, STATE);
  redrawFront();
}

drawHead();
drawFilters();
drawControls();
STATE.fillTable = sortableTable(byId("front-table"), FRONT_COLUMNS);
STATE.chosen = frontOf(EVERY, OBJECTIVES)[0] ?? null;
redraw();
drawPoint();
copies("copy-commands", "point-commands");
copies("copy-machine", "point-machine");
