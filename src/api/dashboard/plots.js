// Plots of the last hour: they are there when the page opens, since the process keeps them. A pointer or the arrow keys read
// values off, and marks say what happened.
'use strict';

const STEP_S = 10;
const HOUR_S = 3600;

// Lines of a plot: a metric of the history, its colour, its name. Colours mean one thing each: amber a limit, red an error.
const PLOTS = [
  {
    id: 'rate', shown: (value) => `${rate(value)}/s`,
    lines: [['requests', '--line-1', 'requests'], ['limited', '--warn', 'limited'], ['errors', '--bad', 'errors']],
  },
  {
    id: 'time', shown: quantile,
    lines: [['p50', '--line-1', 'p50'], ['p95', '--line-2', 'p95'], ['p99', '--line-3', 'p99']],
  },
];

const plotted = { scope: '', from: 0, values: new Map(), at: null, asked: 0 };

const linesOf = (one) => one.lines.filter(([metric]) => metric !== 'limited' || !plotted.scope);

// All of the history of what is chosen: a call a line, when the page opens or after it was away.
async function loadHistory() {
  const asked = ++plotted.asked;
  const scope = plotted.scope ? JSON.parse(plotted.scope) : {};
  const metrics = PLOTS.flatMap(linesOf).map(([metric]) => metric);
  const found = await Promise.all(metrics.map((metric) => stepsOf(metric, scope)));
  if (asked === plotted.asked) take(found);
}

// One that has no history (any more) is plotted as nothing.
async function stepsOf(metric, scope) {
  try {
    return await get(`v1/history?${query({ metric, ...scope })}`);
  } catch (fault) {
    if (fault.status !== 404) throw fault;
    return { metric, from: 0, values: [] };
  }
}

// Of metrics that were asked for around the end of a step, one may begin and end a step after another: what all of them have.
function take(found) {
  const from = Math.max(...found.map((one) => one.from));
  const leftOut = (one) => Math.round((from - one.from) / STEP_S);
  const steps = Math.max(0, Math.min(...found.map((one) => one.values.length - leftOut(one))));
  plotted.values = new Map(found.map((one) => [one.metric, one.values.slice(leftOut(one), leftOut(one) + steps)]));
  plotted.from = from;
  plotted.at = steps ? from + (steps - 1) * STEP_S : null;
}

// The newest step comes with the overview. False: steps are missing in between.
function takeStep() {
  const { at, values } = seen.history;
  // The instance's clock was set back: all of it is asked for again.
  if (plotted.at !== null && at !== null && at < plotted.at - STEP_S) return false;
  if (at === null || (plotted.at !== null && at <= plotted.at + 2)) return true;
  const steps = plotted.at === null ? 1 : Math.round((at - plotted.at) / STEP_S);
  if (steps !== 1 || !plotted.values.size) return false;
  const own = plotted.scope ? scopeNow() : values;
  let isFull = false;
  for (const [metric, list] of plotted.values) {
    list.push(own[metric] ?? null);
    isFull = list.length > HOUR_S / STEP_S;
    if (isFull) list.shift();
  }
  // A cursor stays at its step.
  for (const one of PLOTS) if (isFull && one.cursor) one.cursor -= 1;
  const kept = [...plotted.values.values()][0].length;
  [plotted.at, plotted.from] = [at, at - (kept - 1) * STEP_S];
  return true;
}

// What the overview says of the chosen pool or backend, as a step.
function scopeNow() {
  const { pool, backend } = JSON.parse(plotted.scope);
  const row = backend === undefined ? seen.pools.find((one) => one.name === pool)
    : seen.backends.find((one) => one.pool === pool && one.name === backend);
  const { requests_per_sec: requests, errors_per_sec: errors, p50, p95, p99 } = row || {};
  return { requests, errors, p50, p95, p99 };
}

// Steps that a plot is wide, and how many of them at its left are before the first one.
function widthOf(one) {
  const { length } = plotted.values.get(one.lines[0][0]) || [];
  const steps = Math.max(length, 6);
  return [steps, steps - length];
}

// Marks within a step on either side of a moment.
const marksAt = (epoch) => seen.marks.filter((mark) => Math.abs(mark.at - epoch) <= STEP_S);

function drawPlot(one) {
  const canvas = $(`${one.id}-plot`);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !seen) return;
  const scale = window.devicePixelRatio || 1;
  [canvas.width, canvas.height] = [width * scale, height * scale];
  const pen = canvas.getContext('2d');
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const [top, bottom] = [16, height - 16];
  const lines = linesOf(one).map(([metric, tint, name]) => ({ tint, name, values: plotted.values.get(metric) || [] }));
  // The newest step is at the right, however few there are.
  const [steps, missing] = widthOf(one);
  const x = (at) => width * (at + missing + 0.5) / steps;
  const most = Math.max(0, ...lines.flatMap(({ values }) => values.map((value) => value ?? 0)));
  const y = (value) => bottom - value / (most || 1) * (bottom - top);
  const down = (at, tint) => {
    pen.strokeStyle = color(tint);
    pen.beginPath();
    pen.moveTo(Math.round(at) + 0.5, top);
    pen.lineTo(Math.round(at) + 0.5, bottom);
    pen.stroke();
  };
  pen.font = '12px system-ui, sans-serif';
  pen.lineWidth = 1;
  pen.strokeStyle = color('--line');
  for (const part of [0, 0.5, 1]) {
    const level = Math.round(bottom - part * (bottom - top)) + 0.5;
    pen.beginPath();
    pen.moveTo(0, level);
    pen.lineTo(width, level);
    pen.stroke();
  }
  pen.setLineDash([3, 3]);
  for (const mark of seen.marks) down(x((mark.at - plotted.from) / STEP_S - 0.5), '--soft');
  pen.setLineDash([]);
  for (const { values, tint } of lines) {
    pen.strokeStyle = color(tint);
    pen.lineWidth = 1.75;
    pen.beginPath();
    let drawn = false;
    values.forEach((value, at) => {
      if (value === null) drawn = false;
      else if (drawn) pen.lineTo(x(at), y(value));
      else {
        pen.moveTo(x(at) - (values.length === 1 ? 3 : 0), y(value));
        pen.lineTo(x(at), y(value));
        drawn = true;
      }
    });
    pen.stroke();
  }
  pen.lineWidth = 1;
  if (one.cursor !== undefined && one.cursor !== null) down(x(one.cursor), '--text');
  pen.fillStyle = color('--soft');
  if (most) pen.fillText(one.shown(most), 2, top - 4);
  const ago = steps * STEP_S;
  pen.fillText(ago > 90 ? `${Math.round(ago / 60)} min ago` : `${ago} s ago`, 2, height - 3);
  pen.textAlign = 'right';
  pen.fillText('now', width - 2, height - 3);
  readOut(one);
}

// What stands below a plot: the values under the cursor, or the newest ones.
function readOut(one) {
  const lines = linesOf(one);
  const values = lines.map(([metric]) => plotted.values.get(metric) || []);
  const last = values[0].length - 1;
  if (last < 0) {
    put($(`${one.id}-values`), plotted.values.size ? 'The first values come after ten seconds.' : 'Asking …');
    return;
  }
  const at = one.cursor === undefined || one.cursor === null ? last : Math.min(one.cursor, last);
  const epoch = plotted.from + at * STEP_S;
  const said = lines.map(([, , name], line) => {
    const value = values[line][at];
    return `${name} ${value === null || value === undefined ? '–' : one.shown(value)}`;
  });
  const marks = one.cursor === undefined || one.cursor === null ? [] : marksAt(epoch + STEP_S / 2).map((mark) => mark.text);
  put($(`${one.id}-values`), [`${clock(epoch)}: ${said.join(', ')}`, ...marks].join(' · '));
}

function draw() {
  for (const one of PLOTS) drawPlot(one);
}

function readable(one) {
  const canvas = $(`${one.id}-plot`);
  const last = () => {
    const [steps, missing] = widthOf(one);
    return steps - missing - 1;
  };
  const move = (cursor) => {
    one.cursor = cursor === null || last() < 0 ? null : Math.max(0, Math.min(cursor, last()));
    drawPlot(one);
  };
  const point = (event) => {
    const [steps, missing] = widthOf(one);
    move(Math.floor(event.offsetX / canvas.clientWidth * steps) - missing);
  };
  canvas.addEventListener('pointermove', point);
  canvas.addEventListener('pointerdown', point);
  canvas.addEventListener('pointerleave', () => move(null));
  canvas.addEventListener('blur', () => move(null));
  canvas.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    move((one.cursor ?? last()) + by);
    // What is looked for is said; what comes every ten seconds is not.
    put($('read-out'), $(`${one.id}-values`).textContent);
  });
}

// Whose plots there are. A list that is open is left alone.
function showScopes() {
  const select = $('scope');
  const option = (value, text) => ({ value, text });
  const pools = seen.pools.length > 1
    ? seen.pools.map(({ name }) => option(JSON.stringify({ pool: name }), `pool ${name}`)) : [];
  const order = [...seen.backends].sort((one, other) => byValue(one.title, other.title));
  const backends = order.map(({ pool, name, title }) => option(JSON.stringify({ pool, backend: name }), `backend ${title}`));
  const wanted = [option('', 'all requests'), ...pools, ...backends];
  const same = JSON.stringify(wanted);
  if (select.dataset.same === same) return;
  select.dataset.same = same;
  select.replaceChildren(...wanted.map(({ value, text }) => node('option', { value }, text)));
  const isGone = !wanted.some(({ value }) => value === plotted.scope);
  if (isGone) choosePlots('');
  select.value = plotted.scope;
}

function choosePlots(scope) {
  plotted.scope = scope;
  $('scope').value = scope;
  $('limited-key').hidden = Boolean(scope);
  // Until they are there nothing is shown, least of all what another one did.
  [plotted.values, plotted.at] = [new Map(), null];
  draw();
  loadHistory().then(draw).catch((fault) => say(`No plots: ${fault.message}`));
}

for (const one of PLOTS) readable(one);
$('scope').addEventListener('change', () => choosePlots($('scope').value));
window.addEventListener('resize', draw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
