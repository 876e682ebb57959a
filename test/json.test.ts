import assert from 'node:assert/strict';
import { test } from 'node:test';
import { repeatedField } from '../lib/json.ts';

test('json: a field that stands twice is found, however it is spelled', () => {
  const cases: [string, string | undefined][] = [
    ['{}', undefined],
    ['{"a":1,"b":2}', undefined],
    ['{"a":1,"a":2}', 'a'],
    ['{"a":1, "b":{"a":2}, "c":["a","a"]}', undefined],
    ['{"a":1,"\\u0061":2}', 'a'],
    ['{"a"  \n :1,"b":"a","c":"\\"a\\":","a":2}', 'a'],
    ['{"a":"a","b":"a"}', undefined],
    ['{"__proto__":1,"__proto__":2}', '__proto__'],
    ['{"a\\\\":1,"a":2}', undefined],
    ['{"x":{"y":1,"y":2}}', undefined],
  ];
  for (const [text, expected] of cases) assert.equal(repeatedField(text), expected, text);
});
