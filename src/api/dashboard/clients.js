// Who is limited now and why, who is close to it, and everything about one client.
'use strict';

const LIMIT_OF = { client: 'its own limit', range: 'the limit of its range', default: 'the default limit' };

// As it was decided then.
function why({ policy, bucket, rule, denied }) {
  return `bucket ${bucket} of ${rule === null ? LIMIT_OF[policy] || policy : `the rule ${rule}`} (${count(denied)})`;
}

const clientCell = (id) => ({
  make: () => node('button', { type: 'button', class: 'link', 'aria-label': `everything about ${id}`, click: () => openClient(id) }, id),
  same: id, class: 'id',
});

// Cards of all of them would be a long way past what is below.
const FEW = 5;
let allClients = false;

function showClients() {
  const { limited, close } = seen;
  const most = allClients || !narrow.matches ? Infinity : FEW;
  $('clients-all').hidden = Math.max(limited.length, close.length) <= most;
  put($('clients-all'), `show all ${count(limited.length)} limited, ${count(close.length)} close to it`);
  const { text, value } = seen.line.find((item) => item.name === 'limited');
  put($('limited-about'), `Clients that were refused within the last minute, most refusals first${value > limited.length ? `: ${count(limited.length)} of ${text}` : ''}.`);
  fill($('limited-rows'), limited.slice(0, most).map(({ client_id: id, denied, reasons }) => ({
    key: id,
    level: 'warn',
    cells: [clientCell(id), { text: count(denied), class: 'number warn' }, { text: reasons.map(why).join(', '), class: 'why' }],
  })), 'Nobody is being limited. A limit that is set below holds its client on the next request.');
  fill($('close-rows'), close.slice(0, most).map((bucket) => {
    const used = 1 - bucket.level / bucket.capacity;
    return {
      key: `${bucket.client_id} ${bucket.name}`,
      cells: [
        clientCell(bucket.client_id),
        { make: () => node('span', { class: 'level' }, bar(used, 1, 'used'), percent(used)), same: used.toFixed(3) },
        `${bucket.name}: ${count(bucket.level)} of ${count(bucket.capacity)} left`,
      ],
    };
  }), 'Nobody is close to a limit.');
}

$('clients-all').addEventListener('click', () => {
  allClients = true;
  showClients();
});
narrow.addEventListener('change', () => seen && showClients());

// ---- one client ----

function addressOf(id) {
  const v4 = /^((?:[0-9]{1,3}\.){3}[0-9]{1,3})(?::([0-9]+))?$/.exec(id);
  if (v4) return { address: v4[1], ...(v4[2] && { port: Number(v4[2]) }) };
  const ported = /^\[([0-9a-f:.]+)\]:([0-9]+)$/i.exec(id);
  if (ported) return { address: ported[1], port: Number(ported[2]) };
  const v6 = /^\[?([0-9a-f:.]*:[0-9a-f:.]*)\]?(?:\/[0-9]+)?$/i.exec(id);
  return v6 ? { address: v6[1] } : null;
}

// The stored limit of exactly that id, which is the first with it as a beginning.
async function storedLimit(id) {
  if (!storeAnswers()) return null;
  const { limits } = await get(`v1/limits?${query({ prefix: id, limit: 1 })}`);
  return limits.length && limits[0].client_id === id ? limits[0] : null;
}

// What decides for a client, and what it has left.
async function decisionOf(id, stored) {
  const peer = addressOf(id);
  if (peer) {
    const { json } = await call('POST', 'v1/check', peer);
    return { matched: json.matched, buckets: json.buckets };
  }
  if (!stored) return { matched: null, buckets: [] };
  const { buckets } = await get(`v1/limit/usage?${query({ client_id: id })}`);
  return { matched: id, buckets };
}

async function openClient(id) {
  const dialog = $('client');
  dialog.dataset.id = id;
  put($('client-title'), id);
  $('client-about').replaceChildren(node('p', {}, 'Asking …'));
  $('client-limit').hidden = !mayWrite();
  $('client-refill').hidden = true;
  if (!dialog.open) dialog.showModal();
  try {
    const stored = await storedLimit(id);
    const [decision, { limited }] = await Promise.all([decisionOf(id, stored), get('v1/limited?window=1h&top=1000')]);
    if (dialog.dataset.id !== id) return;
    const entry = stored || (decision.matched ? await storedLimit(decision.matched) : null);
    if (dialog.dataset.id !== id) return;
    const refused = limited.find((one) => one.client_id === id || one.client_id === decision.matched);
    $('client-about').replaceChildren(...aboutClient(id, entry, decision, refused));
    $('client-refill').hidden = !mayWrite() || !stored;
    put($('client-limit'), stored ? 'edit limit' : 'set a limit of its own');
  } catch (fault) {
    if (dialog.dataset.id !== id) return;
    $('client-about').replaceChildren(node('p', { class: 'fault', role: 'alert' }, fault.message));
  }
}

function aboutClient(id, entry, { matched, buckets }, refused) {
  const fact = (name, ...value) => [node('dt', {}, name), node('dd', {}, ...value)];
  const decides = matched === null ? 'nothing: it is unlimited'
    : matched === 'default' ? 'the default limit' : matched === id ? 'its own limit' : `the limit of ${matched}`;
  const left = buckets.map((one) => node('div', {}, `${one.name} `, level(one.level, one.capacity, `level of ${one.name}`)));
  const reasons = refused ? refused.reasons.map((one) => node('div', {}, why(one))) : ['none'];
  const facts = [
    ...fact('decided by', decides),
    ...(entry ? fact('limit', termsOf(entry) || '–') : []),
    ...fact('plan', entry && entry.plan ? entry.plan : 'none'),
    ...fact('left now', ...(left.length ? left : ['–'])),
    ...fact('refused within the last hour', ...reasons),
  ];
  return [node('dl', { class: 'facts' }, ...facts)];
}

$('client-close').addEventListener('click', () => $('client').close());
$('client-limit').addEventListener('click', () => {
  $('client').close();
  edit($('client').dataset.id);
});
$('client-refill').addEventListener('click', () => {
  const { id } = $('client').dataset;
  act({
    title: 'Fill its buckets?', text: `${id} starts full in this instance.`, word: 'refill',
    request: { method: 'POST', path: `v1/limit/reset?${query({ client_id: id })}` }, said: `${id} is full.`,
    after: () => openClient(id),
  });
});
