"use strict";

/* Drawing: elements, numbers, bars, the roofline. What comes from the data is set as text, never as markup. */

const WIDTH = 1000;
const PREFIXES = [["G", 1e9], ["M", 1e6], ["k", 1e3], ["", 1]];

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const element = (name, attributes = {}, ...children) => filled(document.createElement(name), attributes, children);
const shape = (name, attributes = {}, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
const byId = (id) => document.getElementById(id);

/* Numbers */

const whole = (value) => Math.round(value).toLocaleString("en-US");
const percent = (fraction) => `${(100 * fraction).toFixed(1)}%`;
const brief = (value) => String(Number(value.toPrecision(4)));

function scaled(value, unit) {
  const [prefix, size] = PREFIXES.find(([, least]) => Math.abs(value) >= least) || ["", 1];
  return `${brief(value / size)} ${prefix}${unit}`.trim();
}

function time(seconds) {
  const [unit, size] = [["s", 1], ["ms", 1e-3], ["µs", 1e-6]].find(([, least]) => seconds >= least) || ["ns", 1e-9];
  return `${brief(seconds / size)} ${unit}`;
}

function linearTicks(most) {
  const rough = Math.max(most, 1e-12) / 6;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = decade * [1, 2, 5, 10].find((factor) => factor * decade >= rough);
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, index) => index * step);
}

function logTicks(least, most) {
  const factors = Math.log10(most / least) > 4 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.log10(most); power += 1) {
    ticks.push(...factors.map((factor) => factor * 10 ** power));
  }
  return ticks.filter((tick) => tick >= least && tick <= most);
}

/* Marks: what can be pointed at. A figure holds {node, tip, act}; the arrow keys walk through them in order. Where marks are too
   many for a node each, figure.markAt finds the one at a pointer, and mark.reach moves the one node to it. */

function showTip(mark, x, y) {
  const tip = byId("tip");
  const { title, lines } = mark.tip();
  const list = lines.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))]);
  tip.replaceChildren(element("strong", {}, title), element("dl", {}, ...list));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
  const top = y + 14 + box.height > innerHeight ? y - 14 - box.height : y + 14;
  tip.style.left = `${Math.max(4, Math.min(left, innerWidth - box.width - 4))}px`;
  tip.style.top = `${Math.max(4, Math.min(top, innerHeight - box.height - 4))}px`;
}

function hideTip() {
  byId("tip").hidden = true;
  document.querySelectorAll(".mark.current").forEach((node) => node.classList.remove("current"));
}

function stepTo(figure, index) {
  hideTip();
  figure.current = Math.max(0, Math.min(index, figure.marks.length - 1));
  const mark = figure.marks[figure.current];
  if (!mark) return;
  mark.reach?.();
  mark.node.classList.add("current");
  mark.node.scrollIntoView({ block: "nearest", inline: "nearest" });
  const box = mark.node.getBoundingClientRect();
  showTip(mark, box.right, box.bottom);
}

function onKey(figure, event) {
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  if (event.key in steps) stepTo(figure, figure.current + steps[event.key]);
  else if (event.key === "Escape") hideTip();
  else if (event.key === "Enter" && figure.marks[figure.current]?.act) figure.marks[figure.current].act();
  else return;
  event.preventDefault();
}

function interactive(figure, label) {
  const markOf = (event) => (figure.markAt ? figure.markAt(event) : figure.marks[event.target.closest("[data-mark]")?.dataset.mark]);
  filled(figure, { tabindex: 0, role: "group", "aria-label": `${label}; the arrow keys read mark by mark` }, []);
  figure.current = -1;
  figure.addEventListener("pointermove", (event) => {
    hideTip();
    const mark = markOf(event);
    if (!mark) return;
    mark.reach?.();
    mark.node.classList.add("current");
    showTip(mark, event.clientX, event.clientY);
  });
  figure.addEventListener("click", (event) => markOf(event)?.act?.());
  figure.addEventListener("keydown", (event) => onKey(figure, event));
  figure.addEventListener("pointerleave", hideTip);
  figure.addEventListener("blur", hideTip);
}

function setMarks(figure, marks) {
  marks.forEach((mark, index) => mark.node.setAttribute("data-mark", index));
  figure.marks = marks;
  figure.current = -1;
}

const SHAPES = {
  circle: (r) => `M${-r} 0A${r} ${r} 0 1 0 ${r} 0A${r} ${r} 0 1 0 ${-r} 0Z`,
  square: (r) => `M${-r * 0.89} ${-r * 0.89}h${r * 1.78}v${r * 1.78}h${-r * 1.78}Z`,
  triangle: (r) => `M0 ${-r * 1.25}L${r * 1.17} ${r * 0.85}H${-r * 1.17}Z`,
  diamond: (r) => `M0 ${-r * 1.3}L${r * 1.3} 0L0 ${r * 1.3}L${-r * 1.3} 0Z`,
};

function legend(entries) {
  return element("ul", { class: "legend" }, ...entries.map(({ key, text, form }) =>
    element("li", {}, shape("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" },
      shape("path", { d: SHAPES[form || "square"](6), class: `c-${key}` })), text)));
}

/* A table whose heads sort it. Columns are {title, numeric, value}; what is returned takes its lines, {row, node}, row.order
   being their order where values are equal. */

function sortableTable(table, columns) {
  const state = { lines: [], by: null, down: false };
  const body = element("tbody");
  const compare = (one, other) => (state.by.numeric ? one - other : one.localeCompare(other, "en", { numeric: true }));
  const place = () => {
    const sign = state.down ? -1 : 1;
    const value = (line) => state.by.value(line.row);
    if (state.by) state.lines.sort((one, other) => sign * compare(value(one), value(other)) || one.row.order - other.row.order);
    body.replaceChildren(...state.lines.map((line) => line.node));
  };
  const heads = columns.map((column) => {
    const button = element("button", { type: "button" }, column.title);
    const head = element("th", { scope: "col", class: column.numeric ? "number" : null }, button);
    button.addEventListener("click", () => {
      state.down = state.by === column ? !state.down : column.numeric;
      state.by = column;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      place();
    });
    return head;
  });
  table.append(element("thead", {}, element("tr", {}, ...heads)), body);
  return (lines) => {
    state.lines = [...lines];
    place();
  };
}

/* Bars: groups of horizontal stacked bars over one axis of cycles. Each group is an image of its own, so that pages can break. */

const BARS = { left: 190, right: 110 };

function barScale(groups) {
  const ends = groups.flatMap((group) => group.bars.map((bar) => positive(bar.segments)));
  const most = Math.max(1, ...ends);
  return { most, x: (value) => BARS.left + (WIDTH - BARS.left - BARS.right) * value / most };
}

const positive = (segments) => segments.reduce((sum, segment) => sum + Math.max(0, segment.value), 0);

function gridLines(scale, height) {
  return linearTicks(scale.most).map((tick) =>
    shape("line", { class: "grid", x1: scale.x(tick), x2: scale.x(tick), y1: 0, y2: height }));
}

function barAxis(scale) {
  const [prefix, size] = PREFIXES.find(([, least]) => scale.most >= least);
  const texts = linearTicks(scale.most).map((tick) =>
    shape("text", { class: "soft", x: scale.x(tick), y: 15, "text-anchor": "middle" }, brief(tick / size)));
  const unit = shape("text", { class: "soft", x: BARS.left - 20, y: 15, "text-anchor": "end" }, `${prefix}cycles`);
  return shape("svg", { class: "axis", viewBox: `0 0 ${WIDTH} 20`, "aria-hidden": "true" }, unit, ...texts);
}

function barGroup(group, scale, marks) {
  const heights = group.bars.map((bar) => bar.height || 20);
  const height = heights.reduce((sum, bar) => sum + bar + 2, 0) + 6;
  const nodes = gridLines(scale, height);
  let y = 3;
  group.bars.forEach((bar, index) => {
    const middle = y + heights[index] / 2 + 4.5;
    if (bar.label) nodes.push(shape("text", { class: "soft", x: BARS.left - 8, y: middle, "text-anchor": "end" }, bar.label));
    nodes.push(...barSegments(bar, scale, y, heights[index], marks));
    const end = scale.x(positive(bar.segments)) + 6;
    if (bar.end) nodes.push(shape("text", { x: end, y: middle }, bar.end));
    y += heights[index] + 2;
  });
  nodes.push(shape("text", { x: 0, y: 3 + Math.min(heights[0], 20) / 2 + 4.5 }, shortened(group.name, group.bars[0].label ? 12 : 26)));
  return shape("svg", { viewBox: `0 0 ${WIDTH} ${height}` }, ...nodes);
}

function barSegments(bar, scale, y, height, marks) {
  let before = 0;
  return bar.segments.filter((segment) => segment.value > 0).map((segment) => {
    const width = Math.max(1.5, scale.x(before + segment.value) - scale.x(before));
    const slim = width < 4 ? " slim" : "";  // a gap would hide it
    const node = shape("rect", { class: `segment mark c-${segment.key}${slim}`, x: scale.x(before), y, height, width });
    before += segment.value;
    marks.push({ node, tip: segment.tip, act: segment.act });
    return node;
  });
}

const shortened = (text, most) => (text.length <= most ? text : `…${text.slice(1 - most)}`);

function barChart(figure, groups, legendEntries, note) {
  const marks = [];
  const scale = barScale(groups);
  const images = groups.map((group) => barGroup(group, scale, marks));
  const caption = note ? [element("figcaption", {}, note)] : [];
  figure.replaceChildren(legend(legendEntries), barAxis(scale), ...images, ...caption);
  setMarks(figure, marks);
}

/* The roofline: useful MACs per DRAM byte against useful MACs per cycle, both logarithmic. */

const ROOF = { left: 70, right: 20, top: 14, bottom: 52, height: 500 };

function logScale(least, most, from, to) {
  return (value) => from + (to - from) * Math.log(value / least) / Math.log(most / least);
}

function roofScales(points, roofs) {
  const ridge = roofs.pes / roofs.dram_bytes_per_cycle;
  const xs = points.map((point) => point.x).concat(ridge / 4);
  const ys = points.map((point) => point.y).concat(roofs.pes);
  const [x0, x1] = [Math.min(...xs) / 1.3, Math.max(...xs, ridge) * 2];
  const [y0, y1] = [Math.min(...ys, roofs.pes / 3) / 1.4, roofs.pes * 1.6];
  return {
    x0, x1, y0, y1, ridge,
    x: logScale(x0, x1, ROOF.left, WIDTH - ROOF.right),
    y: logScale(y0, y1, ROOF.height - ROOF.bottom, ROOF.top),
  };
}

function roofAxes(scale) {
  const bottom = ROOF.height - ROOF.bottom;
  const nodes = [];
  for (const tick of logTicks(scale.x0, scale.x1)) {
    nodes.push(shape("line", { class: "grid", x1: scale.x(tick), x2: scale.x(tick), y1: ROOF.top, y2: bottom }));
    nodes.push(shape("text", { class: "soft", x: scale.x(tick), y: bottom + 18, "text-anchor": "middle" }, brief(tick)));
  }
  for (const tick of logTicks(scale.y0, scale.y1)) {
    nodes.push(shape("line", { class: "grid", x1: ROOF.left, x2: WIDTH - ROOF.right, y1: scale.y(tick), y2: scale.y(tick) }));
    nodes.push(shape("text", { class: "soft", x: ROOF.left - 8, y: scale.y(tick) + 4, "text-anchor": "end" }, brief(tick)));
  }
  const middle = (ROOF.top + bottom) / 2;
  nodes.push(shape("text", { x: WIDTH / 2, y: ROOF.height - 10, "text-anchor": "middle" },
    "operational intensity: useful MACs per DRAM byte"));
  nodes.push(shape("text", { transform: `translate(16 ${middle}) rotate(-90)`, "text-anchor": "middle" },
    "achieved: useful MACs per cycle"));
  return nodes;
}

function roofLines(scale, roofs, withVector) {
  const start = Math.max(scale.x0, scale.y0 / roofs.dram_bytes_per_cycle);
  const from = [scale.x(start), scale.y(start * roofs.dram_bytes_per_cycle)];
  const ridge = [scale.x(scale.ridge), scale.y(roofs.pes)];
  const right = WIDTH - ROOF.right;
  const angle = Math.atan2(ridge[1] - from[1], ridge[0] - from[0]) * 180 / Math.PI;
  const nodes = [
    shape("path", { class: "roof", d: `M${from}L${ridge}H${right}` }),
    shape("text", { x: right - 4, y: ridge[1] - 22, "text-anchor": "end" }, `PEs: ${whole(roofs.pes)} MACs per cycle`),
    shape("text", { transform: `translate(${from}) rotate(${angle})`, x: 14, y: -8 },
      `DRAM: ${brief(roofs.dram_bytes_per_cycle)} bytes per cycle`),
  ];
  if (withVector) {
    const y = scale.y(roofs.vector_lanes);
    nodes.push(shape("path", { class: "roof second", d: `M${scale.x(roofs.vector_lanes / roofs.dram_bytes_per_cycle)} ${y}H${right}` }));
    nodes.push(shape("text", { class: "soft", x: right - 4, y: y - 6, "text-anchor": "end" },
      `vector unit: ${whole(roofs.vector_lanes)} MACs per cycle`));
  }
  return nodes;
}

function roofPoints(points, scale, marks) {
  const most = Math.max(...points.map((point) => point.cycles), 1);
  const placed = new Map();
  for (const point of points) {
    const place = [scale.x(point.x), scale.y(point.y)].map(Math.round).join();
    placed.set(place, [...(placed.get(place) || []), point]);
  }
  const seen = new Set();
  const drawn = [...placed.entries()].flatMap(([place, stack]) => stack.flatMap((point) => {
    const kind = [place, point.form, point.dense].join();  // equal marks on one another are drawn once
    return seen.has(kind) ? [] : [seen.add(kind) && { point, stack }];
  }));
  return drawn.sort((one, other) => other.point.cycles - one.point.cycles).map(({ point, stack }) => {
    const node = shape("path", {
      class: point.dense ? "point dense mark" : `point mark c-${point.key}`,
      d: SHAPES[point.form](4 + 9 * Math.sqrt(point.cycles / most)),
      transform: `translate(${scale.x(point.x)} ${scale.y(point.y)})`,
    });
    marks.push({ node, tip: () => stackTip(point, stack), act: point.act });
    return node;
  });
}

function stackTip(point, stack) {
  const { title, lines } = point.tip();
  const others = stack.filter((other) => other !== point).map((other) => (other.dense ? `${other.name} dense` : other.name));
  if (!others.length) return { title, lines };
  const rest = others.length > 6 ? `, ${others.length - 6} more` : "";
  return { title, lines: [...lines, ["same place", others.slice(0, 6).join(", ") + rest]] };
}

function rooflineChart(figure, points, allPoints, roofs, legendEntries) {
  const marks = [];
  const scale = roofScales(allPoints, roofs);  // the axes stay when stages are hidden
  const nodes = [
    ...roofAxes(scale),
    ...roofLines(scale, roofs, allPoints.some((point) => point.form === "diamond")),
    ...roofPoints(points, scale, marks),
  ];
  figure.replaceChildren(legend(legendEntries), shape("svg", { viewBox: `0 0 ${WIDTH} ${ROOF.height}` }, ...nodes));
  setMarks(figure, marks);
}

/* Lanes: what each engine does when, in a window of the step, and below it shares of the PEs and of the DRAM port. */

const LANES = { left: 90, right: 16, height: 24, share: 44, gap: 6, axis: 22 };

function laneScale({ from, to }) {
  const width = WIDTH - LANES.left - LANES.right;
  return (cycle) => LANES.left + width * (Math.min(Math.max(cycle, from), to) - from) / (to - from);
}

function cycleAt(view, x) {
  return view.from + (view.to - view.from) * (x - LANES.left) / (WIDTH - LANES.left - LANES.right);
}

function laneAxis(view, x, height) {
  const [prefix, size] = PREFIXES.find(([, least]) => view.to >= least) || ["", 1];
  const step = linearTicks(view.to - view.from)[1] || 1;
  const first = Math.ceil(view.from / step);
  const ticks = Array.from({ length: Math.floor(view.to / step) - first + 1 }, (_, index) => (first + index) * step);
  const digits = Math.max(0, Math.ceil(Math.log10(size / step)));
  return [
    ...ticks.map((tick) => shape("line", { class: "grid", x1: x(tick), x2: x(tick), y1: LANES.axis, y2: height })),
    ...ticks.map((tick) => shape("text", { class: "soft", x: x(tick), y: 14, "text-anchor": "middle" }, (tick / size).toFixed(digits))),
    shape("text", { class: "soft", x: LANES.left - 8, y: 14, "text-anchor": "end" }, `${prefix}cycles`),
  ];
}

function laneNodes(lane, y, view, x, marks) {
  const nodes = [shape("text", { class: "soft", x: LANES.left - 8, y: y + 17, "text-anchor": "end" }, lane.name)];
  for (const item of lane.items) {
    if (item.start + item.cycles <= view.from || item.start >= view.to) continue;
    const left = x(item.start);
    const node = shape("rect", {
      class: `mark c-${item.key}`, x: left.toFixed(2), y, height: LANES.height, width: Math.max(0.6, x(item.start + item.cycles) - left).toFixed(2),
      "fill-opacity": (0.25 + 0.75 * item.share).toFixed(2),
    });
    marks.push({ node, tip: item.tip, act: item.act });
    nodes.push(node);
  }
  return nodes;
}

/* A profile: a value from 0 to 1 for every part of the step, drawn as steps; its parts answer to the pointer alone. */
function profileNodes(profile, edges, y, view, x) {
  const base = y + LANES.share;
  let path = "";
  profile.values.forEach((value, index) => {
    if (edges[index + 1] <= view.from || edges[index] >= view.to) return;
    const top = (base - LANES.share * Math.min(value, 1)).toFixed(1);
    path += `${path ? "L" : `M${x(edges[index]).toFixed(2)} ${base}L`}${x(edges[index]).toFixed(2)} ${top}H${x(edges[index + 1]).toFixed(2)}`;
  });
  const width = WIDTH - LANES.left - LANES.right;
  return [
    shape("rect", { class: "lane", x: LANES.left, y, width, height: LANES.share }),
    shape("path", { class: `share ${profile.key}`, d: path ? `${path}V${base}Z` : "" }),
    shape("text", { class: "soft", x: LANES.left - 8, y: y + LANES.share / 2 + 4, "text-anchor": "end" }, profile.name),
  ];
}

function laneChart(figure, lanes, profiles, edges, view, legendEntries) {
  const marks = [];
  const x = laneScale(view);
  const lanesHeight = lanes.length * (LANES.height + LANES.gap);
  const height = LANES.axis + lanesHeight + profiles.length * (LANES.share + LANES.gap);
  const rowAt = (index) => LANES.axis + index * (LANES.height + LANES.gap);
  const width = WIDTH - LANES.left - LANES.right;
  const nodes = [
    ...lanes.map((_, index) => shape("rect", { class: "lane", x: LANES.left, y: rowAt(index), width, height: LANES.height })),
    ...profiles.flatMap((profile, index) =>
      profileNodes(profile, edges, LANES.axis + lanesHeight + index * (LANES.share + LANES.gap), view, x)),
    ...laneAxis(view, x, height),
    ...lanes.flatMap((lane, index) => laneNodes(lane, rowAt(index), view, x, marks)),
  ];
  figure.replaceChildren(legend(legendEntries), shape("svg", { class: "lanes", viewBox: `0 0 ${WIDTH} ${height}` }, ...nodes));
  setMarks(figure, marks);
}
