/**
 * A process that asks for passwords to be hashed at a rate of its own, whether it is answered or not, and prints what
 * became of them. `node overload-load.ts JOB`: see `OverloadJob`.
 */

import { once } from 'node:events';
import https from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

export interface OverloadJob {
  readonly url: string;
  /** Requests per second, open loop. */
  readonly rate: number;
  readonly seconds: number;
  /** Half of them register, half of them sign in as one of these, each with the number behind. */
  readonly signIns: { readonly prefix: string; readonly count: number; readonly password: string };
  /** Before the names of those who are registered. */
  readonly prefix: string;
  /** How many of those that are refused come again when they are told to, as often as it takes. */
  readonly obedient: number;
}

export interface OverloadFigures {
  readonly sent: number;
  readonly done: number;
  readonly refused: number;
  /** Answers that were neither done nor 503, and errors of the connection. */
  readonly wrong: readonly string[];
  readonly withoutRetryAfter: number;
  /** Of those that were answered while requests were still being sent. */
  readonly donePerSecond: number;
  readonly refusalP99Ms: number;
  readonly doneP99Ms: number;
  /** How often each of the obedient ones had to come. */
  readonly comings: readonly number[];
}

interface Outcome {
  readonly status: number;
  readonly retryAfter: string | undefined;
  readonly ms: number;
}

function p99(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.99)] ?? 0;
}

export async function overload({ url, rate, seconds, signIns, prefix, obedient }: OverloadJob): Promise<OverloadFigures> {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 2_000, rejectUnauthorized: false });
  const post = async (n: number): Promise<Outcome> => {
    const isSignIn = n % 2 === 0;
    const login = isSignIn ? `${signIns.prefix}${1 + (n / 2) % signIns.count}` : `${prefix}${n}`;
    const body = JSON.stringify({ login, password: isSignIn ? signIns.password : `correct horse ${n}` });
    const from = performance.now();
    const request = https.request(new URL(isSignIn ? '/session' : '/user/', url), { method: 'POST', agent });
    request.end(body);
    const [response] = await once(request, 'response');
    response.resume();
    await once(response, 'end');
    return { status: response.statusCode, retryAfter: response.headers['retry-after'], ms: performance.now() - from };
  };
  const [doneMs, refusedMs, wrong, comings]: [number[], number[], string[], number[]] = [[], [], [], []];
  let [sent, withoutRetryAfter, patient, inTime] = [0, 0, obedient, 0];
  const from = performance.now();
  const isOver = (): boolean => performance.now() - from > seconds * 1000;
  const one = async (n: number): Promise<void> => {
    try {
      let isObedient = false;
      for (let coming = 1; ; coming++) {
        const { status, retryAfter, ms } = await post(n);
        if (status === 201) {
          doneMs.push(ms);
          if (!isOver()) inTime++;
          if (isObedient) comings.push(coming);
          return;
        }
        if (status !== 503) return void wrong.push(String(status));
        refusedMs.push(ms);
        if (!/^[1-9]\d*$/.test(retryAfter ?? '')) withoutRetryAfter++;
        // From the middle on, where the queue is full for certain.
        if (!isObedient && (patient <= 0 || performance.now() - from < seconds * 500)) return;
        if (!isObedient) patient--;
        isObedient = true;
        await sleep(Number(retryAfter) * 1000);
      }
    } catch (error) {
      wrong.push(String(error));
    }
  };
  const asked: Promise<void>[] = [];
  while (!isOver()) {
    const due = Math.floor(((performance.now() - from) / 1000) * rate);
    for (; sent < due; sent++) asked.push(one(sent));
    await sleep(2);
  }
  await Promise.all(asked);
  agent.destroy();
  return {
    sent, done: doneMs.length, refused: refusedMs.length, wrong, withoutRetryAfter, donePerSecond: inTime / seconds, refusalP99Ms: p99(refusedMs),
    doneP99Ms: p99(doneMs), comings,
  };
}

const [, file = '', job] = process.argv;
if (import.meta.url === pathToFileURL(file).href && job !== undefined) process.stdout.write(JSON.stringify(await overload(JSON.parse(job) as OverloadJob)));
