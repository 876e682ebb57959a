#!/usr/bin/env node
/**
 * Starts the command. This file alone is CommonJS, and JavaScript as well as TypeScript, so that every supported Node runs it: one
 * that does not read TypeScript itself ends with a line that says what to run, and without a stack trace.
 */

import('./command/main.ts').then(
  ({ start }) => start(process),
  (error) => {
    if (error.code !== 'ERR_UNKNOWN_FILE_EXTENSION') throw error;
    const remedy = 'Run "make run", or "npm ci" and "node --import tsx bin/registrar.ts".';
    process.stderr.write(`registrar: Node ${process.versions.node} does not run TypeScript. ${remedy}\n`);
    process.exitCode = 1;
  },
);
