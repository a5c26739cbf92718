// The audit: who changed what, a sentence each.
'use strict';

const PAGE = 20;

let entries = [];
let older = null;

// A limit, a plan or what was said of a backend, in a few words.
function inWords(value) {
  if (value === null || value === undefined) return '';
  if (value.buckets) return [value.plan ? `plan ${value.plan}` : '', termsOf(value)].filter(Boolean).join(', ');
  if (typeof value !== 'object') return String(value);
  if (Array.isArray(value)) return value.map(inWords).filter(Boolean).join('; ');
  const said = ([name, one]) => `${name.replaceAll('_', ' ')} ${one === null ? 'none' : typeof one === 'object' ? inWords(one) : one}`;
  return Object.entries(value).filter(([, one]) => one !== null).map(said).join(', ');
}

const DONE = {
  drain: 'drained', undrain: 'undrained', down: 'took down', up: 'put back into service', reset: 'filled the buckets of',
};

function subject(target) {
  const { client_id: client, plan, backend, pool } = target;
  if (client !== undefined) return `the limit of ${client}`;
  if (plan !== undefined) return `the plan ${plan}`;
  if (backend !== undefined) return `the backend ${pool ? `${pool}/` : ''}${backend}`;
  return Object.entries(target).map(([name, value]) => `${name} ${value}`).join(', ');
}

// "ops changed the limit of 10.0.0.7 to 100/s burst 50; it was 10/s."
function sentence({ actor, action, target, before, after }) {
  const [was, is] = [inWords(before), inWords(after)];
  if (target.operations !== undefined) return `${actor} made ${many(target.operations, 'change')} of limits at once.`;
  if (action === 'reset') return `${actor} filled the buckets of ${target.client_id ?? subject(target)}.`;
  if (DONE[action]) return `${actor} ${DONE[action]} ${subject(target)}.`;
  if (action === 'delete') return `${actor} deleted ${subject(target)}${was ? `; it was ${was}` : ''}.`;
  if (action === 'create') return `${actor} added ${subject(target)}${is ? `: ${is}` : ''}.`;
  if (action === 'put') return `${actor} changed ${subject(target)}${is ? ` to ${is}` : ''}${was ? `; it was ${was}` : ''}.`;
  return `${actor}: ${action} ${subject(target)}.`;
}

async function loadAudit(cursor) {
  if (!storeAnswers()) return;
  const page = await get(`v1/audit?${query(cursor ? { limit: PAGE, cursor } : { limit: PAGE })}`);
  entries = cursor ? [...entries, ...page.entries] : page.entries;
  older = page.next_cursor;
  $('audit-more').hidden = !older;
  fill($('audit-rows'), entries.map((one) => ({
    key: String(one.seq),
    cells: [{ text: new Date(one.at).toLocaleString(), class: 'when' }, { text: sentence(one), class: 'wide' }],
  })), 'Nothing was changed yet. Each change of a limit, a plan or a backend will stand here.');
}

$('audit-more').addEventListener('click', () => loadAudit(older).catch((fault) => say(fault.message)));
