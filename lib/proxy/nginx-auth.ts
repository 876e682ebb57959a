/**
 * nginx before another application: each of its requests is first asked about at the service's `GET /session`, and goes
 * on with the user in `X-User` (percent-encoded UTF-8), or is answered here. Pure text for `nginx.ts`.
 */

import { hstsSeconds, problemText, retrySeconds } from './site.ts';
import type { Site } from './site.ts';

/** What is the service's own on the site that it shares with the application. */
export const registrarPaths = '^/(?:user(?:/.*)?|session/?|\\.well-known/jwks\\.json|openapi\\.json|health/[a-z]+|page/[a-z.]+)$';

/** Of the service's cookie and everything else in the header, the application gets everything else. */
export function authMaps(): string {
  return `# The session is between the browser and the service: the application gets all other cookies.
map $http_cookie $registrar_other_cookies {
  "~^__Host-registrar=[^;]*(?:;\\s*(?<registrar_rest>.*))?$" $registrar_rest;
  "~^(?<registrar_before>.*?);\\s*__Host-registrar=[^;]*(?<registrar_after>.*)$" $registrar_before$registrar_after;
  default $http_cookie;
}
# A person at a browser is shown where to sign in; programs get 401 and its challenge.
map "$request_method $http_accept" $registrar_wants_page {
  "~^(?:GET|HEAD) .*text/html" 1;
  default "";
}
map "$registrar_status:$registrar_retry" $registrar_retry_after {
  "~400:" "";
  "~:$" ${retrySeconds};
  default $registrar_retry;
}
`;
}

/** The server's header is for locations that add none of their own. */
export function strictTransport({ isHsts }: Site, indent: string): string {
  return isHsts ? `${indent}add_header Strict-Transport-Security "max-age=${hstsSeconds}" always;\n` : '';
}

export function authLocations(site: Site, { application, signIn }: NonNullable<Site['auth']>, scheme: string): string {
  const { upstreams, answerSeconds } = site;
  const always = `    default_type application/problem+json;
${strictTransport(site, '    ')}    add_header Cache-Control no-store always;`;
  const answer = (code: string, status: number, title: string, detail: string): string =>
    `return ${status} '${problemText(code, status, title, detail)}\\n';`;
  const nobody = `Nobody can be asked who you are, for up to ${answerSeconds} s`;
  const key = upstreams.length > 1 ? '    proxy_set_header Idempotency-Key "";\n' : '';
  return `  # The page to sign in at.
  location = ${signIn} {
    rewrite ^ / break;
    proxy_pass ${scheme}://registrar_reads;
  }

  location = /.registrar-session {
    internal;
    # Of the request only what says whose it is.
    proxy_pass_request_headers off;
    proxy_pass_request_body off;
    # The body is the application's, and so is its limit.
    client_max_body_size 0;
    proxy_set_header Host $http_host;
    proxy_set_header Connection "";
    proxy_set_header Content-Length "";
    proxy_set_header Authorization $http_authorization;
    proxy_set_header Cookie $http_cookie;
    proxy_set_header Sec-Fetch-Dest $http_sec_fetch_dest;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto https;
${key}    proxy_pass ${scheme}://registrar_reads/session;
  }

  location / {
    auth_request /.registrar-session;
    auth_request_set $registrar_user $upstream_http_x_user;
    auth_request_set $registrar_status $upstream_status;
    auth_request_set $registrar_retry $upstream_http_retry_after;
    auth_request_set $registrar_request $upstream_http_x_request_id;
    # auth_request knows 2xx, 401 and 403, and makes 500 of all else: what it was is looked at there. What the application
    # answers is not touched.
    error_page 401 = @registrar_sign_in;
    error_page 500 = @registrar_no_session;
    error_page 502 503 504 = @registrar_no_application;

    # The application believes X-User, so it must not be reached but through here. It has no need of the password.
    proxy_set_header X-User $registrar_user;
    proxy_set_header Authorization "";
    proxy_set_header Cookie $registrar_other_cookies;
    proxy_set_header Host $http_host;
    proxy_set_header Connection "";
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto https;
    proxy_set_header X-Real-IP "";
    proxy_set_header Forwarded "";
    proxy_set_header X-Request-Id $registrar_request;
    # Its limits are its own.
    client_max_body_size 1m;
    proxy_read_timeout 60s;
    proxy_next_upstream off;
    proxy_pass ${application};
  }

  # With the service's challenge, which auth_request hands on by itself.
  location @registrar_sign_in {
${always}
    absolute_redirect off;
    if ($registrar_wants_page) {
      return 303 ${signIn};
    }
    ${answer('unauthenticated', 401, 'Credentials are needed', 'Sign in: login and password by Basic, or a session')}
  }

  location @registrar_no_session {
${always}
    add_header Retry-After $registrar_retry_after always;
    if ($registrar_status ~ "429$") {
      ${answer('rate-limited', 429, 'Too many requests', 'Too many requests or wrong passwords: try again later')}
    }
    if ($registrar_status ~ "400$") {
      ${answer('malformed', 400, 'The request cannot be read', 'The credentials cannot be read')}
    }
    ${answer('unreachable', 503, 'The service cannot be reached', nobody)}
  }

  location @registrar_no_application {
${always}
    add_header Retry-After ${retrySeconds} always;
    ${answer('unreachable', 503, 'The application cannot be reached', 'The application does not answer: try again soon')}
  }
`;
}
