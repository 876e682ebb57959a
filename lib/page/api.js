/**
 * Requests to the service. Every failure is a Problem: one of the service (RFC 9457), or one of the page if the service was not
 * reached. It keeps no credentials: each call is given its own, and the browser adds the cookie.
 */

const answerMsMax = 60_000;
/** The path below which a proxy serves the service. */
const prefix = document.documentElement.dataset.prefix ?? '';

/** @typedef {{ readonly detail: string, readonly pointer?: string, readonly parameter?: string }} FieldProblem */
/** @typedef {{ changed?: string, disabled?: string, invited?: true }} State */
/** @typedef {State & { id: number, login: string, registered: string, version: number }} User */
/** @typedef {User & { user: User, users: User[], next: string | null, expires: string, token: string, link?: string }} Answer */

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
 * @returns {Promise<Answer>} the JSON of the response; undefined behind a 204
 */
export async function ask(method, path, { body, headers = {} } = {}) {
  /** @type {Record<string, string>} */
  const type = body === undefined ? {} : { 'Content-Type': 'application/json' };
  /** @type {Response} */
  let response;
  /** @type {string} */
  let text;
  try {
    // A path that the service has given has the prefix already.
    response = await fetch(prefix !== '' && path.startsWith(`${prefix}/`) ? path : prefix + path, {
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
    return new Problem('page:timeout', 'Registrar did not respond in time. Try again.');
  }
  // This machine itself is there without a network.
  if (!navigator.onLine && !/^(?:localhost|127\.0\.0\.1|\[::1\])$/.test(location.hostname)) {
    return new Problem('page:offline', 'You are offline. Try again when you are connected.');
  }
  return new Problem('page:unreachable', 'Registrar cannot be reached. Try again.');
}

/** @param {number} status @param {number} [retryAfterSeconds] */
function garbled(status, retryAfterSeconds) {
  return new Problem('page:garbled', 'The response did not come from Registrar. Try again.', { status, retryAfterSeconds });
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
 * @returns {string | undefined} undefined for what a URL reads as the current or the parent folder: neither is a login
 */
export function userPath(login) {
  return login === '' || login === '.' || login === '..' ? undefined : `/user/${encodeURIComponent(login)}`;
}

/** RFC 7617, in UTF-8. @param {string} login @param {string} password */
export function basic(login, password) {
  const bytes = new TextEncoder().encode(`${login}:${password}`);
  return { Authorization: `Basic ${btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))}` };
}

/** @param {string | undefined} token @returns {Record<string, string>} */
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
