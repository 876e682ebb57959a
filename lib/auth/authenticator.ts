/**
 * Authentication of requests: admits a request, finds its principal by Basic, Bearer or cookie, and applies the rate limits.
 * `access.ts` decides what the principal may do. In unauthenticated mode a request needs no credentials, and those that it
 * has are checked all the same.
 */

import { createHmac, randomBytes } from 'node:crypto';
import { requireDirectClient, requireOwnOrigin } from '../access.ts';
import type { Action, Origins, Principal, Proof, Session, UserPrincipal } from '../access.ts';
import { RegistrarError, hasCode } from '../errors.ts';
import type { PublicUser, Registry } from '../registry.ts';
import { parseLogin, publicUser } from '../user.ts';
import type { User } from '../user.ts';
import type { StaticToken } from './static-token.ts';
import { BoundedMap } from './bounded-map.ts';
import { clientAddress, clientOf } from './client-address.ts';
import type { Client, TrustedProxies } from './client-address.ts';
import { readAuthorization, readCookie } from './credentials.ts';
import type { Limits } from './limits.ts';
import { rateLimitHeaders } from './rate-limiter.ts';
import type { RequestContext } from './request-context.ts';
import type { Sessions } from './sessions.ts';

export interface AuthenticatorOptions {
  readonly registry: Registry;
  readonly admin: Pick<StaticToken, 'isSet' | 'matches'>;
  /** Opens /metrics and nothing else. */
  readonly metrics: Pick<StaticToken, 'matches'>;
  readonly sessions: Pick<Sessions, 'read'>;
  /** Undefined where a proxy limits. */
  readonly limits: Limits | undefined;
  readonly trusted: TrustedProxies;
  readonly origins: Origins;
  /** CORS headers of every response, for the request's Origin. */
  readonly corsHeaders: (origin: string | undefined) => Readonly<Record<string, string>>;
  /** How long a verified password is not hashed again. */
  readonly verifiedSecondsMax: number;
  readonly verifiedEntriesMax: number;
  /** A monotonic clock, in milliseconds. */
  readonly now: () => number;
  /** Called for each password that was checked, with the login that was tried. */
  readonly onSignIn?: (isRight: boolean, context: RequestContext, login: string) => void;
  /** Called for a token that is not valid. */
  readonly onTokenRejected?: (context: RequestContext) => void;
}

/** A password that was right for this state of a user. */
interface VerifiedPassword {
  readonly id: number;
  readonly version: number;
  readonly until: number;
}

/** Some 300 bytes each, and up to 8 KB with a forged header. */
const clientsMax = 1_000;
/** Actions whose requests are not authenticated. */
const withoutCredentials: ReadonlySet<Action> = new Set(['public', 'open-session', 'close-session', 'use-link']);
const anonymous: Principal = { kind: 'anonymous' };
const unauthenticated: Principal = { kind: 'unauthenticated' };

export class Authenticator {
  readonly #options: AuthenticatorOptions;
  /** Sign-ins in progress, by a MAC of client, login and password. */
  readonly #signIns = new Map<string, Promise<User>>();
  /** By a MAC of login and password: neither a password nor that one was wrong is kept. */
  readonly #verified: BoundedMap<VerifiedPassword>;
  readonly #macKey = randomBytes(32);
  /** By the peer and X-Forwarded-For: to parse them costs as much as the rest of an authentication. */
  readonly #clients = new BoundedMap<Client>(clientsMax);

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
    this.#verified = new BoundedMap(options.verifiedEntriesMax);
  }

  /** Sets what every response depends on. It throws nothing. */
  begin(context: RequestContext): void {
    context.isUnauthenticatedMode = !this.#options.admin.isSet();
    if (context.isUnauthenticatedMode) return;
    const forwarded = context.headers['x-forwarded-for'];
    const hops = typeof forwarded === 'string' ? forwarded : undefined;
    const key = `${context.peer} ${hops ?? ''}`;
    let client = this.#clients.get(key);
    if (client === undefined) {
      client = clientOf(clientAddress(context.peer, hops, this.#options.trusted));
      this.#clients.set(key, client);
    }
    context.client = client;
  }

  /** Throws `forbidden` or `rate-limited`. */
  admit(context: RequestContext): void {
    if (context.isUnauthenticatedMode) requireDirectClient(context);
    requireOwnOrigin(context, this.#options.origins);
    if (!context.isUnauthenticatedMode && !isHealth(context.path)) this.#options.limits?.request(context);
  }

  /** Headers of every response to this request. */
  headers({ headers, rateLimits }: RequestContext): Readonly<Record<string, string>> | undefined {
    const { origins, corsHeaders } = this.#options;
    if (rateLimits.length === 0 && origins.allowed.length === 0) return undefined;
    return { ...corsHeaders(headers.origin), ...(rateLimits.length === 0 ? {} : rateLimitHeaders(rateLimits)) };
  }

  /** The principal, as far as the action needs one. A promise only where a store or a hash is waited for. Throws `unauthenticated`. */
  authenticate(context: RequestContext, action: Action): Principal | Promise<Principal> {
    if (withoutCredentials.has(action)) return this.#anonymous(context);
    const isSession = action === 'read-session' || action === 'forward-auth';
    const credentials = readAuthorization(context.headers.authorization);
    if (credentials.kind === 'none') {
      const token = isSession || action === 'end-sessions' ? readCookie(context.headers.cookie) : undefined;
      if (token !== undefined) return this.#bySession(context, token, 'cookie');
      return context.isUnauthenticatedMode && !isSession ? unauthenticated : this.#anonymous(context);
    }
    if (credentials.kind === 'unreadable') {
      throw new RegistrarError('unauthenticated', 'The header Authorization cannot be read. It has to be Basic, in UTF-8, or Bearer.');
    }
    const principal = credentials.kind === 'basic'
      ? this.#byPassword(context, credentials.login, credentials.password)
      : this.#byToken(context, credentials.token);
    if (!context.isUnauthenticatedMode || isSession) return principal;
    return principal instanceof Promise ? principal.then(() => unauthenticated) : unauthenticated;
  }

  /** The user of a login and a password, without the cache. Throws `unauthenticated`, `rate-limited`, `overloaded`. */
  signIn(context: RequestContext, login: string, password: string): Promise<User> {
    const parsed = parseLogin(login);
    return this.#signIn(context, 'login' in parsed ? parsed.login : undefined, password);
  }

  /** Checks a password of a canonical login within the rate limits. Throws `rate-limited`, `overloaded`, or what `check` throws. */
  attempt(context: RequestContext, login: string, check: () => Promise<boolean>): Promise<boolean> {
    const { limits } = this.#options;
    return limits === undefined || context.isUnauthenticatedMode ? check() : limits.attempt(context, login, context.signal, check);
  }

  /** Counts a registration, unless the administrator requests it. Throws `rate-limited`. */
  registration(context: RequestContext): void {
    if (!context.isUnauthenticatedMode && context.principal?.kind !== 'admin') this.#options.limits?.registration(context);
  }

  #anonymous(context: RequestContext): Principal {
    if (!context.isUnauthenticatedMode) this.#options.limits?.unauthenticated(context);
    return anonymous;
  }

  #byToken(context: RequestContext, token: string): Principal | Promise<Principal> {
    const { admin, metrics } = this.#options;
    const kind = admin.matches(token) ? 'admin' : metrics.matches(token) ? 'metrics' : undefined;
    if (kind === undefined) return this.#bySession(context, token, 'bearer');
    this.#authenticated(context);
    return { kind };
  }

  #bySession(context: RequestContext, token: string, by: 'bearer' | 'cookie'): Principal | Promise<Principal> {
    const session = this.#options.sessions.read(token, by);
    return session instanceof Promise ? session.then((read) => this.#ofSession(context, read, by)) : this.#ofSession(context, session, by);
  }

  #ofSession(context: RequestContext, session: Session | undefined, by: Proof): Principal | Promise<Principal> {
    const check = (user: PublicUser | undefined): Principal => {
      if (session === undefined || user === undefined || !isSame(user, session)) {
        this.#options.onTokenRejected?.(context);
        throw new RegistrarError('unauthenticated', 'The token is not valid, or its session has ended. Sign in again.');
      }
      return this.#principal(context, session.login, user, by, session);
    };
    const user = session && this.#options.registry.findPublic(session.login);
    return user instanceof Promise ? user.then(check) : check(user);
  }

  /** A login that exists and one that does not take the same path here: the cache is asked for a MAC, and the rest is a sign-in. */
  #byPassword(context: RequestContext, login: string, password: string): Principal | Promise<Principal> {
    const parsed = parseLogin(login);
    const canonical = 'login' in parsed ? parsed.login : undefined;
    const verified = canonical === undefined ? undefined : this.#verified.get(this.#mac([canonical, password]));
    const check = (user: PublicUser | undefined): Principal | Promise<Principal> => {
      if (canonical !== undefined && verified !== undefined && user !== undefined && isSame(user, verified)) {
        return this.#principal(context, canonical, user, 'basic');
      }
      this.#anonymous(context);
      return this.#signIn(context, canonical, password).then((found) =>
        this.#principal(context, found.login, { ...found, json: JSON.stringify(publicUser(found)) }, 'basic'));
    };
    const isFresh = verified !== undefined && verified.until > this.#options.now();
    const user = isFresh && canonical !== undefined ? this.#options.registry.findPublic(canonical) : undefined;
    return user instanceof Promise ? user.then(check) : check(user);
  }

  /** Equal sign-ins at the same time are one: an application that starts sends fifty. If its client leaves, the next one begins anew. */
  async #signIn(context: RequestContext, login: string | undefined, password: string): Promise<User> {
    const key = this.#mac([context.client.name, login ?? '', password]);
    for (let running = this.#signIns.get(key); running !== undefined; running = this.#signIns.get(key)) {
      try {
        return await running;
      } catch (error) {
        if (!hasCode(error, 'timeout')) throw error;
        context.signal.throwIfAborted();
      }
    }
    const started = this.#startSignIn(context, login ?? '', password).finally(() => this.#signIns.delete(key));
    this.#signIns.set(key, started);
    return started;
  }

  async #startSignIn(context: RequestContext, login: string, password: string): Promise<User> {
    const { registry, onSignIn, now, verifiedSecondsMax } = this.#options;
    let user: User | undefined;
    let disabled: RegistrarError | undefined;
    await this.attempt(context, login, async () => {
      try {
        user = await registry.verify(login, password, context.signal);
      } catch (error) {
        if (!hasCode(error, 'disabled')) throw error;
        disabled = error;
      }
      const isRight = user !== undefined || disabled !== undefined;
      onSignIn?.(isRight, context, login);
      return isRight;
    });
    if (disabled !== undefined) throw disabled;
    if (user === undefined) throw new RegistrarError('unauthenticated', 'The login or the password is wrong.');
    const { id, version } = user;
    this.#verified.set(this.#mac([login, password]), { id, version, until: now() + verifiedSecondsMax * 1000 });
    return user;
  }

  #principal(context: RequestContext, login: string, { id, version, json }: PublicUser, by: Proof, session?: Session): UserPrincipal {
    this.#authenticated(context, login);
    return { kind: 'user', by, id, login, version, session, json };
  }

  #authenticated(context: RequestContext, login?: string): void {
    if (!context.isUnauthenticatedMode) this.#options.limits?.authenticated(context, login);
  }

  #mac(parts: readonly string[]): string {
    return createHmac('sha256', this.#macKey).update(JSON.stringify(parts)).digest('base64');
  }
}

/** A change of the password, a removal, a disabled account and the end of all sessions make another version, or another user. */
function isSame(user: PublicUser, { id, version }: { readonly id: number; readonly version: number }): boolean {
  return user.id === id && user.version === version;
}

/** A health check is not limited: it comes from the proxy's address, and a rejection would take the service out of rotation. */
function isHealth(path: string): boolean {
  return path === '/health/live' || path === '/health/ready';
}
