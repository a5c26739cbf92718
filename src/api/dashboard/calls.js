// Calls of the API, and doing things by them: each is shown as `curl` before it is made.
'use strict';

// In memory alone, and gone with the page: on the public port a page of a backend has the same origin and reads its storage.
let token = '';

// The newest overview.
let seen = null;

// What may not be done has no button.
const mayWrite = () => Boolean(seen) && seen.role === 'write';
const storeAnswers = () => !seen || seen.store !== 'down';

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
    const faults = (json && json.errors || []).map((one) => `${one.pointer}: ${one.detail}`);
    const detail = faults.length ? faults.join('; ') : json && json.detail || `status ${answer.status}`;
    throw new Fault(answer.status, detail);
  }
  return { json, etag: answer.headers.get('ETag') };
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
    const area = node('textarea', { class: 'copy', readonly: '', 'aria-label': 'to be copied' });
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

// Asks before anything is done. `field`: a number that the request is made of; `request` is a function of it then.
function ask({ title, text, word, field, request }) {
  const dialog = $('confirm');
  put($('confirm-title'), title);
  put($('confirm-text'), text);
  put($('confirm-yes'), word);
  $('confirm-field').hidden = !field;
  // One that is not asked for must not keep the form from being sent; one that is must not be sent empty.
  Object.assign($('confirm-number'), { disabled: !field, required: Boolean(field) });
  const made = () => (field ? request(Number($('confirm-number').value)) : request);
  const show = () => put($('confirm-curl'), curl(made()));
  if (field) {
    put($('confirm-label'), field.label);
    Object.assign($('confirm-number'), { min: field.min, max: field.max, value: field.value, oninput: show });
  }
  show();
  dialog.returnValue = 'no';
  dialog.showModal();
  (field ? $('confirm-number') : $('confirm-no')).focus();
  return new Promise((done) => {
    dialog.addEventListener('close', () => done(dialog.returnValue === 'yes' ? made() : null), { once: true });
  });
}

async function act(action) {
  const request = await ask(action);
  if (!request) return;
  try {
    await call(request.method, request.path, request.body, request.fields);
    say(action.said);
    await action.after();
  } catch (fault) {
    say(`Not done: ${fault.message}`);
  }
}

// Enter in the number means yes: the form's first button would be "cancel".
$('confirm-number').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter') return;
  event.preventDefault();
  if ($('confirm-number').reportValidity()) $('confirm').close('yes');
});

// A form that makes a request; its faults stand in it.
function send(form, fault, make, done) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    // A second click sends nothing: it would carry the version that the first one is about to change.
    if (form.dataset.sending) return;
    form.dataset.sending = 'yes';
    put(fault, '');
    try {
      const { method, path, body, fields } = make();
      await call(method, path, body, fields);
      await done();
    } catch (error) {
      put(fault, error.status === 412 ? `${error.message}: it was changed meanwhile. Cancel, and edit it as it is now.` : error.message);
    } finally {
      delete form.dataset.sending;
    }
  });
}

// Copies what a form would send.
function copies(id, fault, make) {
  $(id).addEventListener('click', () => {
    try {
      copy(curl(make()));
    } catch (error) {
      put($(fault), error.message);
    }
  });
}
