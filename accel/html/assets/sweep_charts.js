/* Charts of many points: a canvas for what is many, an image above it for axes and for the one mark that is read. */

const COLORS = { crowd: "#7f8b99", low: "#0072b2", middle: "#009e73", high: "#e69f00", front: "#d55e00", edge: "#57606a", problem: "#cc79a7" };
const SCATTER = { left: 86, right: 24, top: 14, bottom: 54, height: 640 };
const PARALLEL = { left: 50, right: 60, top: 52, bottom: 16, height: 420 };
const MOST_LINES = 3000;
const NEAR = 12;  // how far from the pointer a mark may be

function canvasChart(figure, height, label) {
  const canvas = element("canvas", { width: 2 * WIDTH, height: 2 * height, "aria-hidden": "true" });
  const image = shape("svg", { viewBox: `0 0 ${WIDTH} ${height}` });
  const legendPlace = element("div");
  figure.replaceChildren(legendPlace, element("div", { class: "layers" }, canvas, image));
  interactive(figure, label);
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  return { figure, image, legendPlace, context, height };
}

/* Where an event is, in the units of the image. */
function placeIn(image, event) {
  const box = image.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * WIDTH, (event.clientY - box.top) / box.width * WIDTH];
}

function mixed(one, other, share) {
  const parts = [1, 3, 5].map((at) => [one, other].map((color) => parseInt(color.slice(at, at + 2), 16)));
  return `rgb(${parts.map(([from, to]) => Math.round(from + (to - from) * share)).join()})`;
}

const rampColor = (share) => (share < 0.5 ? mixed(COLORS.low, COLORS.middle, 2 * share) : mixed(COLORS.middle, COLORS.high, 2 * share - 1));

/* What colours points: nothing, or where a column's number is between its ends. */
function colouring(column) {
  if (!column) return () => COLORS.crowd;
  const scale = evenScale(column);
  const ramp = Array.from({ length: 33 }, (_, step) => rampColor(step / 32));
  return (point) => ramp[Math.round(32 * scale.share(column.numbers[point]))] || COLORS.crowd;
}

function colourKey(column) {
  if (!column) return [];
  const scale = evenScale(column);
  const ends = scale.ticks.length > FEW ? [scale.low, scale.high] : column.levels || [scale.low, scale.high];
  return ends.map((number) => ({ color: rampColor(scale.share(number)), text: levelText(column, number) }));
}

function pointLegend(state) {
  const entries = [
    ...(state.colour ? [{ text: `${state.colour.label}:` }, ...colourKey(state.colour)] : [{ color: COLORS.crowd, text: "point that runs" }]),
    { color: COLORS.front, text: `front of ${OBJECTIVES.map((column) => column.label).join(", ")}` },
    ...(FILTERS.onlyRuns ? [] : [{ color: COLORS.problem, text: "cannot run" }]),
  ];
  return element("ul", { class: "legend" }, ...entries.map(({ color, text }) => element("li", {},
    ...(color ? [shape("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, shape("circle", { r: 6, fill: color }))] : []), text)));
}

/* Scatter: state has {x, y, xLog, yLog, colour, zoomed, shown, front}. */

function scatterScales(state) {
  const scaleOf = (column, isLog, from, to) => {
    const [low, high] = extent(column, state.zoomed ? state.shown : FILTERS.onlyRuns ? RUNNING : EVERY);
    const log = isLog && low > 0;
    const pad = log ? (high / low) ** 0.04 || 1.1 : (high - low) * 0.04 || Math.abs(high) * 0.1 || 1;
    const scale = axisScale(column, log ? [low / pad, high * pad] : [low - pad, high + pad], log);
    return { ...scale, at: (number) => from + (to - from) * scale.share(number) };
  };
  return [
    scaleOf(state.x, state.xLog, SCATTER.left, WIDTH - SCATTER.right),
    scaleOf(state.y, state.yLog, SCATTER.height - SCATTER.bottom, SCATTER.top),
  ];
}

function scatterAxes(x, y) {
  const [bottom, right] = [SCATTER.height - SCATTER.bottom, WIDTH - SCATTER.right];
  const nodes = [];
  for (const tick of x.ticks) {
    nodes.push(shape("line", { class: "grid", x1: x.at(tick), x2: x.at(tick), y1: SCATTER.top, y2: bottom }));
    nodes.push(shape("text", { class: "soft", x: x.at(tick), y: bottom + 18, "text-anchor": "middle" }, levelText(x.column, tick)));
  }
  for (const tick of y.ticks) {
    nodes.push(shape("line", { class: "grid", x1: SCATTER.left, x2: right, y1: y.at(tick), y2: y.at(tick) }));
    nodes.push(shape("text", { class: "soft", x: SCATTER.left - 8, y: y.at(tick) + 4, "text-anchor": "end" }, levelText(y.column, tick)));
  }
  nodes.push(shape("text", { id: "x-label", x: (SCATTER.left + right) / 2, y: SCATTER.height - 10, "text-anchor": "middle" }, x.column.label));
  nodes.push(shape("text", { id: "y-label", transform: `translate(14 ${(SCATTER.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.column.label));
  return nodes;
}

/* The bound of what the points shown allow in both axes, from the worse edge of the one to that of the other. */
function frontLine(x, y, shown) {
  if (!isObjective(x.column) || !isObjective(y.column) || x.column === y.column) return [];
  const front = frontOf(shown, [x.column, y.column]);
  if (!front.length) return [];
  const worse = { x: sense(x.column) > 0 ? WIDTH - SCATTER.right : SCATTER.left, y: sense(y.column) > 0 ? SCATTER.top : SCATTER.height - SCATTER.bottom };
  const steps = front.map((point) => `H${x.at(x.column.numbers[point])}V${y.at(y.column.numbers[point])}`);
  return [shape("path", { class: "front", d: `M${x.at(x.column.numbers[front[0]])} ${worse.y}${steps.join("")}H${worse.x}` })];
}

function disc(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

/* Draw points at (lefts, tops) of the image: discs, or where they are many squares, pixel by pixel, which is much quicker. */
function drawCrowd(context, lefts, tops, colorAt) {
  if (lefts.length <= 5000) {
    context.globalAlpha = 0.7;
    lefts.forEach((left, order) => {
      context.fillStyle = colorAt(order);
      disc(context, left, tops[order], 2.5);
    });
    context.globalAlpha = 1;
    return;
  }
  const { width, height } = context.canvas;
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const known = new Map();
  for (let order = 0; order < lefts.length; order += 1) {
    const [left, top] = [Math.round(2 * lefts[order]), Math.round(2 * tops[order])];
    if (!(left > 1 && left < width - 2 && top > 1 && top < height - 2)) continue;  // nor where it has no place
    const color = colorAt(order);
    if (!known.has(color)) known.set(color, pixelOf(context, color));
    const pixel = known.get(color);
    for (let at = (top - 1) * width; at <= (top + 1) * width; at += width) pixels.fill(pixel, at + left - 1, at + left + 2);
  }
  context.putImageData(image, 0, 0);
}

function pixelOf(context, color) {
  context.fillStyle = color;
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(context.fillStyle.slice(at, at + 2), 16));  // it is told as #rrggbb
  return ((200 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

function drawScatter(chart, state) {
  const { context, image } = chart;
  const [x, y] = scatterScales(state);
  const place = (point) => [x.at(x.column.numbers[point]), y.at(y.column.numbers[point])];
  const inFront = new Set(state.front);
  const others = state.shown.filter((point) => !inFront.has(point));
  const places = [x, y].map((axis) => (points) => Float32Array.from(points, (point) => axis.at(axis.column.numbers[point])));
  const color = colouring(state.colour);
  context.clearRect(0, 0, WIDTH, SCATTER.height);
  drawCrowd(context, places[0](others), places[1](others), (order) => (runs(others[order]) ? color(others[order]) : COLORS.problem));
  context.lineWidth = 1.2;
  for (const point of state.front) {
    context.fillStyle = state.colour ? color(point) : COLORS.front;
    context.strokeStyle = state.colour ? COLORS.front : COLORS.edge;
    disc(context, ...place(point), 5.5);
    context.stroke();
  }
  const nodes = { cursor: shape("circle", { class: "cursor mark", r: 8 }), chosen: shape("circle", { class: "chosen", r: 10 }) };
  image.replaceChildren(...scatterAxes(x, y), ...frontLine(x, y, state.shown), nodes.chosen, nodes.cursor);
  const reach = (node, point) => filled(node, { cx: place(point)[0], cy: place(point)[1] }, []);
  const points = others.concat(state.front);
  const [lefts, tops] = places.map((placesOf) => placesOf(points));
  const find = (event) => nearest(lefts, tops, placeIn(image, event));
  chart.placeOf = place;
  finish(chart, state, nodes, reach, (event) => points[find(event)], (point) => !place(point).some(Number.isNaN));
}

/* What both charts have: the legend, marks of the front for the keyboard, the mark at the pointer, the mark of the chosen point. */
function finish(chart, state, { cursor, chosen }, reach, find, hasPlace) {
  chart.legendPlace.replaceChildren(pointLegend(state));
  const markOf = (point) => ({ node: cursor, tip: () => pointTip(point), act: () => choosePoint(point), reach: () => reach(cursor, point) });
  chart.figure.marks = state.front.map(markOf);
  chart.figure.current = -1;
  chart.figure.markAt = (event) => {
    const point = find(event);
    return point === undefined ? undefined : markOf(point);
  };
  chart.showChosen = (point) => {
    chosen.toggleAttribute("hidden", point === null || !hasPlace(point));
    if (point !== null && hasPlace(point)) reach(chosen, point);
  };
  chart.showChosen(state.chosen);
}

/* Which of the places is next to the pointer; of equals the last, which lies on top. */
function nearest(lefts, tops, [left, top]) {
  let [found, least] = [-1, NEAR ** 2];
  for (let order = 0; order < lefts.length; order += 1) {
    const distance = (lefts[order] - left) ** 2 + (tops[order] - top) ** 2;
    if (distance <= least) [found, least] = [order, distance];
  }
  return found;
}

/* Parallel coordinates: state has {tracks, colour, shown, front}; a track is a column's scale. */

const trackX = (index, count) => PARALLEL.left + (WIDTH - PARALLEL.left - PARALLEL.right) * (count > 1 ? index / (count - 1) : 0.5);
const trackY = (share) => PARALLEL.height - PARALLEL.bottom - share * (PARALLEL.height - PARALLEL.top - PARALLEL.bottom);

function trackNodes(track, index, count) {
  const x = trackX(index, count);
  const range = FILTERS.ranges.get(track.column);
  const nodes = [shape("text", { x, y: index % 2 ? 34 : 14, "text-anchor": "middle" }, track.column.label)];
  if (index % 2 === 0) nodes.push(shape("line", { class: "grid", x1: x, x2: x, y1: 18, y2: PARALLEL.top }));
  nodes.push(shape("line", { class: "track", x1: x, x2: x, y1: trackY(0), y2: trackY(1) }));
  if (range) {
    const [low, high] = range.map((end) => Math.min(Math.max(end, track.low), track.high)).map((end) => trackY(track.share(end)));
    nodes.push(shape("rect", { class: "kept", x: x - 7, width: 14, y: Math.min(low, high) - 5, height: Math.abs(high - low) + 10 }));
  }
  const ticks = track.ticks.length > FEW ? track.ticks.filter((_, place) => place % Math.ceil(track.ticks.length / FEW) === 0) : track.ticks;
  for (const tick of ticks) {
    nodes.push(shape("text", { class: "soft small", x: x + 6, y: trackY(track.share(tick)) + 4 }, levelText(track.column, tick)));
  }
  return nodes;
}

function drawParallel(chart, state) {
  const { context, image } = chart;
  const { tracks, front } = state;
  const inFront = new Set(front);
  const others = state.shown.filter((point) => !inFront.has(point) && runs(point));
  const every = Math.max(1, Math.ceil(others.length / MOST_LINES));
  const drawn = others.filter((_, order) => order % every === 0);
  const heights = (point) => tracks.map((track) => trackY(track.share(track.column.numbers[point])));
  const across = tracks.map((_, index) => trackX(index, tracks.length));
  const color = colouring(state.colour);
  const trace = (point) => {
    context.beginPath();
    heights(point).forEach((height, index) => (index ? context.lineTo(across[index], height) : context.moveTo(across[index], height)));
    context.stroke();
  };
  context.clearRect(0, 0, WIDTH, PARALLEL.height);
  context.lineJoin = "round";
  Object.assign(context, { lineWidth: 1, globalAlpha: Math.min(0.6, 0.08 + 60 / (drawn.length + 1)) });
  for (const point of drawn) {
    context.strokeStyle = color(point);
    trace(point);
  }
  Object.assign(context, { lineWidth: 1.8, globalAlpha: 0.9 });
  for (const point of front) {
    context.strokeStyle = state.colour ? color(point) : COLORS.front;
    trace(point);
  }
  context.globalAlpha = 1;
  const nodes = { cursor: shape("path", { class: "cursor mark line" }), chosen: shape("path", { class: "chosen line" }) };
  image.replaceChildren(...tracks.flatMap((track, index) => trackNodes(track, index, tracks.length)), nodes.chosen, nodes.cursor);
  const pathOf = (point) => `M${heights(point).map((height, index) => `${across[index]} ${height}`).join("L")}`;
  const lines = drawn.concat(front);
  finish(chart, state, nodes, (node, point) => filled(node, { d: pathOf(point) }, []),
    (event) => lineAt(lines, ...placeIn(image, event), tracks), runs);
  const left = drawn.length < others.length ? `; ${whole(drawn.length)} of the ${whole(others.length)} lines off the front are drawn` : "";
  chart.legendPlace.append(element("p", { class: "note" }, `${whole(front.length)} lines of the front${left}`));
}

/* The line next to the pointer, up or down. */
function lineAt(points, x, y, tracks) {
  const gap = tracks.length > 1 ? trackX(1, tracks.length) - trackX(0, tracks.length) : 1;
  const index = Math.max(0, Math.min(Math.floor((x - PARALLEL.left) / gap), tracks.length - 2));
  const part = (x - trackX(index, tracks.length)) / gap;
  if (part < -0.05 || part > 1.05 || tracks.length < 2) return undefined;
  const height = (point, track) => trackY(track.share(track.column.numbers[point]));
  let [found, least] = [undefined, NEAR / 2];
  for (const point of points) {
    const here = (1 - part) * height(point, tracks[index]) + part * height(point, tracks[index + 1]);
    if (Math.abs(here - y) <= least) [found, least] = [point, Math.abs(here - y)];
  }
  return found;
}

/* Drawing along an axis keeps what was drawn over, a click on it lets go; `changed` is called with the range of a column. */
function brushed(chart, tracksOf, changed) {
  let begun = null;
  const trackAt = (x) => tracksOf().findIndex((_, index, all) => Math.abs(trackX(index, all.length) - x) < NEAR);
  const shareAt = (y) => (trackY(0) - y) / (trackY(0) - trackY(1));
  chart.image.addEventListener("pointerdown", (event) => {
    const [x, y] = placeIn(chart.image, event);
    begun = trackAt(x) < 0 ? null : { track: tracksOf()[trackAt(x)], y };
  });
  chart.image.addEventListener("pointerup", (event) => {
    if (!begun) return;
    const [, y] = placeIn(chart.image, event);
    const { track, y: from } = begun;
    begun = null;
    if (Math.abs(y - from) < 4) return changed(track.column, -Infinity, Infinity);
    const [low, high] = [shareAt(Math.max(y, from)), shareAt(Math.min(y, from))];
    const kept = EVERY.filter((point) => {
      const share = track.share(track.column.numbers[point]);
      return share >= low && share <= high;
    });
    if (kept.length) changed(track.column, ...extent(track.column, kept));
  });
}
