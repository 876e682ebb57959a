/**
 * Who is at the door: whether a request may come in at all, whose it is, and how often. What they may do then is
 * `access.ts`'s business. Open mode believes everybody whom it lets in; only a session asks who somebody is.
 */

import { createHmac, randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { admitInOpenMode, refuseOtherSites } from '../access.ts';
import type { Action, Approach, Origins, Principal, Proof, UserPrincipal } from '../access.ts';
import { RegistrarError } from '../errors.ts';
import type { Registry } from '../registry.ts';
import { parseLogin } from '../user.ts';
import type { User } from '../user.ts';
import type { UserView } from '../registry.ts';
import { clientAddress, clientKey } from './client-address.ts';
import type { TrustedProxies } from './client-address.ts';
import { corsHeaders } from './cors.ts';
import { readAuthorization, readCookie } from './credentials.ts';
import type { Attempt, Counted, Limits } from './limits.ts';
import { rateLimitHeaders } from './rate-limit.ts';
import type { Standing } from './rate-limit.ts';
import { SharedWork } from './shared-work.ts';

/** What a good session token says. */
export interface Session {
  readonly id: number;
  readonly login: string;
  readonly version: number;
  /** ISO 8601. */
  readonly expires: string;
}

/** Makes and reads session tokens. */
export interface Sessions {
  issue(user: User): Promise<{ readonly token: string; readonly expires: string; readonly seconds: number }>;
  /** Undefined if it is none of ours, or has expired. Whether the user is still the same is not looked at. */
  read(token: string): Session | undefined | Promise<Session | undefined>;
  /** RFC 7517. */
  jwks(): Promise<string>;
}

export interface AdminAccess {
  readonly isSet: () => boolean;
  /** In constant time. */
  readonly matches: (token: string) => boolean;
}

/** Remembers that a password was right for this state of a user. */
export interface VerifiedMemory {
  has(user: State, password: string): boolean;
  remember(user: State, password: string): void;
}

type State = Pick<User, 'id' | 'version'>;

export interface GateOptions {
  readonly registry: Registry;
  readonly admin: AdminAccess;
  readonly sessions: Sessions;
  readonly verified: VerifiedMemory;
  /** Undefined where somebody in front limits. */
  readonly limits: Limits | undefined;
  readonly trusted: TrustedProxies;
  readonly origins: Origins;
  /** Told of each password that was checked. */
  readonly onSignIn?: (isGood: boolean) => void;
}

/** One request at the door. */
export interface Visit extends Counted {
  readonly isOpen: boolean;
  readonly origin: string | undefined;
  readonly standings: Standing[];
}

const wrong = 'The login or the password is wrong';
const anyone: Principal = { kind: 'anyone' };
/** No user has this id. */
const nobody: State = { id: 0, version: 0 };
/** A good login, and nobody can have chosen it. */
const unknownLogin = randomBytes(16).toString('hex');
const local: Principal = { kind: 'local' };
const processKey = randomBytes(32);

export class Gate {
  readonly #options: GateOptions;
  readonly #checks = new SharedWork<User>();
  /** Somebody who was found: looked for after an unknown login, as `unknownLogin` is after a known one. */
  #lastKnown = unknownLogin;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** Begins a visit; it throws nothing, so that whatever is answered has the headers it needs. */
  visit({ socket, headers }: IncomingMessage): Visit {
    const { admin, trusted } = this.#options;
    const isOpen = !admin.isSet();
    const forwarded = headers['x-forwarded-for'];
    const hops = typeof forwarded === 'string' ? forwarded : undefined;
    const client = isOpen ? '' : clientKey(clientAddress(socket.remoteAddress, hops, trusted));
    return { isOpen, client, origin: headers.origin, standings: [] };
  }

  /** Throws `forbidden` or `rate-limited`. */
  admit(visit: Visit, request: IncomingMessage): void {
    const { method = '', socket, httpVersion, headers } = request;
    const approach: Approach = { method, peer: socket.remoteAddress, httpVersion, headers };
    if (visit.isOpen) admitInOpenMode(approach);
    refuseOtherSites(approach, this.#options.origins);
    if (!visit.isOpen && !isHealth(request.url)) this.#options.limits?.request(visit);
  }

  /** What every answer of this visit carries. */
  headers({ origin, standings }: Visit): Readonly<Record<string, string>> | undefined {
    const { allowed } = this.#options.origins;
    if (standings.length === 0 && allowed.length === 0) return undefined;
    return { ...corsHeaders(origin, allowed), ...(standings.length === 0 ? {} : rateLimitHeaders(standings)) };
  }

  /** Whose request it is, as far as the action asks for it; at once, where no password is to be hashed. Throws `unauthenticated`. */
  principal(visit: Visit, headers: IncomingMessage['headers'], action: Action, signal: () => AbortSignal): Principal | Promise<Principal> {
    const isSession = action === 'read-session' || action === 'end-session';
    if (action === 'public' || action === 'open-session') return this.#anyone(visit);
    if (visit.isOpen && !isSession) return local;
    const credentials = readAuthorization(headers.authorization);
    switch (credentials.kind) {
      case 'none': {
        const token = isSession ? readCookie(headers.cookie) : undefined;
        return token === undefined ? this.#anyone(visit) : this.#bySession(visit, token, 'cookie');
      }
      case 'bearer':
        if (!this.#options.admin.matches(credentials.token)) return this.#bySession(visit, credentials.token, 'bearer');
        this.#prove(visit, undefined);
        return { kind: 'admin' };
      case 'basic':
        return this.#byPassword(visit, credentials.login, credentials.password, signal);
      case 'unreadable':
        throw new RegistrarError('unauthenticated', 'The header Authorization cannot be read: it has to be Basic, in UTF-8, or Bearer');
    }
  }

  /**
   * The user, if this is their password. Unknown login and wrong password are one and the same. Throws `unauthenticated`,
   * `rate-limited`, `overloaded`.
   */
  signIn(visit: Visit, login: string, password: string, signal: AbortSignal): Promise<User> {
    // The same check at the same time is one check: an application that starts asks fifty things at once.
    const what = JSON.stringify([visit.client, login, password]);
    const key = createHmac('sha256', processKey).update(what).digest('base64');
    return this.#checks.run(key, signal, async (shared) => {
      const attempt = this.attempt(visit, login);
      try {
        const user = await this.#options.registry.verify(login, password, shared);
        this.#options.onSignIn?.(user !== undefined);
        if (user === undefined) throw new RegistrarError('unauthenticated', wrong);
        attempt?.succeed();
        this.#options.verified.remember(user, password);
        return user;
      } catch (error) {
        if (error instanceof RegistrarError && error.code !== 'unauthenticated' && !shared.aborted) attempt?.giveBack();
        throw error;
      }
    });
  }

  /** Counts a password that is about to be checked. Throws `rate-limited`. */
  attempt(visit: Visit, login: string): Attempt | undefined {
    if (visit.isOpen) return undefined;
    const parsed = parseLogin(login);
    return this.#options.limits?.attempt(visit, 'login' in parsed ? parsed.login : '');
  }

  /** Counts a registration that is about to be tried by somebody who is not the administrator. Throws `rate-limited`. */
  registration(visit: Visit, principal: Principal): void {
    if (!visit.isOpen && principal.kind !== 'admin') this.#options.limits?.registration(visit);
  }

  #anyone(visit: Visit): Principal {
    if (!visit.isOpen) this.#options.limits?.unproven(visit);
    return anyone;
  }

  /**
   * Where a login is limited its password is answered without a hash, in the time of a look: so one that is there and one
   * that is not are looked for alike.
   */
  #byPassword(visit: Visit, login: string, password: string, signal: () => AbortSignal): Principal | Promise<Principal> {
    const view = this.#options.registry.look(login);
    return view instanceof Promise
      ? view.then((found) => this.#checked(visit, login, password, found, signal))
      : this.#checked(visit, login, password, view, signal);
  }

  #checked(
    visit: Visit,
    login: string,
    password: string,
    view: UserView | undefined,
    signal: () => AbortSignal,
  ): Principal | Promise<Principal> {
    const isVerified = this.#options.verified.has(view ?? nobody, password);
    if (view !== undefined && isVerified) return this.#user(visit, canonical(login), view, 'basic');
    this.#anyone(visit);
    const other = this.#options.registry.look(view === undefined ? this.#lastKnown : unknownLogin);
    if (view !== undefined) this.#lastKnown = login;
    if (other instanceof Promise) return other.then(() => this.#signedIn(visit, login, password, signal()));
    return this.#signedIn(visit, login, password, signal());
  }

  #signedIn(visit: Visit, login: string, password: string, signal: AbortSignal): Promise<Principal> {
    return this.signIn(visit, login, password, signal).then((user) => this.#user(visit, user.login, user, 'basic'));
  }

  #bySession(visit: Visit, token: string, by: Proof): Principal | Promise<Principal> {
    const session = this.#options.sessions.read(token);
    return session instanceof Promise ? session.then((read) => this.#ofSession(visit, read, by)) : this.#ofSession(visit, session, by);
  }

  #ofSession(visit: Visit, session: Session | undefined, by: Proof): Principal | Promise<Principal> {
    if (session === undefined) throw noSession();
    const { login, expires } = session;
    const check = (view: UserView | undefined): Principal => {
      // A change of the password, a removal or the end of all sessions has made another version, or another user.
      if (view === undefined || view.id !== session.id || view.version !== session.version) throw noSession();
      return this.#user(visit, login, view, by, expires);
    };
    const view = this.#options.registry.look(login);
    return view instanceof Promise ? view.then(check) : check(view);
  }

  #user(visit: Visit, login: string, { id, version }: State, by: Proof, expires?: string): UserPrincipal {
    this.#prove(visit, login);
    return { kind: 'user', by, id, login, version, expires };
  }

  #prove(visit: Visit, login: string | undefined): void {
    if (!visit.isOpen) this.#options.limits?.prove(visit, login);
  }
}

/** A balancer that is refused for asking too often would take a sound service out, and it comes as the proxy or from it. */
function isHealth(url = ''): boolean {
  return url.startsWith('/health/') && (url === '/health/live' || url === '/health/ready');
}

function canonical(login: string): string {
  const parsed = parseLogin(login);
  return 'login' in parsed ? parsed.login : login;
}

function noSession(): RegistrarError {
  return new RegistrarError('unauthenticated', 'The token is none of ours, or its session has ended: sign in again');
}
