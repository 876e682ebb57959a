import assert from 'node:assert/strict';
import { test } from 'node:test';
import { corsHeaders, preflightHeaders } from '../../lib/http/cors.ts';

test('CORS: only origins that are named are answered, each by its own name', () => {
  const allowed = ['https://app.example', 'http://localhost:3000'];
  assert.equal(corsHeaders('https://app.example', allowed)['Access-Control-Allow-Origin'], 'https://app.example');
  assert.equal(corsHeaders('http://localhost:3000', allowed)['Access-Control-Allow-Origin'], 'http://localhost:3000');
  for (const origin of [undefined, 'null', '*', 'https://evil.example', 'https://app.example.evil.example', 'HTTPS://APP.EXAMPLE']) {
    assert.deepEqual(corsHeaders(origin, allowed), { Vary: 'Origin' }, origin);
  }
  assert.deepEqual(corsHeaders('https://app.example', []), {});
});

test('CORS: a preflight names every method and header that the API takes', () => {
  const headers = preflightHeaders();
  for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']) assert.match(headers['Access-Control-Allow-Methods']!, new RegExp(`\\b${method}\\b`));
  for (const name of ['Authorization', 'Content-Type', 'If-Match', 'If-None-Match', 'Idempotency-Key']) {
    assert.match(headers['Access-Control-Allow-Headers']!, new RegExp(name));
  }
});
