/* The points of a sweep: columns of numbers, which points the filters let through, and fronts. docs/explore.md describes the data. */

const DATA = JSON.parse(byId("data").textContent);
const INDICES = DATA.indices.split(" ");
const SIZE = INDICES.length;
const CODES = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array };
const FEW = 12;  // values that are told one by one

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
const numbersOf = (text) => new Float64Array(bytesOf(text));
const codesOf = ({ size, data }) => new CODES[size](bytesOf(data));

/* Every column has `numbers`, NaN where a point has none; those of a field of lists are places in the order of its values. */

function fieldColumn({ codes, numbers, ...rest }) {
  const levels = numbers.map((number, place) => number ?? place);
  const values = [NaN, ...levels];
  const packed = codesOf(codes);
  return { ...rest, levels, isList: numbers[0] === null, isField: true, codes: packed, numbers: Float64Array.from(packed, (code) => values[code]) };
}

function amountColumn({ numbers, levels, codes, ...rest }) {
  if (numbers) return { ...rest, numbers: numbersOf(numbers) };
  const values = numbersOf(levels);
  return { ...rest, numbers: Float64Array.from(codesOf(codes), (code) => values[code - 1]) };
}

const FIELDS = DATA.fields.map(fieldColumn);
const AMOUNT_COLUMNS = DATA.amounts.map(amountColumn);
const COLUMNS = new Map([...FIELDS, ...AMOUNT_COLUMNS].map((column) => [column.name, column]));
const VARIED = FIELDS.filter((column) => column.levels.length > 1);
const OBJECTIVES = DATA.objectives.map((name) => COLUMNS.get(name));
const PROBLEMS = codesOf(DATA.problems.codes);

const runs = (point) => PROBLEMS[point] === 0;
const EVERY = [...INDICES.keys()];
const RUNNING = EVERY.filter(runs);
const problemOf = (point) => DATA.problems.texts[PROBLEMS[point] - 1];
const isObjective = (column) => DATA.objective_names.includes(column.name);
const sense = (column) => (DATA.maximized.includes(column.name) ? -1 : 1);  // what is less is better

/* Texts */

function amountText(column, value) {
  if (Number.isNaN(value)) return "–";
  if (column.unit === "s") return time(value);
  if (column.unit === "B" && value % 1024 === 0 && value >= 1024) {
    const [prefix, size] = [["Gi", 2 ** 30], ["Mi", 2 ** 20], ["Ki", 1024]].find(([, least]) => value >= least);
    return `${brief(value / size)} ${prefix}B`;
  }
  if (!column.unit || column.unit === "bits" || column.unit === "cycles") {
    return `${Number.isInteger(value) || Math.abs(value) >= 1000 ? whole(value) : brief(value)} ${column.unit}`.trim();
  }
  return scaled(value, column.unit);
}

const valueText = (column, point) => (column.codes ? column.texts[column.codes[point] - 1] ?? "–" : amountText(column, column.numbers[point]));
const levelText = (column, number) => (column.levels ? column.texts[column.levels.indexOf(number)] : undefined) ?? amountText(column, number);
const named = (template, point) => template.replaceAll("@POINT@", INDICES[point]);
const machineName = (point) => `${DATA.base}-${INDICES[point]}`;

function machineFile(point) {
  return DATA.machine.map(([name, text]) => {
    const column = COLUMNS.get(name);
    return column?.toml ? column.toml[column.codes[point] - 1] : named(text, point);
  }).join("");
}

/* Filters: ranges of columns, both ends in; a point without a number is out. */

const FILTERS = { ranges: new Map(), onlyRuns: true };

function shownPoints() {
  const ranges = [...FILTERS.ranges].map(([column, [low, high]]) => [column.numbers, low, high]);
  const shown = [];
  for (let point = 0; point < SIZE; point += 1) {
    if (FILTERS.onlyRuns && !runs(point)) continue;
    if (ranges.every(([numbers, low, high]) => numbers[point] >= low && numbers[point] <= high)) shown.push(point);
  }
  return shown;
}

function setRange(column, low, high) {
  if (low === -Infinity && high === Infinity) FILTERS.ranges.delete(column);
  else FILTERS.ranges.set(column, [low, high]);
}

/* Fronts: the points that no other one of `points` beats, by the first column, then by the others; of equal points all stay. */

function frontOf(points, columns) {
  const costs = columns.map((column) => (sense(column) > 0 ? column.numbers : column.numbers.map((number) => -number)));
  const compare = (one, other) => {
    for (const cost of costs) {
      if (cost[one] !== cost[other]) return cost[one] - cost[other];
    }
    return one - other;
  };
  const beats = (one, other) => {
    let better = false;
    for (const cost of costs) {
      if (cost[one] > cost[other]) return false;
      better ||= cost[one] < cost[other];
    }
    return better;
  };
  const known = points.filter((point) => costs.every((cost) => !Number.isNaN(cost[point])));
  const left = strongest(known, costs).reduce((rest, strong) => rest.filter((point) => !beats(strong, point)), known).sort(compare);
  const front = [];
  let last = -1;  // who beat the point before is likely to beat this one
  for (const point of left) {
    if (last >= 0 && beats(last, point)) continue;
    const winner = front.find((other) => beats(other, point));
    if (winner === undefined) front.push(point);
    else last = winner;
  }
  return front;
}

/* Some points that beat many, so that few are left to be sorted: the least by sums of costs, with weights drawn from a lattice. */
function strongest(points, costs) {
  const ends = costs.map((numbers) => extent({ numbers }, points));
  return Array.from({ length: 8 }, (_, trial) => {
    const weights = ends.map(([low, high], place) => 2 ** (3 * Math.sin(1 + trial * (place + 1) * 2.4)) / (high - low || 1));
    let [found, least] = [[], Infinity];
    for (const point of points) {
      let sum = 0;
      for (let place = 0; place < costs.length; place += 1) sum += weights[place] * (costs[place][point] - ends[place][0]);
      if (sum < least) [found, least] = [[point], sum];
    }
    return found;
  }).flat();
}

/* Scales: where a number is on an axis, between 0 and 1. */

function extent(column, points) {
  let [low, high] = [Infinity, -Infinity];
  for (const point of points) {
    const number = column.numbers[point];
    if (number < low) low = number;
    if (number > high) high = number;
  }
  return low <= high ? [low, high] : [0, 1];
}

const spansMuch = ([low, high]) => low > 0 && high / low > 8;

function axisScale(column, [low, high], isLog) {
  const forward = isLog ? Math.log : (number) => number;
  const [from, to] = [forward(low), forward(high)];
  const share = (number) => (to > from ? (forward(number) - from) / (to - from) : 0.5);
  return { column, low, high, share, ticks: axisTicks(column, low, high, isLog) };
}

function axisTicks(column, low, high, isLog) {
  const levels = (column.levels || []).filter((level) => level >= low && level <= high);
  if (column.isList || (levels.length && levels.length <= FEW)) return levels;
  if (isLog) {
    const ticks = logTicks(low, high);
    return ticks.length > 1 ? ticks : [low, high];
  }
  const step = linearTicks(high - low)[1] || 1;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, index) => (first + index) * step);
}

/* A scale with the levels of a field at equal distances where they are few. */
function evenScale(column) {
  const range = extent(column, EVERY);
  if (!column.levels || column.levels.length > FEW) return axisScale(column, range, spansMuch(range));
  const last = Math.max(1, column.levels.length - 1);
  const places = new Map(column.levels.map((level, place) => [level, place / last]));
  return { column, low: range[0], high: range[1], share: (number) => places.get(number) ?? NaN, ticks: column.levels };
}
