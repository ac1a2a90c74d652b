/** The ledger: it names tests that exist, and LEDGER.md is what it says (`npm run ledger` writes it). */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { LEDGER, renderLedger } from '#src/conformance/ledger';
import { HMM_TESTS } from '#src/conformance/ledger-hmm-tests';

const pathOf = (file: string): string => fileURLToPath(new URL(`../${file}`, import.meta.url));
const LEDGER_FILE = pathOf('LEDGER.md');
const ROWS = LEDGER.flatMap(({ rows }) => rows);

describe('ledger', () => {
  test('LEDGER.md is current', () => {
    if (process.env.PFNLESS_LEDGER) writeFileSync(LEDGER_FILE, renderLedger());
    expect(readFileSync(LEDGER_FILE, 'utf8')).toBe(renderLedger());
  });

  test('names tests that exist', () => {
    const named = [...ROWS.map(([, , , file]) => file), ...HMM_TESTS.map(([, , file]) => file)];
    expect(named.filter((file) => file && !existsSync(pathOf(file)))).toEqual([]);
  });

  test('one row each', () => {
    const features = ROWS.map(([feature]) => feature);
    expect(features.filter((feature, at) => features.indexOf(feature) !== at)).toEqual([]);
  });

  test("has all 38 of the kernel's hmm-tests; those that are here are in the file that is named", () => {
    expect(new Set(HMM_TESTS.map(([name]) => name)).size).toBe(38);
    const isThere = (name: string, file: string): boolean =>
      new RegExp(`test\\(['\`]${name}['\`, ]`).test(readFileSync(pathOf(file), 'utf8'));
    expect(HMM_TESTS.filter(([name, , file]) => file !== null && !isThere(name, file))).toEqual([]);
  });
});
