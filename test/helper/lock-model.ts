/**
 * The lock's protocol as a state machine: processes that take, release, die at any step and start again, and every order of their system
 * calls. `explore` visits all states. It models no time and no file system that reorders calls.
 */

type Step = 'take' | 'read' | 'probe' | 'claim' | 'owner' | 'probeOwner' | 'check' | 'break' | 'sweep' | 'hold' | 'blind' | 'mutex' | 'unlock';

interface Process {
  /** The name it goes by; 0 when it is dead for good. */
  id: number;
  step: Step;
  deadHolder: number;
  /** Which break lock it has reached, and its owner. */
  right: number;
  owner: number;
  swept: number;
  restarts: number;
}

interface State {
  /** The holder of the lock; 0 for none. */
  lock: number;
  /** `<deadHolder>.<n>` -> who has that right; `mutex` in the protocol that has one. */
  rights: Map<string, number>;
  processes: Process[];
  names: number;
}

/** What a process does on finding the holder dead. */
type Protocol = 'break lock' | 'unlink at once' | 'plain mutex';
const onDead: Readonly<Record<Protocol, Step>> = { 'break lock': 'claim', 'unlink at once': 'blind', 'plain mutex': 'mutex' };

class Violation extends Error {}

function copy({ lock, rights, processes, names }: State): State {
  return { lock, rights: new Map(rights), processes: processes.map((process) => ({ ...process })), names };
}

/** One system call of process `n`, in place. */
function advance(state: State, n: number, protocol: Protocol): void {
  const me = state.processes[n]!;
  const isAlive = (id: number): boolean => state.processes.some((other) => other.id === id);
  const key = `${me.deadHolder}.${me.right}`;
  const again = (): void => void Object.assign(me, { step: 'take', deadHolder: 0, right: 0, owner: 0, swept: 0 });
  switch (me.step) {
    case 'take':
      if (state.lock === 0) state.lock = me.id;
      me.step = state.lock === me.id ? 'hold' : 'read';
      return;
    case 'read':
      if (state.lock === 0) return again();
      me.deadHolder = state.lock;
      me.step = 'probe';
      return;
    case 'probe':
      if (isAlive(me.deadHolder)) return again();
      me.step = onDead[protocol];
      return;
    case 'claim':
      me.step = state.rights.has(key) ? 'owner' : 'check';
      if (me.step === 'check') state.rights.set(key, me.id);
      return;
    case 'owner':
      me.owner = state.rights.get(key) ?? 0;
      if (me.owner === 0) return again();
      me.step = 'probeOwner';
      return;
    case 'probeOwner':
      if (isAlive(me.owner)) return again();
      me.owner = 0;
      me.right++;
      me.step = 'claim';
      return;
    case 'check':
      me.step = state.lock === me.deadHolder ? 'break' : protocol === 'plain mutex' ? 'unlock' : 'sweep';
      return;
    case 'break':
      if (state.lock !== me.deadHolder) throw new Violation(`the lock of ${state.lock} was removed for that of ${me.deadHolder}`);
      state.lock = 0;
      me.step = protocol === 'plain mutex' ? 'unlock' : 'sweep';
      return;
    case 'sweep':
      state.rights.delete(`${me.deadHolder}.${me.swept}`);
      if (me.swept === me.right) return again();
      me.swept++;
      return;
    case 'hold':
      if (state.lock !== me.id && protocol === 'break lock') throw new Violation('the holder lost its lock');
      if (state.lock === me.id) state.lock = 0;
      return again();
    case 'blind':
      state.lock = 0;
      return again();
    case 'mutex':
      if (state.rights.has('mutex')) return again();
      state.rights.set('mutex', me.id);
      me.step = 'check';
      return;
    case 'unlock':
      state.rights.delete('mutex');
      return again();
  }
}

function kill(state: State, n: number): void {
  const me = state.processes[n]!;
  const comesBack = me.restarts > 0;
  Object.assign(me, { step: 'take', deadHolder: 0, right: 0, owner: 0, swept: 0 });
  me.id = comesBack ? state.names++ : 0;
  if (comesBack) me.restarts--;
}

/** Names are renumbered in the order of their use: what differs in names alone is one state. */
function fingerprint({ lock, rights, processes }: State): string {
  const numbers = new Map<number, number>();
  const number = (id: number): number => {
    if (id === 0) return 0;
    const known = numbers.get(id) ?? numbers.size + 1;
    numbers.set(id, known);
    return known;
  };
  const parts = processes.map(({ id, step, restarts }) => `${number(id)}${step}${restarts}`);
  parts.push(String(number(lock)));
  for (const { deadHolder, right, owner, swept } of processes) parts.push(`${number(deadHolder)},${right},${number(owner)},${swept}`);
  const held = [...rights].map(([key, id]) => {
    const [deadHolder = '', n = ''] = key.split('.');
    return `${n === '' ? deadHolder : number(Number(deadHolder))}.${n}=${number(id)}`;
  });
  return [...parts, ...held.sort()].join(' ');
}

export interface Outcome {
  readonly states: number;
  readonly violation: string | undefined;
  /** States with a living process from which no process ever holds the lock, if no further one is killed. */
  readonly stuck: number;
}

/** Every state that the processes can reach, each killed up to `restarts` + 1 times: how many, what is wrong in one, and how many are stuck. */
export function explore(protocol: Protocol, processes: number, restarts: number): Outcome {
  const first: State = {
    lock: 0,
    rights: new Map(),
    processes: Array.from({ length: processes }, (_, n) => ({ id: n + 1, step: 'take', deadHolder: 0, right: 0, owner: 0, swept: 0, restarts })),
    names: processes + 1,
  };
  const numbers = new Map([[fingerprint(first), 0]]);
  const states = [first];
  /** For each state, those that lead to it by a step that is no kill. */
  const before: number[][] = [[]];
  const goals: number[] = [];
  const reach = (next: State): number => {
    const key = fingerprint(next);
    let number = numbers.get(key);
    if (number === undefined) {
      number = states.length;
      numbers.set(key, number);
      states.push(next);
      before.push([]);
    }
    return number;
  };
  try {
    for (let at = 0; at < states.length; at++) {
      const state = states[at]!;
      const holders = state.processes.filter(({ id, step }) => id !== 0 && step === 'hold').length;
      if (holders > 1) throw new Violation(`${holders} hold the lock`);
      if (holders === 1) goals.push(at);
      for (const [n, { id }] of state.processes.entries()) {
        if (id === 0) continue;
        const stepped = copy(state);
        advance(stepped, n, protocol);
        before[reach(stepped)]!.push(at);
        const killed = copy(state);
        kill(killed, n);
        reach(killed);
      }
    }
  } catch (error) {
    if (!(error instanceof Violation)) throw error;
    return { states: states.length, violation: error.message, stuck: 0 };
  }
  const live = new Uint8Array(states.length);
  const open = [...goals];
  for (const goal of goals) live[goal] = 1;
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    for (const earlier of before[at]!) {
      if (live[earlier] === 1) continue;
      live[earlier] = 1;
      open.push(earlier);
    }
  }
  const stuck = states.filter((state, n) => live[n] === 0 && state.processes.some(({ id }) => id !== 0)).length;
  return { states: states.length, violation: undefined, stuck };
}
