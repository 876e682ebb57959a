/**
 * Asks the service. Whatever goes wrong is a Problem, of the service's making (RFC 9457) or, where it was not reached,
 * of the page's own. It keeps no credentials: each call is given its own.
 */

const answerMsMax = 60_000;

/** @typedef {{ readonly detail: string, readonly pointer?: string, readonly parameter?: string }} FieldProblem */
/** @typedef {{ id: number, login: string, registered: string, version: number, changed?: string }} User */
/** @typedef {User & { user: User, users: User[], next: string | null, expires: string, token: string }} Answer */

export class Problem extends Error {
  /**
   * @param {string} type `urn:registrar:…`, or `page:…` where there was no answer
   * @param {string} detail
   * @param {{ status?: number, fields?: readonly FieldProblem[], retryAfterSeconds?: number | undefined }} [more]
   */
  constructor(type, detail, { status = 0, fields = [], retryAfterSeconds } = {}) {
    super(detail);
    this.type = type;
    this.status = status;
    this.fields = fields;
    this.retryAfterSeconds = retryAfterSeconds;
  }

  /** Whether the request may have been carried out all the same. */
  get isOpenEnded() {
    return this.type.startsWith('page:') || this.type === 'urn:registrar:outcome-unknown';
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {{ body?: unknown, headers?: Record<string, string> }} [more]
 * @returns {Promise<Answer>} the answer's JSON; what has none is not to be read
 */
export async function ask(method, path, { body, headers = {} } = {}) {
  const type = body === undefined ? {} : { 'Content-Type': 'application/json' };
  /** @type {Response} */
  let response;
  /** @type {string} */
  let text;
  try {
    response = await fetch(path, {
      method,
      headers: { Accept: 'application/json', ...type, ...headers },
      body: body === undefined ? null : JSON.stringify(body),
      cache: 'no-store',
      credentials: 'same-origin',
      redirect: 'error',
      signal: AbortSignal.timeout(answerMsMax),
    });
    text = await response.text();
  } catch (error) {
    throw unreached(error);
  }
  const json = parsed(text);
  if (response.ok) {
    if (response.status !== 204 && json === undefined) throw garbled(response.status);
    return json;
  }
  if (typeof json?.type !== 'string' || typeof json.detail !== 'string') throw garbled(response.status, retryAfter(response));
  const fields = Array.isArray(json.errors) ? json.errors : [];
  throw new Problem(json.type, json.detail, { status: response.status, fields, retryAfterSeconds: retryAfter(response) });
}

/** @param {unknown} error */
function unreached(error) {
  if (error instanceof DOMException && error.name === 'TimeoutError') {
    return new Problem('page:timeout', 'Registrar did not answer in time. Try again.');
  }
  // This machine itself is there without a network.
  if (!navigator.onLine && !/^(?:localhost|127\.0\.0\.1|\[::1\])$/.test(location.hostname)) {
    return new Problem('page:offline', 'You are offline: there is no network. Nothing was lost; try again when it is back.');
  }
  return new Problem('page:unreachable', 'Registrar cannot be reached: it may be stopped, or something in between refuses. Try again.');
}

/**
 * @param {number} status
 * @param {number} [retryAfterSeconds]
 */
function garbled(status, retryAfterSeconds) {
  const detail = 'What came back is no answer of Registrar’s: something in between has sent it.';
  return new Problem('page:garbled', detail, { status, retryAfterSeconds });
}

/** @param {Response} response */
function retryAfter({ headers }) {
  const value = headers.get('Retry-After') ?? '';
  return /^\d{1,6}$/.test(value) ? Number(value) : undefined;
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * @param {string} login
 * @returns {string | undefined} undefined for what a URL takes for "here" and "above", which are nobody's logins
 */
export function userPath(login) {
  return login === '' || login === '.' || login === '..' ? undefined : `/user/${encodeURIComponent(login)}`;
}

/**
 * RFC 7617, in UTF-8.
 * @param {string} login
 * @param {string} password
 */
export function basic(login, password) {
  const bytes = new TextEncoder().encode(`${login}:${password}`);
  return { Authorization: `Basic ${btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))}` };
}

/**
 * @param {string | undefined} token
 * @returns {Record<string, string>}
 */
export function bearer(token) {
  return token === undefined ? {} : { Authorization: `Bearer ${token}` };
}

/** @param {User} user */
export function ifMatch({ id, version }) {
  return { 'If-Match': `"${id}.${version}"` };
}

/**
 * Registers with a key that stays the same until what is sent is another: so a second try after a lost answer is the same
 * registration, and finds the account that the first one made.
 * @returns {(login: string, password: string, headers?: Record<string, string>) => Promise<User>}
 */
export function registrar() {
  let key = '';
  let keyOf = '';
  return async (login, password, headers = {}) => {
    const now = JSON.stringify([login, password]);
    if (now !== keyOf) [key, keyOf] = [newKey(), now];
    const user = await ask('POST', '/user/', { body: { login, password }, headers: { ...headers, 'Idempotency-Key': `"${key}"` } });
    keyOf = '';
    return user;
  };
}

function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
