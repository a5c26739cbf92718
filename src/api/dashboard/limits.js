// Limits and plans: to search, to change, and to try a number on the last minutes' clients.
'use strict';

const SHOWN = 20; // rows of a page here
const FETCHED = 1000; // rows of a page of the API, which are put in order by value

const listing = { rows: [], at: 0, total: null, cursor: null, next: null, before: [], asked: 0 };
let plans = [];
let editing = null; // {id, etag}

const asOne = () => Boolean($('search').value || $('search-plan').value);

async function loadLimits() {
  if (!storeAnswers()) {
    if (!listing.rows.length) fill($('limit-rows'), [], 'The store is down: limits cannot be listed. Those in memory stay in force.');
    put($('limit-sum'), '');
    return;
  }
  const asked = ++listing.asked;
  const members = { limit: FETCHED, total: true };
  if ($('search').value) members.contains = $('search').value;
  if ($('search-plan').value) members.plan = $('search-plan').value;
  if (listing.cursor) members.cursor = listing.cursor;
  const page = await get(`v1/limits?${query(members)}`);
  if (asked !== listing.asked) return;
  listing.rows = page.limits.sort((one, other) => byValue(one.client_id, other.client_id));
  [listing.next, listing.total] = [page.next_cursor, page.total];
  if (listing.at >= listing.rows.length) listing.at = 0;
  showLimits();
}

function showLimits() {
  const { rows, at, total } = listing;
  const shown = rows.slice(at, at + SHOWN);
  const write = mayWrite();
  const none = write ? 'There are no limits yet. Add one above: a client\'s address, a range such as 10.0.0.0/8 or a key, and a rate.'
    : 'There are no limits yet.';
  fill($('limit-rows'), shown.map((limit) => {
    const id = limit.client_id;
    const cells = [clientCell(id), { text: termsOf(limit), class: 'wide' }, limit.plan || '–'];
    if (write) cells.push({ make: () => doLimit(id), same: id, class: 'do' });
    return { key: id, cells };
  }), asOne() ? 'No limit fits. Search for another part of an id, or take the plan off.' : none);
  const first = listing.before.length * FETCHED + at;
  put($('limit-sum'), shown.length
    ? `${count(first + 1)} to ${count(first + shown.length)} of ${many(total, 'limit')}${asOne() ? ' that fit' : ''}` : '');
  $('limits-next').hidden = at + SHOWN >= rows.length && !listing.next;
  $('limits-back').hidden = !at && !listing.before.length;
}

function turnPage(by) {
  listing.at += by * SHOWN;
  const isBehind = listing.at >= listing.rows.length;
  if (!isBehind && listing.at >= 0) {
    showLimits();
    return;
  }
  if (isBehind) {
    listing.before.push(listing.cursor);
    listing.cursor = listing.next;
    listing.at = 0;
  } else {
    listing.cursor = listing.before.pop();
    listing.at = FETCHED - SHOWN;
  }
  loadLimits().catch((fault) => say(fault.message));
}

const limitPath = (id) => `v1/limit?${query({ client_id: id })}`;

function doLimit(id) {
  const remove = {
    title: 'Delete this limit?', text: `${id} falls back to the next limit that fits it.`, word: 'delete',
    request: { method: 'DELETE', path: limitPath(id) }, said: `The limit of ${id} is deleted.`, after: refresh,
  };
  return [
    button('edit', `edit ${id}`, () => edit(id)),
    button('delete', `delete ${id}`, () => act(remove)),
  ];
}

// Opens the form on a client: on its limit where it has one, else as a new one.
async function edit(id, rates) {
  try {
    const stored = await storedLimit(id);
    const { json, etag } = stored ? await call('GET', limitPath(id)) : { json: null, etag: null };
    clearForm();
    editing = stored ? { id, etag } : null;
    $('limit-id').value = id;
    $('limit-id').readOnly = Boolean(stored);
    if (json) {
      $('limit-rate').value = ratesOf(json.buckets);
      choose($('limit-plan'), json.plan || '');
      $('limit-flight').value = json.max_in_flight || '';
      $('limit-exempt').checked = json.mode === 'exempt';
      $('limit-shared').checked = json.shared;
      editing.kept = Object.fromEntries(KEPT.filter((name) => name in json).map((name) => [name, json[name]]));
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

// What a limit may say and the form has no field for: it stays as it is.
const KEPT = ['per_instance', 'weight', 'priority'];

function clearForm() {
  editing = null;
  $('limit-form').reset();
  $('limit-id').readOnly = false;
  put($('limit-fault'), '');
  put($('limit-title'), 'Add a limit');
  put($('limit-save'), 'add limit');
  $('limit-cancel').hidden = true;
}

function limitRequest() {
  const body = { ...(editing && editing.kept) };
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

// ---- plans ----

async function loadPlans() {
  if (!storeAnswers()) return;
  plans = (await get('v1/plans?limit=1000')).plans.sort((one, other) => byValue(one.name, other.name));
  for (const id of ['limit-plan', 'search-plan']) {
    const [select, had] = [$(id), $(id).value];
    select.replaceChildren(select.options[0], ...plans.map(({ name }) => node('option', { value: name }, name)));
    choose(select, had);
  }
  fill($('plan-rows'), plans.map((plan) => {
    const cells = [{ text: plan.name, class: 'id' }, { text: termsOf(plan), class: 'wide' }];
    if (mayWrite()) cells.push({ make: () => doPlan(plan), same: JSON.stringify(plan), class: 'do' });
    return { key: plan.name, cells };
  }), mayWrite() ? 'There are no plans. One below gives many clients the same limit, which is changed in one place.' : 'There are no plans.');
  put($('plan-count'), plans.length ? ` (${count(plans.length)})` : '');
}

const planPath = (name) => `v1/plan?${query({ name })}`;

let editingPlan = null; // {name, etag, kept}; the form has no fields for what is kept

// Opens the form on a plan as it is now.
async function editPlan(plan) {
  try {
    const { json: { name, buckets, ...rest }, etag } = await call('GET', planPath(plan));
    const kept = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== null));
    editingPlan = { name, etag, kept };
    [$('plan-name').value, $('plan-rate').value] = [name, ratesOf(buckets)];
    $('plan-name').readOnly = true;
    put($('plan-fault'), '');
    put($('plan-title'), `Edit the plan ${name}`);
    $('plan-cancel').hidden = false;
    $('plan-rate').focus();
  } catch (fault) {
    say(fault.message);
  }
}

function clearPlan() {
  $('plan-form').reset();
  editingPlan = null;
  $('plan-name').readOnly = false;
  put($('plan-fault'), '');
  put($('plan-title'), 'Add a plan');
  $('plan-cancel').hidden = true;
}

function doPlan(plan) {
  const remove = {
    title: 'Delete this plan?', text: `${plan.name}: this works while no limit names it.`, word: 'delete',
    request: { method: 'DELETE', path: planPath(plan.name) }, said: `The plan ${plan.name} is deleted.`, after: refresh,
  };
  return [
    button('edit', `edit the plan ${plan.name}`, () => editPlan(plan.name)),
    button('delete', `delete the plan ${plan.name}`, () => act(remove)),
  ];
}

function planRequest() {
  const buckets = parseRates($('plan-rate').value);
  if (!editingPlan) return { method: 'POST', path: 'v1/plans', body: { name: $('plan-name').value, buckets } };
  const { name, etag, kept } = editingPlan;
  return { method: 'PUT', path: planPath(name), body: { ...kept, buckets }, fields: { 'If-Match': etag } };
}

// ---- what if ----

const IF_S = 300;

async function whatIf() {
  const buckets = parseRates($('if-rate').value).filter(({ mode }) => mode !== 'shadow');
  if (!buckets.length) throw new Error('write a rate such as 10/s burst 100');
  const { clients } = await get('v1/clients?window=5m&top=50');
  const refused = (requests) => Math.max(0, ...buckets.map(({ amount, per, capacity = amount }) =>
    Math.ceil(requests - capacity - amount / secondsOf(per) * IF_S)));
  const rows = clients.map((one) => ({ ...one, refused: refused(one.requests) }));
  const sum = (key) => rows.reduce((all, one) => all + one[key], 0);
  const hit = rows.filter((one) => one.refused).length;
  put($('if-sum'), `${hit} of ${many(rows.length, 'client')} would have been refused, at least ${count(sum('refused'))} of `
    + `${count(sum('requests'))} requests. Now it was ${count(sum('denied'))}.`);
  rows.sort((one, other) => other.refused - one.refused);
  fill($('if-rows'), rows.map((one) => {
    const cells = [
      clientCell(one.client_id),
      { text: count(one.requests), class: 'number' },
      { text: rate(one.requests / IF_S), class: 'number' },
      { text: count(one.denied), class: 'number' },
      { text: count(one.refused), class: one.refused ? 'number warn' : 'number' },
    ];
    const set = () => button('set it', `set this limit for ${one.client_id}`, () => edit(one.client_id, $('if-rate').value));
    if (mayWrite()) cells.push({ make: set, same: one.client_id, class: 'do' });
    return { key: one.client_id, cells };
  }), 'Nobody asked for anything in the last five minutes: send some requests first.');
}

// ---- forms ----

let typed = 0;
const search = () => {
  Object.assign(listing, { cursor: null, at: 0, before: [] });
  loadLimits().catch((fault) => say(fault.message));
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
$('limits-next').addEventListener('click', () => turnPage(1));
$('limits-back').addEventListener('click', () => turnPage(-1));
$('limit-cancel').addEventListener('click', clearForm);
$('plan-cancel').addEventListener('click', clearPlan);
send($('limit-form'), $('limit-fault'), limitRequest, async () => {
  say(`The limit of ${$('limit-id').value} is in force.`);
  clearForm();
  await refresh();
});
send($('plan-form'), $('plan-fault'), planRequest, async () => {
  say(`The plan ${$('plan-name').value} is in force.`);
  clearPlan();
  await refresh();
});
copies('limit-curl', 'limit-fault', limitRequest);
copies('plan-curl', 'plan-fault', planRequest);
$('if-form').addEventListener('submit', (event) => {
  event.preventDefault();
  put($('if-fault'), '');
  whatIf().catch((error) => put($('if-fault'), error.message));
});
