/** Bytes over TLS as no client would send them: ambiguous requests, and whether what comes back is a sound response. */

import { once } from 'node:events';
import { connect } from 'node:tls';
import type { TLSSocket } from 'node:tls';

export async function connectRaw(url: string): Promise<TLSSocket> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname.replace(/[[\]]/g, ''), port: Number(port), rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  return socket;
}

/** Sends the bytes and resolves with all that comes back until the other side closes, or `ms` have passed. */
export async function sendRaw(url: string, parts: readonly (string | Buffer)[], ms = 3_000): Promise<string> {
  const socket = await connectRaw(url);
  const closed = new Promise((resolve) => socket.once('close', resolve));
  let text = '';
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk) => (text += chunk.toString('latin1')));
  for (const part of parts) {
    // It may have been refused before it was all sent.
    if (socket.writable) socket.write(part);
    if (parts.length > 1) await new Promise((resolve) => setImmediate(resolve));
  }
  const timer = setTimeout(() => socket.destroy(), ms);
  await closed;
  clearTimeout(timer);
  return text;
}

/** Bytes as they came, and what is wrong with them. */
export interface JudgedAnswer {
  readonly status: number;
  readonly text: string;
  readonly findings: readonly string[];
  /** Where the answer ends; undefined while it is not whole. */
  readonly end: number | undefined;
}

/** @param received in Latin-1, from the beginning of an answer. Undefined while its head is not whole. */
export function judgeAnswer(received: string, method: string): JudgedAnswer | undefined {
  const cut = received.indexOf('\r\n\r\n');
  if (cut < 0) return undefined;
  const [first = '', ...lines] = received.slice(0, cut).split('\r\n');
  const findings: string[] = [];
  const status = Number(/^HTTP\/1\.1 (\d{3}) [A-Z]/.exec(first)?.[1] ?? 0);
  if (status === 100) return judgeAnswer(received.slice(cut + 4), method);
  const headers = new Map<string, string>();
  for (const line of lines) {
    const [, name = '', value = ''] = /^([A-Za-z-]+): ([\x20-\x7e]*)$/.exec(line) ?? [];
    if (name === '' || headers.has(name.toLowerCase())) findings.push(`the header "${line}"`);
    headers.set(name.toLowerCase(), value);
  }
  const rest = received.slice(cut + 4);
  const isChunked = headers.get('transfer-encoding') === 'chunked';
  // The method of a request that cannot be parsed is unknown; Node has not written that response, and gives it no date.
  const isHead = method === 'HEAD' && headers.has('date');
  const isBare = isHead || status === 204 || status === 304;
  const length = isBare ? 0 : isChunked ? rest.indexOf('0\r\n\r\n') + 5 : Number(headers.get('content-length') ?? NaN);
  const isWhole = isChunked && !isBare ? length >= 5 : rest.length >= length;
  const body = rest.slice(0, length);
  const finding = (isRight: boolean, what: string): void => void (isRight || findings.push(what));
  finding(status >= 200 && status < 600, `the status line "${first}"`);
  finding(status < 500 || status === 503 || status === 507, `a failure: ${status}`);
  finding(isHead || (status === 204 || status === 304) === (!headers.has('content-length') && !isChunked), 'a length where no body is, or none where one is');
  if (isWhole) finding(rest.length === length, `${rest.length - length} bytes behind the answer`);
  finding(headers.get('cache-control') === 'no-store', 'no Cache-Control: no-store');
  finding(!/pbkdf2|[0-9a-f]{32}\$|node:|\.ts:\d|\/lib\//.test(received), 'it reveals internals');
  if (status >= 400) {
    finding(headers.get('content-type') === 'application/problem+json', 'no problem+json');
    if (!isBare && isWhole) findings.push(...judgeProblem(body, status, headers));
    if (status === 401) finding(headers.has('www-authenticate'), 'no WWW-Authenticate');
    if (status === 405) finding(headers.has('allow'), 'no Allow');
    if (status === 429 || status === 503) finding(/^[1-9]\d*$/.test(headers.get('retry-after') ?? ''), 'no Retry-After');
  }
  finding(/^[0-9a-f]{16}$/.test(headers.get('x-request-id') ?? ''), 'no X-Request-Id');
  return { status, text: received, findings, end: isWhole ? cut + 4 + length : undefined };
}

function judgeProblem(body: string, status: number, headers: ReadonlyMap<string, string>): string[] {
  const findings: string[] = [];
  try {
    const problem = JSON.parse(Buffer.from(body, 'latin1').toString('utf8'));
    if (!/^urn:registrar:[a-z-]+$/.test(problem.type)) findings.push(`the type ${problem.type}`);
    if (problem.status !== status) findings.push(`the status ${problem.status} in a ${status}`);
    if (typeof problem.title !== 'string' || typeof problem.detail !== 'string') findings.push('no title or no detail');
    if (problem.request !== headers.get('x-request-id')) findings.push('another request\'s id');
  } catch {
    findings.push('a problem that is no JSON');
  }
  return findings;
}

export interface AmbiguousRequest {
  readonly name: string;
  /** The bytes, with `hidden`, a whole request, inside or behind. */
  readonly bytes: (hidden: string) => Buffer;
  /** What the service answers directly; 400 where nothing is said. No answer at all is 0. */
  readonly status?: number;
}

const host = 'Host: localhost\r\n';
const get = 'GET /user/ HTTP/1.1\r\n';
const post = 'POST /user/ HTTP/1.1\r\n';

/** The request that is hidden: it registers a user, which can be seen afterwards. */
export function hiddenRequest(login: string): string {
  const text = '{"password":"correct horse"}';
  return `PUT /user/${login} HTTP/1.1\r\n${host}Content-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`;
}

/** The request of these headers, the body, and the hidden one behind. */
function behind(name: string, head: string, body = ''): AmbiguousRequest {
  return { name, bytes: (hidden) => Buffer.from(`${head}\r\n${body}${hidden}`, 'latin1') };
}

/** As the body of a request that says its length in a way that is not to be believed. */
function lengths(name: string, headers: (length: number) => string): AmbiguousRequest {
  return { name, bytes: (hidden) => Buffer.from(`${post}${host}${headers(hidden.length)}\r\n${hidden}`, 'latin1') };
}

/** The end of a chunked body, and the hidden request behind it: to whom does not know the coding it is the body. */
function codings(name: string, header: string, line = post): AmbiguousRequest {
  return {
    name: `coding: ${name}`,
    bytes: (hidden) => Buffer.from(`${line}${host}${header}\r\n0\r\n\r\n${hidden}`, 'latin1'),
  };
}

/** A chunked body that is not quite one. */
function chunks(name: string, body: (hidden: string) => string): AmbiguousRequest {
  return {
    name: `chunk: ${name}`,
    bytes: (hidden) => Buffer.from(`${post}${host}Transfer-Encoding: chunked\r\n\r\n${body(hidden)}`, 'latin1'),
  };
}

const hex = (text: string): string => text.length.toString(16);

export const ambiguousRequests: readonly AmbiguousRequest[] = [
  lengths('length and coding', (length) => `Content-Length: ${length}\r\nTransfer-Encoding: chunked\r\n`),
  lengths('coding and length', (length) => `Transfer-Encoding: chunked\r\nContent-Length: ${length}\r\n`),
  codings('length of what follows, and chunked', 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n'),
  lengths('two lengths, the second is none', (length) => `Content-Length: ${length}\r\nContent-Length: 0\r\n`),
  lengths('two lengths, the first is none', (length) => `Content-Length: 0\r\nContent-Length: ${length}\r\n`),
  lengths('two equal lengths', (length) => `Content-Length: ${length}\r\nContent-Length: ${length}\r\n`),
  lengths('a list of lengths', (length) => `Content-Length: ${length}, 0\r\n`),
  lengths('a list of equal lengths', (length) => `Content-Length: ${length}, ${length}\r\n`),
  lengths('a length with a sign', (length) => `Content-Length: +${length}\r\n`),
  lengths('a negative length', () => 'Content-Length: -1\r\n'),
  lengths('a length in hex', (length) => `Content-Length: 0x${length.toString(16)}\r\n`),
  lengths('a length with a fraction', (length) => `Content-Length: ${length}.0\r\n`),
  lengths('a length with an underscore', (length) => `Content-Length: ${String(length).split('').join('_')}\r\n`),
  lengths('a length beyond 64 bits', () => 'Content-Length: 18446744073709551616\r\n'),
  lengths('a length with a vertical tab', (length) => `Content-Length: \x0b${length}\r\n`),
  lengths('a length with a NUL', (length) => `Content-Length: ${length}\0\r\n`),
  lengths('a length in two words', (length) => `Content-Length: 0 ${length}\r\n`),
  lengths('a length that is empty', () => 'Content-Length:\r\n'),
  lengths('a space before the colon of a length', (length) => `Content-Length : ${length}\r\n`),
  lengths('a tab before the colon of a length', (length) => `Content-Length\t: ${length}\r\n`),
  lengths('a space before a length', (length) => `X: y\r\n Content-Length: ${length}\r\n`),
  lengths('a length behind a bare carriage return', (length) => `X: y\rContent-Length: ${length}\r\n`),
  lengths('a length behind a bare line feed', (length) => `X: y\nContent-Length: ${length}\r\n`),
  codings('unknown', 'Transfer-Encoding: xchunked\r\n'),
  codings('identity', 'Transfer-Encoding: identity\r\n'),
  codings('chunked, identity', 'Transfer-Encoding: chunked, identity\r\n'),
  codings('identity, chunked', 'Transfer-Encoding: identity, chunked\r\n'),
  codings('gzip, chunked', 'Transfer-Encoding: gzip, chunked\r\n'),
  codings('chunked twice in a list', 'Transfer-Encoding: chunked, chunked\r\n'),
  codings('chunked twice', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n'),
  codings('chunked, and another one', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n'),
  codings('another one, and chunked', 'Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n'),
  codings('a comma behind', 'Transfer-Encoding: chunked,\r\n'),
  codings('a comma before', 'Transfer-Encoding: ,chunked\r\n'),
  codings('a parameter', 'Transfer-Encoding: chunked;q=1\r\n'),
  codings('in quotes', 'Transfer-Encoding: "chunked"\r\n'),
  codings('empty', 'Transfer-Encoding:\r\n'),
  codings('a vertical tab before', 'Transfer-Encoding: \x0bchunked\r\n'),
  codings('a form feed behind', 'Transfer-Encoding: chunked\x0c\r\n'),
  codings('a NUL behind', 'Transfer-Encoding: chunked\0\r\n'),
  codings('a byte of no letter', 'Transfer-Encoding: chunked\xff\r\n'),
  codings('a space before the colon', 'Transfer-Encoding : chunked\r\n'),
  codings('folded', 'Transfer-Encoding:\r\n chunked\r\n'),
  codings('folded behind another header', 'X: y\r\n\tTransfer-Encoding: chunked\r\n'),
  codings('behind a bare line feed', 'X: y\nTransfer-Encoding: chunked\r\n'),
  codings('behind a bare carriage return', 'X: y\rTransfer-Encoding: chunked\r\n'),
  codings('in HTTP/1.0', 'Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n', 'POST /user/ HTTP/1.0\r\n'),
  chunks('a size with 0x', (hidden) => `0x${hex(hidden)}\r\n${hidden}\r\n0\r\n\r\n`),
  chunks('a size with a sign', (hidden) => `+${hex(hidden)}\r\n${hidden}\r\n0\r\n\r\n`),
  chunks('a negative size', (hidden) => `-1\r\n${hidden}\r\n0\r\n\r\n`),
  chunks('a size beyond 64 bits', (hidden) => `10000000000000000\r\n${hidden}\r\n0\r\n\r\n`),
  chunks('a space before the size', (hidden) => ` 0\r\n\r\n${hidden}`),
  chunks('an empty size', (hidden) => `\r\n\r\n${hidden}`),
  chunks('no size', (hidden) => `;a=b\r\n\r\n${hidden}`),
  chunks('an extension with a bare line feed', (hidden) => `1;a\nb\r\nx\r\n0\r\n\r\n${hidden}`),
  chunks('an extension with a bare carriage return', (hidden) => `1;a\rb\r\nx\r\n0\r\n\r\n${hidden}`),
  chunks('a size that ends in a bare line feed', (hidden) => `1\nx\r\n0\r\n\r\n${hidden}`),
  chunks('data that end in a bare line feed', (hidden) => `1\r\nx\n0\r\n\r\n${hidden}`),
  chunks('data that end nowhere', (hidden) => `1\r\nxy0\r\n\r\n${hidden}`),
  chunks('a last one of many zeroes and a letter', (hidden) => `0000g\r\n\r\n${hidden}`),
  chunks('an extension of 20 KB', (hidden) => `1;${'a'.repeat(20_000)}\r\nx\r\n0\r\n\r\n${hidden}`),
  chunks('a trailer with a space before its colon', (hidden) => `0\r\nContent-Length : 5\r\n\r\n${hidden}`),
  behind('two hosts', `${get}${host}Host: evil.example\r\n`),
  behind('two equal hosts', `${get}${host}${host}`),
  behind('no host', get),
  behind('a host that is folded', `${get}Host:\r\n localhost\r\n`),
  behind('a space before the colon of the host', `${get}Host : localhost\r\n`),
  { ...behind('an absolute target', `GET https://evil.example/user/ HTTP/1.1\r\n${host}`), status: 401 },
  behind('an absolute target with credentials', `GET https://alice:secret@localhost/user/ HTTP/1.1\r\n${host}`),
  behind('an authority for a target', `GET localhost:443 HTTP/1.1\r\n${host}`),
  behind('an asterisk for a target', `GET * HTTP/1.1\r\n${host}`),
  behind('a fragment in the target', `GET /user/#x HTTP/1.1\r\n${host}`),
  behind('a space in the target', `GET /user/ /x HTTP/1.1\r\n${host}`),
  behind('a tab in the target', `GET /user/\t/x HTTP/1.1\r\n${host}`),
  behind('a NUL in the target', `GET /user/\0 HTTP/1.1\r\n${host}`),
  behind('a bare carriage return in the target', `GET /user/\r HTTP/1.1\r\n${host}`),
  behind('raw UTF-8 in the target', `GET /user/\xd0\xb0 HTTP/1.1\r\n${host}`),
  behind('a tab for the space of the first line', `GET\t/user/\tHTTP/1.1\r\n${host}`),
  behind('a line that has nothing behind its version but a space', `GET /user/ HTTP/1.1 \r\n${host}`),
  behind('a version of three numbers', `GET /user/ HTTP/1.1.1\r\n${host}`),
  behind('a version that there is none', `GET /user/ HTTP/1.9\r\n${host}`),
  behind('a name in small letters', `GET /user/ http/1.1\r\n${host}`),
  behind('a method in small letters', `get /user/ HTTP/1.1\r\n${host}`),
  behind('a header with no colon', `${get}${host}X\r\n`),
  behind('a header with no name', `${get}${host}: y\r\n`),
  behind('a NUL in the name of a header', `${get}${host}X\0: y\r\n`),
  behind('a NUL in a header', `${get}${host}X: a\0b\r\n`),
  behind('a bare carriage return in a header', `${get}${host}X: a\rb\r\n`),
  behind('a header that is folded', `${get}${host}X: a\r\n b\r\n`),
  behind('a first header that is folded', `${get} X: a\r\n${host}`),
  {
    ...behind('an upgrade in clear', `${get}${host}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n`),
    status: 401,
  },
  {
    ...behind('a websocket', `${get}${host}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n`),
    status: 401,
  },
  { name: 'lines that end in bare line feeds', bytes: (hidden) => Buffer.from(`GET /user/ HTTP/1.1\nHost: localhost\n\n${hidden}`) },
  { name: 'the preface of HTTP/2', bytes: (hidden) => Buffer.from(`PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${hidden}`) },
  behind('no version at all', `GET /user/\r\n${host}`),
  { name: 'HTTP/2.0 in the first line', bytes: (hidden) => Buffer.from(`GET /user/ HTTP/2.0\r\n${host}\r\n${hidden}`) },
  { name: 'a body behind an expectation that is not met', status: 417,
    bytes: (hidden) => Buffer.from(`${post}${host}Expect: x\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`) },
  { name: 'a tunnel', bytes: (hidden) => Buffer.from(`CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n${hidden}`), status: 0 },
];
