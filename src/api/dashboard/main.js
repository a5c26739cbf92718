// The dashboard: a client of the API like any other. One call a refresh has all of the first screen; nothing is asked while
// nobody looks.
'use strict';

const EVERY_MS = 2000;

// ---- the first line ----

const ROWS_OF = {
  backends: '#backends', errors: '#backends', requests: '#traffic', limited: '#limited', store: '#limits', instances: '#instances',
  loops: '#traffic', certificate: '#certificates', process: '#traffic',
};

const LEVELS = { ok: 'well', warn: 'worth a look', bad: 'bad' };

function showLine() {
  const wanted = seen.line.map((item) => ({ ...item, href: rowsOf(item) }));
  const same = JSON.stringify(wanted);
  const list = $('line');
  if (list.dataset.same !== same) {
    list.dataset.same = same;
    const focused = document.activeElement && document.activeElement.dataset.part;
    list.replaceChildren(...wanted.map((item) => {
      const inside = [sign(item.level), node('span', { class: 'sr' }, `${LEVELS[item.level]}: `), item.text];
      return node('li', {}, node('a', { href: item.href, class: `chip ${item.level}`, 'data-part': item.name }, ...inside));
    }));
    if (focused) list.querySelector(`[data-part="${focused}"]`)?.focus();
  }
  const worst = ['bad', 'warn', 'ok'].find((kind) => seen.line.some((item) => item.level === kind));
  document.title = worst === 'ok' ? 'Balancer' : `${SIGNS[worst]} Balancer`;
}

// Rows that are there to be seen.
function rowsOf({ name }) {
  const isAlone = seen.instances.length < 2 && !seen.instances.some((one) => one.cut_off);
  return name === 'instances' && isAlone ? '#about' : ROWS_OF[name] || '#main';
}

function showTraffic() {
  const { now } = seen;
  put($('rate'), rate(now.requests_per_sec));
  put($('errors'), rate(now.errors_per_sec));
  put($('refused'), rate(seen.limited_per_sec));
  // As the line judges it.
  const judged = seen.line.find((item) => item.name === 'errors').level;
  $('errors').className = judged === 'ok' ? '' : judged;
  $('refused').className = seen.limited_per_sec ? 'warn' : '';
  put($('p50'), quantile(now.p50));
  put($('p95'), quantile(now.p95));
  put($('p99'), quantile(now.p99));
  put($('flight'), count(seen.in_flight));
  put($('clients'), count(seen.clients));
  put($('totals'), `Since the start: ${many(seen.requests, 'request')}, ${count(seen.allowed)} allowed, ${count(seen.denied)} refused by a limit.`);
  fill($('mark-rows'), [...seen.marks].reverse().slice(0, 30).map((mark) => ({
    key: `${mark.at} ${mark.text}`,
    level: { down: 'bad', ejected: 'bad', reload_failed: 'bad', drain: 'warn' }[mark.kind] || 'ok',
    cells: [{ text: clock(mark.at), class: 'when' }, { text: mark.text, class: 'wide' }],
  })), 'Nothing happened within the last hour.');
  put($('mark-count'), ` (${count(seen.marks.length)})`);
}

// The certificates that clients are shown; what has less than two weeks is to be renewed.
function showCertificates() {
  $('certificates').hidden = !seen.tls;
  if (!seen.tls) return;
  const left = (one) => Math.floor(Date.parse(one.expires) / 1000 - seen.at);
  const kind = (one) => (left(one) < 3 * 86400 ? 'bad' : left(one) < 14 * 86400 ? 'warn' : 'ok');
  const order = [...seen.tls.certificates].sort((one, other) => left(one) - left(other));
  fill($('certificate-rows'), order.map((one, at) => ({
    key: `${one.name} ${at}`,
    level: kind(one),
    cells: [
      { text: one.name, class: 'id' },
      { text: one.names.join(', '), class: 'wide' },
      { make: () => [sign(kind(one)), left(one) > 0 ? `for ${span(left(one))}` : 'expired'], same: `${kind(one)} ${span(Math.max(0, left(one)))}`, class: kind(one) },
    ],
  })), 'There are no certificates.');
}

function showOverview() {
  document.body.dataset.role = seen.role;
  for (const element of document.querySelectorAll('[data-write]')) element.hidden = !mayWrite();
  put($('instance'), `${seen.instance} · ${seen.version} · up ${span(seen.uptime_seconds)}`);
  showLine();
  showTraffic();
  showClients();
  showBackends();
  showInstances();
  showCertificates();
  showScopes();
}

// ---- refreshing ----

let known; // the change that the lists were read after, and whether there was a store; undefined: they were not read yet

// One call. What else is asked for has changed, or is missing in the plots.
async function look() {
  const run = running;
  const found = await get('v1/overview');
  // The token was forgotten meanwhile: nothing is shown or asked for any more.
  if (run !== running) return;
  seen = found;
  showOverview();
  if (!takeStep()) await loadHistory();
  if (run !== running) return;
  draw();
  const now = `${seen.changes} ${storeAnswers()}`;
  if (known !== now) {
    await Promise.all([loadLimits(), loadPlans(), loadAudit()]);
    known = now;
  }
}

// After something was done: at once, and the lists whatever their number says.
async function refresh() {
  known = undefined;
  await look();
}

function link(text, kind) {
  put($('link'), text);
  $('link').className = `state ${kind}`;
}

let running = 0; // which run of the loop is the one that counts
let wake = () => {};

async function loop(run) {
  while (run === running) {
    if (document.hidden) {
      link('paused', 'warn');
      await new Promise((done) => { wake = done; });
      continue;
    }
    try {
      await look();
      if (run === running) link('live', 'ok');
    } catch (fault) {
      // An answer that is not the instance's any more: the page goes on asking, and does not call itself live.
      if (!(fault instanceof Fault)) reportError(fault);
      if (run === running) link(fault.status ? fault.message : 'the instance does not answer', 'bad');
    }
    await new Promise((done) => {
      setTimeout(done, EVERY_MS);
    });
  }
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) wake();
});

// ---- the token ----

function askForToken(text) {
  running += 1;
  wake();
  token = '';
  [seen, known] = [null, undefined];
  $('main').hidden = true;
  $('line').hidden = true;
  $('forget').hidden = true;
  $('login').hidden = false;
  link('not signed in', 'warn');
  for (const id of ['confirm', 'client']) if ($(id).open) $(id).close('no');
  if (text) put($('login-fault'), text);
  $('token').focus();
}

$('login-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  put($('login-fault'), '');
  token = $('token').value.trim();
  // The browser could not even send it.
  const wrong = /[^\x21-\x7e]/u.exec(token);
  if (wrong) {
    put($('login-fault'), `No token has “${wrong[0]}” in it: letters, digits and signs of ASCII alone.`);
    token = '';
    $('token').select();
    return;
  }
  try {
    await get('v1/overview');
    $('token').value = '';
    start();
  } catch (fault) {
    token = '';
    put($('login-fault'), fault.status === 401 ? 'That token is wrong.' : fault.message);
    $('token').select();
  }
});

function start() {
  running += 1;
  $('login').hidden = true;
  $('main').hidden = false;
  $('line').hidden = false;
  $('forget').hidden = !token;
  loop(running);
}

$('confirm-copy').addEventListener('click', () => copy($('confirm-curl').textContent));
$('forget').addEventListener('click', () => askForToken('The token is forgotten.'));

// The page says when a token is needed: a call without one would only fail.
if (document.documentElement.dataset.token === 'needed' && !token) askForToken('');
else start();
