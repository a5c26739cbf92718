// Backends and pools: how each is, since when and why, and what may be done with it.
'use strict';

const backendPath = ({ pool, name }) =>
  `v1/${pool === 'default' ? '' : `pools/${encodeURIComponent(pool)}/`}backends/${encodeURIComponent(name)}`;

const stateCell = (one) => ({
  make: () => [node('span', { class: one.level }, sign(one.level), one.is), small(`for ${span(one.since)}`)],
  same: `${one.level} ${one.is} ${span(one.since)}`,
});

// Why it is not up, or what else is to be said; and the last check: what came, how long it took, when.
function whyCell(one) {
  const why = [one.cause, one.backup ? 'backup' : '', one.cause || one.level === 'ok' ? '' : `${one.level === 'bad' ? 'most' : 'some'} of its answers are errors`];
  const check = one.last_check;
  const checked = check ? `${check.passed ? 'check' : 'check failed'}: ${check.came} in ${time(check.took)}, ${span(check.age)} ago`
    : 'not checked';
  const said = why.filter(Boolean).join('; ');
  return { make: () => [...(said ? [node('span', {}, said)] : []), small(checked)], same: `${said} ${checked}`, class: 'why' };
}

// What moved a measured bound last.
const MOVED = {
  quick: 'grew: answers are as quick as ever', trial: 'tries fewer now', idle: 'was lowered: places had waited', bounds: 'has new bounds',
  busy: 'may grow: all places were at work', none: 'was tried lower, and is as before',
};

// With the bound in force. One that is measured counts requests up to their answers' heads, so both numbers are told.
function flightCell({ in_flight: flight, limit, measured }) {
  if (limit === null) return { text: count(flight), class: 'number' };
  if (!measured) return { text: `${count(flight)} of ${count(limit)}`, class: 'number' };
  const [held, moved] = [`${count(measured.held)} of ${count(limit)} held`, MOVED[measured.moved] || 'is where it began'];
  return { make: () => [count(flight), small(held), small(`measured: ${moved}`)], same: `${flight} ${held} ${moved}`, class: 'number measured' };
}

function backendCells(one) {
  const share = one.requests ? ` (${percent(one.errors / one.requests)})` : '';
  const cells = [
    { make: () => [node('b', {}, one.title), small(one.url)], same: `${one.title} ${one.url}`, class: 'id' },
    stateCell(one), whyCell(one),
    flightCell(one),
    { text: rate(one.requests_per_sec), class: 'number' },
    { text: rate(one.errors_per_sec), class: one.errors_per_sec ? `number ${one.level}` : 'number' },
    { text: quantile(one.p99), class: 'number' },
    { text: count(one.requests), class: 'number' },
    { text: `${count(one.errors)}${one.errors ? share : ''}`, class: 'number' },
    { text: count(one.retries), class: 'number' },
    { text: bytes(one.response_bytes), class: 'number' },
    { text: String(one.weight), class: 'number' },
  ];
  if (mayWrite()) cells.push({ make: () => doBackend(one), same: `${one.state} ${one.weight} ${one.source}`, class: 'do' });
  return cells;
}

// Rows of good backends would be a long way past what is below.
const narrow = matchMedia('(max-width: 700px)');
let withAll = false;

function showBackends() {
  const { backends, pools } = seen;
  const most = withAll ? backends.length : Math.max(narrow.matches ? 5 : 25, backends.filter((one) => one.level !== 'ok').length);
  $('backends-all').hidden = backends.length <= most;
  put($('backends-all'), `show all ${backends.length}`);
  fill($('backend-rows'), backends.slice(0, most).map((one) => ({ key: one.title, level: one.level, cells: backendCells(one) })),
    mayWrite() ? 'There are no backends. Add one below, or write backends in the configuration and reload.'
      : 'There are no backends.');
  const sum = (key) => backends.reduce((all, one) => all + one[key], 0);
  put($('backend-sum'), `${backends.filter((one) => one.is === 'up').length} of ${backends.length} up, `
    + `${count(sum('in_flight'))} in flight. Since the start: ${many(sum('requests'), 'attempt')}, `
    + `${many(sum('errors'), 'error')}, ${count(sum('retries'))} sent again, ${bytes(sum('response_bytes'))}.`);
  showPools(pools);
  const select = $('backend-pool');
  const names = pools.map(({ name }) => name).sort(byValue);
  const same = JSON.stringify(names);
  if (select.dataset.same !== same) {
    const had = select.value;
    select.dataset.same = same;
    select.replaceChildren(...names.map((name) => node('option', { value: name }, name)));
    select.value = names.includes(had) ? had : 'default';
  }
  $('backend-pool-field').hidden = pools.length < 2;
}

// With one pool and nobody in line there is nothing more to say.
function showPools(pools) {
  $('pools').hidden = pools.length < 2 && !pools.some((one) => one.waiting);
  fill($('pool-rows'), pools.map((one) => ({
    key: one.name,
    level: one.level,
    cells: [
      { text: one.name, class: 'id' }, one.strategy,
      { make: () => [sign(one.level), `${one.backends_up} of ${one.backends_total}`], same: `${one.level} ${one.backends_up} ${one.backends_total}` },
      { text: rate(one.requests_per_sec), class: 'number' },
      { text: rate(one.errors_per_sec), class: 'number' },
      { text: lineOf(one), class: one.waiting ? 'why warn' : 'why' },
    ],
  })), 'There are no pools.');
}

// Its line of requests that wait for room, and who takes most of it where that is known.
function lineOf({ waiting, line }) {
  const parts = [`${count(waiting)} waiting`];
  if (line && line.clients) parts.push(`of ${many(line.clients, 'client')}`);
  if (line && line.busiest.length) parts.push(`most of ${line.busiest.map((one) => one.client_id).join(', ')}`);
  return parts.join(', ');
}

function doBackend(one) {
  const patch = (body) => ({ method: 'PATCH', path: backendPath(one), body });
  const turn = (to, word, text) => button(word, `${word} ${one.title}`, () => act({
    title: `${word} ${one.title}?`, text, word, request: patch({ state: to }), said: `${one.title}: ${word} is done.`, after: refresh,
  }));
  const weigh = button('weight', `change the weight of ${one.title}`, () => act({
    title: `Change the weight of ${one.title}?`, word: 'change', said: `The weight of ${one.title} is changed.`, after: refresh,
    text: 'Its share relative to the others; at 0 it gets nothing new.',
    field: { label: 'weight', min: 0, max: 1000, value: one.weight }, request: (weight) => patch({ weight }),
  }));
  const remove = button('remove', `remove ${one.title}`, () => act({
    title: `Remove ${one.title}?`, word: 'remove', said: `${one.title} is removed.`, after: refresh,
    text: 'It gets no new requests. It stays listed until those under way are answered, for 30 seconds at most.',
    request: { method: 'DELETE', path: `${backendPath(one)}?drain=30s` },
  }));
  const turns = one.state !== 'up' ? [turn('up', 'undrain', 'It is given requests again as soon as its health checks pass.')] : [
    turn('drain', 'drain', 'It gets no new requests; those under way are answered.'),
    turn('down', 'take down', 'It is out of service until it is undrained.'),
  ];
  // What the configuration file has can only be taken out there.
  return [...turns, weigh, ...(one.source === 'store' ? [remove] : [])];
}

function backendRequest() {
  const pool = $('backend-pool').value || 'default';
  const body = { name: $('backend-name').value, url: $('backend-url').value };
  if ($('backend-weight').value) body.weight = Number($('backend-weight').value);
  const path = pool === 'default' ? 'v1/backends' : `v1/pools/${encodeURIComponent(pool)}/backends`;
  return { method: 'POST', path, body };
}

// Where this instance is alone there is nothing to tell.
function showInstances() {
  const { instances } = seen;
  $('instances').hidden = instances.length < 2 && !instances.some((one) => one.cut_off);
  fill($('instance-rows'), instances.map((one) => ({
    key: one.id,
    level: one.cut_off ? 'bad' : 'ok',
    cells: [
      { text: one.id === seen.instance ? `${one.id} (this one)` : one.id, class: 'id' },
      one.address,
      { make: () => [sign(one.cut_off ? 'bad' : 'ok'), one.cut_off ? 'cut off' : 'connected'], same: String(one.cut_off), class: one.cut_off ? 'bad' : 'ok' },
      { text: one.id === seen.instance ? '–' : time(one.age), class: 'number' },
      { text: one.lag === null ? '–' : time(one.lag), class: 'number' },
      { text: count(one.hot_clients), class: 'number' },
    ],
  })), 'There are no instances.');
}

$('backends-all').addEventListener('click', () => {
  withAll = true;
  showBackends();
});
narrow.addEventListener('change', () => seen && showBackends());
send($('backend-form'), $('backend-fault'), backendRequest, async () => {
  say(`The backend ${$('backend-name').value} is added.`);
  $('backend-form').reset();
  await refresh();
});
copies('backend-curl', 'backend-fault', backendRequest);
