/** Records in the audit log what a command did, with the uid of its user as the actor. */

import { AuditLog } from '../../lib/telemetry/audit-log.ts';
import type { AuditEvent } from '../../lib/telemetry/audit-log.ts';
import type { Config } from '../../lib/config.ts';
import { auditPath, now } from '../../lib/open.ts';
import type { Terminal } from './terminal.ts';

/** Resolves when the event is written, or cannot be, which is reported. */
export async function recordCommand(config: Config, terminal: Terminal, event: Omit<AuditEvent, 'actor'>): Promise<void> {
  const audit = new AuditLog({ path: auditPath(config), key: async () => '', now, report: terminal.say });
  audit.record({ ...event, actor: `command:${process.getuid?.() ?? 0}` });
  await audit.close();
}
