// Elements and numbers: what the other scripts of the dashboard are made of. Whatever comes from the API is shown as text
// (textContent), never as HTML: a client's id may hold anything.
'use strict';

const $ = (id) => document.getElementById(id);

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
const small = (text) => node('small', {}, text);
const bar = (value, most, label) => node('progress', { max: Math.max(most, 1), value, 'aria-label': label });
const level = (left, of, label) => node('span', { class: 'level' }, bar(left, of, label), `${count(left)} of ${count(of)}`);

// A level by its word, which is told by a sign, too: nobody has to tell colours apart.
const SIGNS = { ok: '●', warn: '▲', bad: '✖' };
const sign = (kind) => node('span', { class: 'sign', 'aria-hidden': 'true' }, SIGNS[kind]);

// Rows by key, changed in place: whoever stands on a button stays there. Two may have one key, and keep their order. A cell is a text, or {text, class}, or
// {make, same}: made anew when `same` changes. On a narrow screen a row is a card, whose cells name their columns.
function fill(body, items, empty) {
  const heads = [...body.parentElement.tHead.rows[0].cells];
  const old = new Map();
  for (const row of body.rows) old.set(row.dataset.key, [...(old.get(row.dataset.key) || []), row]);
  const wanted = items.length ? items : [{ key: ' ', cells: [{ text: empty, class: 'none', span: true }] }];
  const rows = wanted.map(({ key, cells, level: kind }) => {
    const row = old.get(key)?.shift() || node('tr', { 'data-key': key, role: 'row' });
    row.className = kind || '';
    cells.forEach((cell, at) => fillCell(row, at, typeof cell === 'string' ? { text: cell } : cell, heads));
    while (row.cells.length > cells.length) row.deleteCell(-1);
    return row;
  });
  old.forEach((left) => left.forEach((row) => row.remove()));
  rows.forEach((row, at) => {
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] || null);
  });
}

function fillCell(row, at, said, heads) {
  const place = row.cells[at] || row.insertCell();
  place.setAttribute('role', 'cell');
  place.className = said.class || '';
  place.dataset.label = said.span ? '' : heads[at].textContent;
  if (said.span) place.colSpan = heads.length;
  if (!said.make) put(place, said.text);
  else if (place.dataset.same !== said.same) {
    place.dataset.same = said.same;
    place.replaceChildren(...[said.make()].flat());
  }
}

// ---- numbers ----

const count = (number) => number.toLocaleString('en', { maximumFractionDigits: 0 });
const rate = (number) => number.toLocaleString('en', { maximumFractionDigits: number < 10 ? 1 : 0 });
const percent = (part) => `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;
const many = (number, what) => `${count(number)} ${what}${number === 1 ? '' : 's'}`;

const time = (seconds) => {
  if (seconds === null || seconds === undefined) return '–';
  // By way of a number: 160 in two digits is "1.6e+2".
  const short = (number) => Number(number.toPrecision(2));
  return seconds < 0.995 ? `${short(seconds * 1000)} ms` : `${short(seconds)} s`;
};

// A percentile: the longest time that the instance tells from longer ones stands for those.
const BEYOND_S = 30;
const quantile = (seconds) => (seconds >= BEYOND_S ? `> ${time(BEYOND_S)}` : time(seconds));

function span(seconds) {
  const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min` : `${Math.floor(seconds)} s`;
}

function bytes(number) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let at = 0;
  while (number >= 999.5 && at < units.length - 1) [number, at] = [number / 1000, at + 1];
  return `${at ? Number(number.toPrecision(3)) : number} ${units[at]}`;
}

const clock = (epoch) => new Date(epoch * 1000).toLocaleTimeString();

// Addresses by their value, before names in their order: 10.0.0.2 comes before 10.0.0.10.
function byValue(one, other) {
  const [a, b] = [addressKey(one), addressKey(other)];
  if (a && b) return a < b ? -1 : a > b ? 1 : one < other ? -1 : 1;
  if (a || b) return a ? -1 : 1;
  return one.localeCompare(other, 'en', { numeric: true }) || (one < other ? -1 : 1);
}

// A text that sorts as the address does: its bits, then the length of its prefix or its port.
function addressKey(id) {
  const v4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:[:/](\d+))?$/.exec(id);
  const wide = (part, digits) => String(part || 0).padStart(digits, '0');
  if (v4) return `4${v4.slice(1, 5).map((part) => wide(part, 3)).join('')}${wide(v4[5], 6)}`;
  const v6 = /^\[?([0-9a-f:]*:[0-9a-f:]*)\]?(?:[:/](\d+))?$/i.exec(id);
  if (!v6) return null;
  const [head, tail] = v6[1].toLowerCase().split('::').map((half) => half.split(':').filter(Boolean));
  const groups = tail ? [...head, ...Array(Math.max(0, 8 - head.length - tail.length)).fill('0'), ...tail] : head;
  return `6${groups.map((group) => wide(group, 4)).join('')}${wide(v6[2], 6)}`;
}

// ---- rates ----

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
