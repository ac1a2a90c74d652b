import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { PfnlessError } from '#src/base/errors';
import { replayLayouts } from '#src/conformance/layouts';

const text = gunzipSync(readFileSync(new URL('../conformance/layouts.jsonl.gz', import.meta.url))).toString();
const lines = text.trimEnd().split('\n');

/** The first line, changed. */
function altered(change: (machine: ReturnType<typeof JSON.parse>) => void): string {
  const machine = JSON.parse(lines[0]);
  change(machine);
  return JSON.stringify(machine);
}

function refusal(text: string): PfnlessError {
  try {
    replayLayouts(text, 'some.jsonl');
  } catch (error) {
    if (error instanceof PfnlessError) return error;
    throw error;
  }
  throw new Error('was accepted');
}

describe('replayLayouts', () => {
  it('agrees with a real kernel on every recorded machine', () => {
    const report = replayLayouts(text, 'layouts.jsonl');
    expect(report.mismatches).toEqual([]);
    expect(report).toMatchObject({ cases: 92, requests: 1392, setAside: 1, skipped: 8 });
  });

  it('reports an altered result at its request', () => {
    const placement = altered(({ requests }) => {
      requests[1].result.start = '0xffd8000000';
    });
    expect(replayLayouts(placement, 'some.jsonl').mismatches).toEqual([
      {
        case: 'acpi-off-pc-2G',
        request: 1,
        expected: '0xffd8000000-0xffefffffff',
        actual: '0xffe0000000-0xffefffffff',
      },
    ]);
    const refused = altered(({ requests }) => {
      requests[0].result = { error: 'ERANGE' };
    });
    expect(replayLayouts(refused, 'some.jsonl').mismatches).toEqual([
      { case: 'acpi-off-pc-2G', request: 0, expected: 'refused (ERANGE)', actual: '0xfff0000000-0xffffffffff' },
    ]);
  });

  it('reports a placement where nothing fits', () => {
    const full = altered((machine) => {
      machine.iomemBefore = [{ start: '0x0', end: '0xffffffffff', name: 'Reserved', depth: 0 }];
      machine.requests = machine.requests.slice(0, 1);
    });
    expect(replayLayouts(full, 'some.jsonl').mismatches[0]).toMatchObject({ request: 0, actual: 'refused (ERANGE)' });
  });

  it('refuses a malformed line and says which', () => {
    expect(refusal(`${lines[0]}\n{"name": `)).toMatchObject({
      code: 'ERR_PFNLESS_FILE',
      message: expect.stringMatching(/^some\.jsonl:2: not a line of JSON/),
    });
    const message = (change: (machine: ReturnType<typeof JSON.parse>) => void): string =>
      refusal(altered(change)).message;
    expect(message((machine) => delete machine.physBits)).toMatch(/^some\.jsonl:1: physBits: /);
    expect(
      message(({ requests }) => {
        requests[2].bytes = -1;
      }),
    ).toMatch(/requests\.2\.bytes: expected a number of bytes/);
    expect(
      message(({ iomemBefore }) => {
        iomemBefore[0].end = 'ff';
      }),
    ).toMatch(/iomemBefore\.0\.end: expected an address like/);
    expect(
      message(({ iomemBefore }) => iomemBefore.push({ start: '0x10', end: '0x1fff', name: 'X', depth: 0 })),
    ).toMatch(/overlaps another entry/);
    expect(refusal('\n').message).toBe('some.jsonl: no recorded machine in it; expected one JSON object a line');
  });
});
