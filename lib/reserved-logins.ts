/**
 * Logins that only the administrator can give out: mailboxes of RFC 2142, and names that a reader takes for the operator
 * of a service or for the software itself. Punctuation makes no difference: `no-reply` and `noreply` are both reserved.
 * It does not know look-alikes, such as `adm1n`.
 */

const reserved: ReadonlySet<string> = new Set(
  (
    // RFC 2142, with the mailboxes of a mail system.
    'abuse bounce bounces ftp hostmaster info ispfeedback ispsupport mailerdaemon marketing news noc noreply postmaster sales security ' +
    'support usenet uucp webmaster www ' +
    // Operators.
    'adm admin administration administrator admins helpdesk moderator moderators official operator operators owner root staff ' +
    'superuser superadmin sysadmin sysop system ' +
    // Software, and words that programs take for "no user".
    'account accounts anonymous api auth billing daemon default everyone guest help login me nobody none null registrar self ' +
    'service session signin signup test undefined unknown user users'
  ).split(' '),
);

/** @param login canonical. */
export function isReservedLogin(login: string): boolean {
  return reserved.has(login.replace(/[^\p{L}\p{M}\p{Nd}]/gu, ''));
}
