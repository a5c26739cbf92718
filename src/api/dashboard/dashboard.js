// The dashboard: a client of the API like any other. Whatever comes from there is shown as text (textContent), never as
// HTML: a client's id may hold anything.
'use strict';

const $ = (id) => document.getElementById(id);
const SPAN_MS = 300000; // what the plots show
const AWHILE_MS = 10000; // what "now" means for rates and percentiles
const ROWS = 20; // of a page of limits and of the audit

// ---- calls ----

// In memory alone, and gone with the page: on the public port a page of a backend has the same origin and reads its storage.
let token = '';

class Fault extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(method, path, body, fields = {}) {
  const asked = token;
  const headers = { ...fields };
  if (asked) headers.Authorization = `Bearer ${asked}`;
  let answer;
  let text;
  try {
    answer = await fetch(path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store', signal: AbortSignal.timeout(10000),
    });
    text = await answer.text();
  } catch {
    throw new Fault(0, 'no answer');
  }
  const isJson = (answer.headers.get('Content-Type') || '').includes('json');
  let json = null;
  try {
    if (isJson && text) json = JSON.parse(text);
  } catch {
    throw new Fault(0, 'a broken answer');
  }
  if (answer.status === 401 && asked === token) askForToken(asked ? 'That token is not right (any more).' : '');
  if (answer.status >= 400) {
    const fields = (json && json.errors || []).map((one) => `${one.pointer}: ${one.detail}`);
    const detail = fields.length ? fields.join('; ') : json && json.detail || `status ${answer.status}`;
    throw new Fault(answer.status, detail);
  }
  return { json, text, etag: answer.headers.get('ETag') };
}

const get = async (path) => (await call('GET', path)).json;
const query = (members) => new URLSearchParams(members).toString();

// The same call for a shell. The token stands in its variable: what is copied ends up in chats and histories.
function curl({ method, path, body, fields = {} }) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const url = new URL(path, document.baseURI).href;
  const parts = ['curl'];
  if (url.includes('[')) parts.push('--globoff');
  if (method !== 'GET') parts.push('-X', method);
  parts.push(quoted(url));
  if (token) parts.push('-H "Authorization: Bearer $TOKEN"');
  for (const [name, value] of Object.entries(fields)) parts.push('-H', quoted(`${name}: ${value}`));
  if (body !== undefined) parts.push('-d', quoted(JSON.stringify(body)));
  return parts.join(' ');
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say('Copied.');
  } catch {
    // Without TLS there is no clipboard for a page; a selection always works.
    const area = node('textarea', { class: 'copy', readonly: '' });
    area.value = text;
    const place = $('confirm').open ? $('confirm') : document.body;
    const focused = document.activeElement;
    place.append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    if (focused) focused.focus();
    say(copied ? 'Copied.' : text);
  }
}

// ---- elements ----

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'click') made.addEventListener('click', value);
    else made.setAttribute(key, value);
  }
  made.append(...children); // strings become text
  return made;
}

const put = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};
const say = (text) => put($('notice'), text);
const button = (text, label, click) => node('button', { type: 'button', 'aria-label': label, click }, text);
const level = (left, of, label) => {
  const bar = node('progress', { max: Math.max(of, 1), value: left, 'aria-label': label });
  return node('span', { class: 'level' }, bar, `${count(left)} of ${count(of)}`);
};

// Rows by key, changed in place: whoever stands on a button stays there. A cell is a text, or {text, class}, or
// {make, same}: made anew when `same` changes.
function fill(body, items, empty) {
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const wanted = items.length ? items : [{ key: ' ', cells: [{ text: empty, class: 'none', span: true }] }];
  const rows = wanted.map(({ key, cells }) => {
    const row = old.get(key) || node('tr', { 'data-key': key });
    old.delete(key);
    cells.forEach((cell, at) => {
      const said = typeof cell === 'string' ? { text: cell } : cell;
      const place = row.cells[at] || row.insertCell();
      place.className = said.class || '';
      if (said.span) place.colSpan = body.parentElement.tHead.rows[0].cells.length;
      if (!said.make) put(place, said.text);
      else if (place.dataset.same !== said.same) {
        place.dataset.same = said.same;
        place.replaceChildren(...[said.make()].flat());
      }
    });
    return row;
  });
  old.forEach((row) => row.remove());
  rows.forEach((row, at) => {
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] || null);
  });
}

// ---- numbers ----

const count = (number) => number.toLocaleString('en', { maximumFractionDigits: 0 });
const rate = (number) => number.toLocaleString('en', { maximumFractionDigits: number < 10 ? 1 : 0 });
const percent = (part) => `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;
const time = (seconds) => {
  if (seconds === null) return '–';
  // By way of a number: 160 in two digits is "1.6e+2".
  const short = (number) => Number(number.toPrecision(2));
  return seconds < 0.995 ? `${short(seconds * 1000)} ms` : `${short(seconds)} s`;
};

function span(seconds) {
  const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min` : `${seconds} s`;
}

// A bucket as people write it: `day: 10000/d burst 500 shadow utc`.
function rateOf(bucket, alone) {
  const per = bucket.per.replace(/^1(?=[a-z])/, '');
  const parts = [`${bucket.amount}/${per}`];
  if (bucket.capacity !== bucket.amount) parts.push(`burst ${bucket.capacity}`);
  if (bucket.mode === 'shadow') parts.push('shadow');
  if (bucket.reset) parts.push(bucket.reset);
  return `${alone && bucket.name === 'default' ? '' : `${bucket.name}: `}${parts.join(' ')}`;
}

const ratesOf = (buckets) => buckets.map((one) => rateOf(one, buckets.length === 1)).join(', ');

function termsOf(limit) {
  const parts = [];
  if (limit.mode === 'exempt') parts.push('exempt');
  if (limit.buckets.length) parts.push(ratesOf(limit.buckets));
  if (limit.max_in_flight) parts.push(`${limit.max_in_flight} at once`);
  if (limit.weight) parts.push(`weight ${limit.weight}`);
  if (limit.priority) parts.push(limit.priority);
  if (limit.shared) parts.push('shared');
  return parts.join(', ');
}

const NAMES = { s: 'second', m: 'minute', h: 'hour', d: 'day', mo: 'month' };

function parseRates(text) {
  const all = text.split(',').map((part) => part.trim()).filter(Boolean);
  return all.map((part) => {
    const form = /^(?:([^\s:]+)\s*:\s*)?([0-9]*\.?[0-9]+)\s*\/\s*([0-9]*)(mo|s|m|h|d)((?:\s+(?:burst\s+[0-9]+|shadow|utc))*)$/;
    const found = form.exec(part);
    if (!found) throw new Error(`“${part}” is no rate: write 100/s burst 50`);
    const [, name, amount, number, unit, rest] = found;
    const bucket = {
      name: name || (all.length === 1 ? 'default' : NAMES[unit]),
      amount: Number(amount),
      per: `${number || 1}${unit}`,
    };
    const burst = /burst\s+([0-9]+)/.exec(rest);
    if (burst) bucket.capacity = Number(burst[1]);
    if (/shadow/.test(rest)) bucket.mode = 'shadow';
    if (/utc/.test(rest)) bucket.reset = 'utc';
    return bucket;
  });
}

const UNIT_S = { s: 1, m: 60, h: 3600, d: 86400, mo: 2592000 };
const secondsOf = (per) => Number(/^[0-9]+/.exec(per)[0]) * UNIT_S[/[a-z]+$/.exec(per)[0]];

// ---- the text format of /metrics ----

// As the log calls a backend.
const titleOf = (pool, name) => (pool === 'default' ? name : `${pool}/${name}`);
const title = (one) => titleOf(one.pool, one.name);

function parseMetrics(text) {
  const series = new Map();
  for (const line of text.split('\n')) {
    const found = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found || !found[1].startsWith('balancer_backend_')) continue;
    const labels = {};
    for (const [, key, value] of (found[2] || '').matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[key] = value.replace(/\\(.)/g, (_, c) => (c === 'n' ? '\n' : c));
    }
    if (labels.backend === undefined) continue;
    const backend = titleOf(labels.pool, labels.backend);
    const one = series.get(backend) || { requests: 0, errors: 0, times: new Map() };
    series.set(backend, one);
    const value = Number(found[3]);
    if (found[1] === 'balancer_backend_requests_total') {
      one.requests += value;
      if (labels.code === 'error' || labels.code.startsWith('5')) one.errors += value;
    } else if (found[1] === 'balancer_backend_request_duration_seconds_bucket') {
      one.times.set(labels.le === '+Inf' ? Infinity : Number(labels.le), value);
    }
  }
  return series;
}

// What happened between two looks; a counter that went back has begun anew.
const grown = (now, then) => (then === undefined || now < then ? now : now - then);

function times(now, then, only) {
  const sums = new Map();
  for (const [name, one] of now) {
    if (only !== undefined && name !== only) continue;
    const before = then.get(name);
    for (const [bound, value] of one.times) {
      sums.set(bound, (sums.get(bound) || 0) + (before ? grown(value, before.times.get(bound)) : 0));
    }
  }
  return [...sums].sort(([one], [other]) => one - other);
}

// As histogram_quantile reads it: even within a bucket.
function quantile(bounds, part) {
  const all = bounds.length ? bounds[bounds.length - 1][1] : 0;
  if (all <= 0) return null;
  let [low, below] = [0, 0];
  for (const [bound, upTo] of bounds) {
    if (upTo >= part * all) {
      if (bound === Infinity) return low;
      return low + (bound - low) * (upTo > below ? (part * all - below) / (upTo - below) : 1);
    }
    [low, below] = [bound, upTo];
  }
  return low;
}

// ---- plots ----

function plot(canvas, lines, shown) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  const scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext('2d');
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const [now, top, bottom] = [performance.now(), 16, height - 16];
  const oldest = history.length ? now - history[0].at : 0;
  const spanMs = Math.min(SPAN_MS, Math.max(60000, oldest));
  const most = Math.max(0, ...lines.flatMap(({ points }) => points.map(([, value]) => value ?? 0)));
  const full = most || 1;
  pen.strokeStyle = color('--line');
  pen.fillStyle = color('--soft');
  pen.font = '12px system-ui, sans-serif';
  pen.lineWidth = 1;
  for (const part of [0, 0.5, 1]) {
    const y = Math.round(bottom - part * (bottom - top)) + 0.5;
    pen.beginPath();
    pen.moveTo(0, y);
    pen.lineTo(width, y);
    pen.stroke();
  }
  if (most) pen.fillText(shown(most), 2, top - 4);
  pen.fillText(spanMs > 90000 ? `${Math.round(spanMs / 60000)} min ago` : `${Math.round(spanMs / 1000)} s ago`, 2, height - 3);
  pen.textAlign = 'right';
  pen.fillText('now', width - 2, height - 3);
  for (const { points, name } of lines) {
    pen.strokeStyle = color(name);
    pen.lineWidth = 1.75;
    pen.beginPath();
    let down = false;
    for (const [at, value] of points) {
      const [x, y] = [width * (1 - (now - at) / spanMs), bottom - (value ?? 0) / full * (bottom - top)];
      if (value !== null && down) pen.lineTo(x, y);
      else if (value !== null) pen.moveTo(x, y);
      down = value !== null;
    }
    pen.stroke();
  }
}

// ---- what happens each second ----

const looks = []; // {at, status, series} of the last while
const history = []; // {at, allowed, denied, p50, p90, p99}
let status = null;
let backends = [];

function draw() {
  const line = (key, name) => ({ name, points: history.map((one) => [one.at, one[key]]) });
  plot($('rate-plot'), [line('allowed', '--accent'), line('denied', '--bad')], (value) => `${rate(value)}/s`);
  plot($('time-plot'), [line('p99', '--bad'), line('p90', '--third'), line('p50', '--accent')], time);
}

function state(element, text, kind) {
  put(element, text);
  element.className = `state ${kind}`;
}

// The certificate that expires first; what has less than two weeks is to be renewed.
function showTls(tls) {
  $('tls').hidden = !tls;
  if (!tls) return;
  const left = (one) => Math.floor((Date.parse(one.expires) - Date.now()) / 1000);
  const first = tls.certificates.reduce((one, other) => left(other) < left(one) ? other : one);
  const text = left(first) > 0 ? `for ${span(left(first))}` : 'expired';
  const more = tls.certificates.length - 1;
  state($('tls'), `tls ${first.name}${more ? ` and ${more} more` : ''}: ${text}`, left(first) > 14 * 86400 ? 'good' : 'down');
}

function showStatus() {
  put($('instance'), `${status.instance} · ${status.version} · up ${span(status.uptime_seconds)}`);
  state($('store'), `store ${status.store}`, status.store === 'up' ? 'good' : 'down');
  const ready = status.draining ? 'shutting down' : status.ready ? 'ready' : 'not ready: no backend is up';
  state($('ready'), ready, status.ready ? 'good' : 'down');
  showTls(status.tls);
  // What backends have; the status counts this page's own calls, too.
  put($('flight'), count(backends.reduce((sum, one) => sum + one.in_flight, 0)));
  put($('clients'), count(status.clients));
}

// Where this instance is alone there is nothing to tell.
function showInstances() {
  const { instances } = status;
  $('instances').hidden = instances.length < 2 && !instances.some((one) => one.cut_off);
  fill($('instance-rows'), instances.map((one) => ({
    key: one.id,
    cells: [
      { text: one.id === status.instance ? `${one.id} (this one)` : one.id, class: 'id' },
      one.address,
      { text: one.cut_off ? 'cut off' : 'connected', class: one.cut_off ? 'down' : 'up' },
      { text: one.id === status.instance ? '–' : time(one.age), class: 'number' },
      { text: one.lag === null ? '–' : time(one.lag), class: 'number' },
      { text: count(one.hot_clients), class: 'number' },
    ],
  })), 'There are no instances.');
}

function note(series) {
  const at = performance.now();
  const [last, first] = [looks[looks.length - 1], looks[0]];
  if (last) {
    const seconds = (at - last.at) / 1000;
    const bounds = times(series, looks[Math.max(0, looks.length - 5)].series);
    history.push({
      at,
      allowed: grown(status.allowed, last.status.allowed) / seconds,
      denied: grown(status.denied, last.status.denied) / seconds,
      p50: quantile(bounds, 0.5), p90: quantile(bounds, 0.9), p99: quantile(bounds, 0.99),
    });
    const since = (at - first.at) / 1000;
    const denied = grown(status.denied, first.status.denied) / since;
    put($('rate'), rate(grown(status.allowed, first.status.allowed) / since + denied));
    put($('refused'), rate(denied));
    $('refused').className = denied > 0 ? 'bad' : '';
    const recent = times(series, first.series);
    put($('p50'), time(quantile(recent, 0.5)));
    put($('p99'), time(quantile(recent, 0.99)));
  }
  looks.push({ at, status, series });
  while (looks.length > 2 && at - looks[0].at > AWHILE_MS) looks.shift();
  while (history.length && at - history[0].at > SPAN_MS) history.shift();
}

function showBackends() {
  const [first, last] = [looks[0], looks[looks.length - 1]];
  const seconds = Math.max((last.at - first.at) / 1000, 1);
  const counted = backends.map((one) => {
    const [now, then] = [last.series.get(title(one)), first.series.get(title(one))];
    const requests = now && then ? grown(now.requests, then.requests) : 0;
    const errors = now && then ? grown(now.errors, then.errors) : 0;
    return { one, requests, errors, p99: quantile(times(last.series, first.series, title(one)), 0.99) };
  });
  const all = new Map();
  for (const { one, requests } of counted) all.set(one.pool, (all.get(one.pool) || 0) + requests);
  fill($('backend-rows'), counted.map(({ one, requests, errors, p99 }) => {
    const kind = one.state !== 'up' ? one.state : one.health === 'unknown' ? 'up' : one.health;
    const share = requests ? requests / all.get(one.pool) : 0;
    const why = [one.cause, one.backup ? 'backup' : ''];
    return {
      key: title(one),
      cells: [
        { text: `${title(one)} (${one.url})`, class: 'id' },
        { text: kind, class: kind },
        { text: why.filter(Boolean).join('; '), class: 'why' },
        { text: one.in_flight + (one.max_in_flight ? ` of ${one.max_in_flight}` : ''), class: 'number' },
        { text: rate(requests / seconds), class: 'number' },
        {
          make: () => node('span', { class: 'level' }, node('progress', { value: share, 'aria-label': 'share' }), percent(share)),
          same: percent(share),
        },
        { text: requests ? percent(errors / requests) : '–', class: errors ? 'number bad' : 'number' },
        { text: time(p99), class: 'number' },
        { text: String(one.weight), class: 'number' },
        { make: () => doBackend(one), same: one.state, class: 'do' },
      ],
    };
  }), 'There are no backends.');
}

function doBackend(one) {
  const pool = one.pool === 'default' ? '' : `pools/${encodeURIComponent(one.pool)}/`;
  const turn = (to, word, text) => button(word, `${word} ${title(one)}`, () => act({
    title: `${word} ${title(one)}?`, text, word,
    request: { method: 'PATCH', path: `v1/${pool}backends/${encodeURIComponent(one.name)}`, body: { state: to } },
    said: `${title(one)}: ${word} is done.`,
    after: async () => {
      await lookAtBackends();
      showBackends();
    },
  }));
  if (one.state !== 'up') return turn('up', 'undrain', 'It is given requests again as soon as its health checks pass.');
  return [
    turn('drain', 'drain', 'It gets no new requests; those under way are answered.'), ' ',
    turn('down', 'take down', 'It is out of service until it is undrained.'),
  ];
}

async function lookAtBackends() {
  backends = (await get('v1/pools')).pools.flatMap((pool) => pool.backends);
}

async function everySecond() {
  const [found, metrics] = await Promise.all([get('v1/status'), call('GET', 'metrics'), lookAtBackends()]);
  status = found;
  note(parseMetrics(metrics.text));
  showStatus();
  showBackends();
  showInstances();
  draw();
}

// ---- who is limited, and why ----

function addressOf(id) {
  const v4 = /^((?:[0-9]{1,3}\.){3}[0-9]{1,3})(?::([0-9]+))?$/.exec(id);
  if (v4) return { address: v4[1], port: v4[2] && Number(v4[2]) };
  const v6 = /^\[?([0-9a-f:.]*:[0-9a-f:.]*)\]?(?:\/[0-9]+)?$/i.exec(id);
  const ported = /^\[([0-9a-f:.]+)\]:([0-9]+)$/i.exec(id);
  if (ported) return { address: ported[1], port: Number(ported[2]) };
  return v6 ? { address: v6[1] } : null;
}

// The stored limit of exactly that id, which is the first with it as a beginning.
async function storedLimit(id) {
  if (status && status.store === 'down') return null;
  const { limits } = await get(`v1/limits?${query({ prefix: id, limit: 1 })}`);
  return limits.length && limits[0].client_id === id ? limits[0] : null;
}

// What a client has left now.
async function levelsOf(id) {
  const peer = addressOf(id);
  if (peer) {
    const { json } = await call('POST', 'v1/check', peer.port === undefined ? { address: peer.address } : peer);
    return json.buckets;
  }
  const limit = await storedLimit(id);
  return limit ? (await get(`v1/limit/usage?${query({ client_id: id })}`)).buckets : [];
}

const LIMIT_OF = { client: 'its own limit', range: 'the limit of its range', default: 'the default limit' };

// As it was decided then.
function why({ policy, bucket, rule, denied }) {
  return `bucket ${bucket} of ${rule === null ? LIMIT_OF[policy] || policy : `the rule ${rule}`} (${count(denied)})`;
}

async function lookAtClients() {
  const [{ limited }, { clients }] = await Promise.all([
    get('v1/limited?window=1m&top=15'), get('v1/clients?window=1m&top=20'),
  ]);
  const found = new Map();
  for (const id of new Set([...limited, ...clients].map((one) => one.client_id))) {
    found.set(id, await levelsOf(id).catch((fault) => {
      if (fault.status === 401) throw fault;
      return [];
    }));
  }
  fill($('limited-rows'), limited.map(({ client_id: id, denied, reasons }) => ({
    key: id,
    cells: [
      { make: () => [id, ' ', button('set limit', `set the limit of ${id}`, () => edit(id))], same: id, class: 'id' },
      { text: count(denied), class: 'number bad' }, { text: reasons.map(why).join(', '), class: 'why' },
    ],
  })), 'Nobody is being limited.');
  const close = [...found].flatMap(([id, buckets]) => buckets
    .map((bucket) => ({ id, bucket, used: bucket.capacity ? 1 - bucket.level / bucket.capacity : 0 }))
    .filter(({ used }) => used > 0.8));
  close.sort((one, other) => other.used - one.used);
  fill($('close-rows'), close.slice(0, 15).map(({ id, bucket, used }) => ({
    key: `${id} ${bucket.name}`,
    cells: [
      { text: id, class: 'id' },
      {
        make: () => node('span', { class: 'level' }, node('progress', { value: used, 'aria-label': 'used' }), percent(used)),
        same: used.toFixed(3),
      },
      `${bucket.name}: ${count(bucket.level)} of ${count(bucket.capacity)} left`,
    ],
  })), 'Nobody is close to a limit.');
}

// ---- limits ----

const listing = { rows: [], levels: new Map(), cursor: null, next: null, asked: 0 };
let plans = [];
let editing = null; // {id, etag}

async function lookAtLimits() {
  if (status && status.store === 'down') {
    if (!listing.rows.length) fill($('limit-rows'), [], 'The store is down: limits cannot be listed. Those in memory stay in force.');
    return;
  }
  const asked = ++listing.asked;
  const members = { limit: ROWS };
  if ($('search').value) members.prefix = $('search').value;
  if ($('search-plan').value) members.plan = $('search-plan').value;
  if (listing.cursor) members.cursor = listing.cursor;
  const page = await get(`v1/limits?${query(members)}`);
  if (asked !== listing.asked) return;
  [listing.rows, listing.next] = [page.limits, page.next_cursor];
  showLimits();
  await lookAtLevels(asked);
}

async function lookAtLevels(asked) {
  for (const { client_id: id } of listing.rows) {
    const usage = await get(`v1/limit/usage?${query({ client_id: id })}`).catch(() => null);
    if (asked !== listing.asked) return;
    if (usage) listing.levels.set(id, usage.buckets);
  }
  showLimits();
}

function showLimits() {
  fill($('limit-rows'), listing.rows.map((limit) => {
    const id = limit.client_id;
    const buckets = listing.levels.get(id) || [];
    return {
      key: id,
      cells: [
        { text: id, class: 'id' }, termsOf(limit), limit.plan || '',
        {
          make: () => buckets.map((one) => node('div', {}, level(one.level, one.capacity, `level of ${one.name}`))),
          same: JSON.stringify(buckets),
        },
        { make: () => doLimit(id), same: id, class: 'do' },
      ],
    };
  }), $('search').value || $('search-plan').value ? 'No limit fits.' : 'There are no limits yet.');
  $('limits-next').hidden = !listing.next;
  $('limits-first').hidden = !listing.cursor;
}

const limitPath = (id) => `v1/limit?${query({ client_id: id })}`;

function doLimit(id) {
  const remove = {
    title: 'Delete this limit?', text: `${id} falls back to the next limit that fits it.`, word: 'delete',
    request: { method: 'DELETE', path: limitPath(id) }, said: `The limit of ${id} is deleted.`, after: changed,
  };
  const refill = {
    title: 'Fill its buckets?', text: `${id} starts full in this instance.`, word: 'refill',
    request: { method: 'POST', path: `v1/limit/reset?${query({ client_id: id })}` }, said: `${id} is full.`, after: changed,
  };
  return [
    button('edit', `edit ${id}`, () => edit(id)), ' ',
    button('refill', `refill ${id}`, () => act(refill)), ' ',
    button('delete', `delete ${id}`, () => act(remove)),
  ];
}

async function changed() {
  await Promise.all([lookAtLimits(), lookAtAudit()]);
}

// Opens the form on a client: on its limit where it has one, else as a new one.
async function edit(id, rates) {
  try {
    const stored = await storedLimit(id);
    const { json, etag } = stored ? await call('GET', limitPath(id)) : { json: null, etag: null };
    clearForm();
    editing = stored ? { id, etag, beside: beside(json) } : null;
    $('limit-id').value = id;
    $('limit-id').readOnly = Boolean(stored);
    if (json) {
      $('limit-rate').value = ratesOf(json.buckets);
      choose($('limit-plan'), json.plan || '');
      $('limit-flight').value = json.max_in_flight || '';
      $('limit-exempt').checked = json.mode === 'exempt';
      $('limit-shared').checked = json.shared;
    }
    if (rates) [$('limit-rate').value, $('limit-plan').value] = [rates, ''];
    put($('limit-title'), stored ? `Edit the limit of ${id}` : 'Add a limit');
    put($('limit-save'), stored ? 'save limit' : 'add limit');
    $('limit-cancel').hidden = false;
    $('limit-form').scrollIntoView({ block: 'center' });
    $('limit-rate').focus();
  } catch (fault) {
    say(fault.message);
  }
}

function clearForm() {
  editing = null;
  $('limit-form').reset();
  $('limit-id').readOnly = false;
  put($('limit-fault'), '');
  put($('limit-title'), 'Add a limit');
  put($('limit-save'), 'add limit');
  $('limit-cancel').hidden = true;
}

// What a stored limit says that the form has no field for: it stays as it is.
const beside = ({ weight, priority, per_instance }) => ({ weight, priority, per_instance });

function limitRequest() {
  const body = editing ? { ...editing.beside } : {};
  if ($('limit-plan').value) body.plan = $('limit-plan').value;
  const buckets = parseRates($('limit-rate').value);
  if (buckets.length) body.buckets = buckets;
  if ($('limit-flight').value) body.max_in_flight = Number($('limit-flight').value);
  if ($('limit-exempt').checked) body.mode = 'exempt';
  if ($('limit-shared').checked) body.shared = true;
  if (editing) return { method: 'PUT', path: limitPath(editing.id), body, fields: { 'If-Match': editing.etag } };
  return { method: 'POST', path: 'v1/limits', body: { client_id: $('limit-id').value, ...body } };
}

function choose(select, value) {
  if (![...select.options].some((one) => one.value === value)) select.append(node('option', { value }, value));
  select.value = value;
}

async function lookAtPlans() {
  if (status && status.store === 'down') return;
  plans = (await get('v1/plans?limit=1000')).plans;
  for (const id of ['limit-plan', 'search-plan']) {
    const [select, had] = [$(id), $(id).value];
    const first = select.options[0];
    select.replaceChildren(first, ...plans.map(({ name }) => node('option', { value: name }, name)));
    choose(select, had);
  }
  fill($('plan-rows'), plans.map((plan) => ({
    key: plan.name,
    cells: [
      { text: plan.name, class: 'id' },
      termsOf(plan),
      { make: () => doPlan(plan), same: JSON.stringify(plan), class: 'do' },
    ],
  })), 'There are no plans.');
}

const planPath = (name) => `v1/plan?${query({ name })}`;

function doPlan(plan) {
  const load = () => {
    [$('plan-name').value, $('plan-rate').value] = [plan.name, ratesOf(plan.buckets)];
    planBeside = { max_in_flight: plan.max_in_flight, weight: plan.weight, priority: plan.priority };
    $('plan-rate').focus();
  };
  const remove = {
    title: 'Delete this plan?', text: `${plan.name}: this works while no limit names it.`, word: 'delete',
    request: { method: 'DELETE', path: planPath(plan.name) }, said: `The plan ${plan.name} is deleted.`,
    after: () => Promise.all([lookAtPlans(), lookAtAudit()]),
  };
  return [
    button('edit', `edit the plan ${plan.name}`, load), ' ',
    button('delete', `delete the plan ${plan.name}`, () => act(remove)),
  ];
}

let planBeside = {}; // what the plan that was loaded into the form says and the form has no field for

function planRequest() {
  const body = { ...planBeside, buckets: parseRates($('plan-rate').value) };
  return { method: 'PUT', path: planPath($('plan-name').value), body };
}

// ---- what if, and what was ----

async function whatIf() {
  const buckets = parseRates($('if-rate').value).filter(({ mode }) => mode !== 'shadow');
  if (!buckets.length) throw new Error('write a rate such as 10/s burst 100');
  const seconds = SPAN_MS / 1000;
  const { clients } = await get('v1/clients?window=5m&top=50');
  const refused = (requests) => Math.max(0, ...buckets.map(({ amount, per, capacity = amount }) =>
    Math.ceil(requests - capacity - amount / secondsOf(per) * seconds)));
  const rows = clients.map((one) => ({ ...one, refused: refused(one.requests) }));
  const sum = (key) => rows.reduce((all, one) => all + one[key], 0);
  const hit = rows.filter((one) => one.refused).length;
  put($('if-sum'), `${hit} of ${rows.length} clients would have been refused, at least ${count(sum('refused'))} of `
    + `${count(sum('requests'))} requests. Now it was ${count(sum('denied'))}.`);
  fill($('if-rows'), rows.map((one) => ({
    key: one.client_id,
    cells: [
      { text: one.client_id, class: 'id' },
      { text: count(one.requests), class: 'number' },
      { text: rate(one.requests / seconds), class: 'number' },
      { text: count(one.denied), class: 'number' },
      { text: count(one.refused), class: one.refused ? 'number bad' : 'number' },
      {
        make: () => button('set it', `set this limit for ${one.client_id}`, () => edit(one.client_id, $('if-rate').value)),
        same: one.client_id, class: 'do',
      },
    ],
  })), 'Nobody asked for anything in the last five minutes.');
}

let entries = [];
let older = null;

function shortly(value) {
  if (value === null) return '–';
  const text = value.buckets ? [value.plan ? `plan ${value.plan}` : '', termsOf(value)].filter(Boolean).join(', ') : JSON.stringify(value);
  return text.length > 160 ? `${text.slice(0, 160)}…` : text;
}

async function lookAtAudit(cursor) {
  if (status && status.store === 'down') return;
  const page = await get(`v1/audit?${query(cursor ? { limit: ROWS, cursor } : { limit: ROWS })}`);
  entries = cursor ? [...entries, ...page.entries] : page.entries;
  older = page.next_cursor;
  $('audit-more').hidden = !older;
  fill($('audit-rows'), entries.map((one) => ({
    key: String(one.seq),
    cells: [
      new Date(one.at).toLocaleString(), one.actor, one.action,
      { text: Object.entries(one.target).map(([key, value]) => `${key.replace('_', ' ')} ${value}`).join(', '), class: 'id' },
      { text: `${shortly(one.before)} → ${shortly(one.after)}`, class: 'wide' },
    ],
  })), 'Nothing was changed yet.');
}

// ---- doing things ----

function ask({ title, text, word, request }) {
  const dialog = $('confirm');
  put($('confirm-title'), title);
  put($('confirm-text'), text);
  put($('confirm-yes'), word);
  put($('confirm-curl'), curl(request));
  dialog.returnValue = 'no';
  dialog.showModal();
  $('confirm-no').focus();
  return new Promise((done) => {
    dialog.addEventListener('close', () => done(dialog.returnValue === 'yes'), { once: true });
  });
}

async function act(action) {
  if (!await ask(action)) return;
  const { method, path, body, fields } = action.request;
  try {
    await call(method, path, body, fields);
    say(action.said);
    await action.after();
  } catch (fault) {
    say(`Not done: ${fault.message}`);
  }
}

// A form that makes a request; its faults stand in it.
function send(form, fault, make, done) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    put(fault, '');
    try {
      const { method, path, body, fields } = make();
      await call(method, path, body, fields);
      await done();
    } catch (error) {
      put(fault, error.message);
    }
  });
}

// ---- the token ----

let running = 0; // which run of the loops is the one that counts

function askForToken(text) {
  running += 1;
  token = '';
  $('main').hidden = true;
  $('forget').hidden = true;
  $('login').hidden = false;
  state($('link'), 'not signed in', 'warn');
  if ($('confirm').open) $('confirm').close('no');
  if (text) put($('login-fault'), text);
  $('token').focus();
}

$('login-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  put($('login-fault'), '');
  token = $('token').value;
  try {
    status = await get('v1/status');
    $('token').value = '';
    start();
  } catch (fault) {
    token = '';
    put($('login-fault'), fault.status === 401 ? 'That token is wrong.' : fault.message);
    $('token').select();
  }
});

// ---- running ----

// Again and again, the next time `ms` after the last one has ended.
async function loop(run, ms, work) {
  while (run === running) {
    try {
      await work();
      if (run === running && work === everySecond) state($('link'), 'live', 'good');
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault;
      if (run === running && work === everySecond) state($('link'), fault.status ? fault.message : 'the instance does not answer', 'down');
    }
    await new Promise((done) => setTimeout(done, ms));
  }
}

async function start() {
  running += 1;
  const run = running;
  $('login').hidden = true;
  $('main').hidden = false;
  $('forget').hidden = !token;
  loop(run, 1000, everySecond);
  loop(run, 2500, lookAtClients);
  try {
    // Before anything that needs the store: it may be down.
    status = status || await get('v1/status');
  } catch {
    // The loop says so.
  }
  loop(run, 8000, lookAtLimits);
  loop(run, 15000, lookAtPlans);
  loop(run, 8000, async () => {
    if (entries.length <= ROWS) await lookAtAudit();
  });
}

let typed = 0;
const search = () => {
  listing.cursor = null;
  lookAtLimits().catch((fault) => say(fault.message));
};
$('search').addEventListener('input', () => {
  clearTimeout(typed);
  typed = setTimeout(search, 200);
});
$('search-plan').addEventListener('change', search);
$('search-form').addEventListener('submit', (event) => {
  event.preventDefault();
  search();
});
$('limits-next').addEventListener('click', () => {
  listing.cursor = listing.next;
  lookAtLimits().catch((fault) => say(fault.message));
});
$('limits-first').addEventListener('click', search);
$('limit-cancel').addEventListener('click', clearForm);
$('audit-more').addEventListener('click', () => lookAtAudit(older).catch((fault) => say(fault.message)));
$('confirm-copy').addEventListener('click', () => copy($('confirm-curl').textContent));
$('forget').addEventListener('click', () => askForToken('The token is forgotten.'));
for (const [id, fault, make] of [['limit-curl', 'limit-fault', limitRequest], ['plan-curl', 'plan-fault', planRequest]]) {
  $(id).addEventListener('click', () => {
    try {
      copy(curl(make()));
    } catch (error) {
      put($(fault), error.message);
    }
  });
}
send($('limit-form'), $('limit-fault'), limitRequest, async () => {
  say(`The limit of ${$('limit-id').value} is in force.`);
  clearForm();
  await changed();
});
send($('plan-form'), $('plan-fault'), planRequest, async () => {
  say(`The plan ${$('plan-name').value} is in force.`);
  $('plan-form').reset();
  planBeside = {};
  await Promise.all([lookAtPlans(), lookAtAudit()]);
});
$('if-form').addEventListener('submit', (event) => {
  event.preventDefault();
  put($('if-fault'), '');
  whatIf().catch((error) => put($('if-fault'), error.message));
});
window.addEventListener('resize', draw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

// The page says when a token is needed: a call without one would only fail.
if (document.documentElement.dataset.token === 'needed' && !token) askForToken('');
else start();
