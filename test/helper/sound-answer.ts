/** What every answer of the service has to be, whatever was asked. */

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
  // Of what the parser could not read nobody knows the method; Node has not written that answer, and gives it no date.
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
  finding(!/pbkdf2|[0-9a-f]{32}\$|node:|\.ts:\d|\/lib\//.test(received), 'it tells what is nobody\'s business');
  if (status >= 400) {
    finding(headers.get('content-type') === 'application/problem+json', 'no problem+json');
    if (!isBare && isWhole) findings.push(...judgeProblem(body, status, headers));
    if (status === 401) finding(headers.has('www-authenticate'), 'no WWW-Authenticate');
    if (status === 405) finding(headers.has('allow'), 'no Allow');
    if (status === 429 || status === 503) finding(/^[1-9]\d*$/.test(headers.get('retry-after') ?? ''), 'no Retry-After');
  }
  finding(/^[0-9a-f]{12}-\d+$/.test(headers.get('x-request-id') ?? ''), 'no X-Request-Id');
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
