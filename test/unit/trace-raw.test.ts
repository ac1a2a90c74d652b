/** `raw` in traces: what of it the schema cannot say is said in a sentence, so that nothing else meets the emulated kernel. */
import { expect, test } from 'vitest';
import { type RawCall, rawProblem } from '#src/conformance/trace-raw';

const PAGE = 4096;
const problem = (line: Partial<RawCall>): string | null =>
  rawProblem({ call: 'munmap', at: 0, bytes: PAGE, ...line }, 64);

test('calls take their own flags', () => {
  expect(problem({})).toBeNull();
  expect(problem({ flags: 0 })).toBe('flags: munmap of a trace does not take 0');
  expect(problem({ call: 'mprotect', flags: 3 })).toBeNull();
  expect(problem({ call: 'mprotect', flags: 4 })).toBe('flags: mprotect of a trace does not take 4');
  expect(problem({ call: 'mprotect' })).toBe('flags: mprotect of a trace does not take none');
  expect(problem({ call: 'madvise', flags: 9 })).toBe('flags: madvise of a trace does not take 9');
  expect(problem({ call: 'msync', flags: 1 })).toBe('flags: msync of a trace does not take 1');
});

test('mremap has a place and a length', () => {
  expect(problem({ call: 'mremap', flags: 3, to: 0, len: PAGE })).toBeNull();
  expect(problem({ call: 'mremap', flags: 3, to: 0 })).toBe('to, len: only mremap has them, and both');
  expect(problem({ call: 'munlock', to: 0, len: PAGE })).toBe('to, len: only mremap has them, and both');
});

test('the recorder has room for as many pages as the arena has', () => {
  expect(problem({ call: 'snapshot', flags: 0, bytes: 64 * PAGE })).toBeNull();
  expect(problem({ call: 'snapshot', flags: 0, bytes: -PAGE })).toBeNull();
  for (const bytes of [65 * PAGE, 8])
    expect(problem({ call: 'snapshot', flags: 0, bytes })).toBe(
      'bytes: snapshot takes whole pages, of which the arena has 64',
    );
});
