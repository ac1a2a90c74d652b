/** The nearest explanation of a divergence. */
import { expect, test } from 'vitest';
import { explain } from '#src/conformance/explain';

/** pm words of a kernel without the series. */
const RW = `${(28 << 8) | 2}`;
const RO = `${(29 << 8) | 2}`;
const EXCLUSIVE = `${(30 << 8) | 2}`;

test.each([
  ['migrate_to_dev', 'st0.pm[3]', RW, RO, /lost its write permission.*fact 2/],
  ['mprotect', 'st0.pm[3]', RW, RO, /mprotect took write permission.*fact 13/],
  ['fork', 'st1.pm[0]', RO, RW, /fork left a device private entry writable.*fact 20/],
  ['mprotect', 'st0.pm[0]', RO, RW, /mprotect.*fact 13/],
  ['migrate_to_dev', 'st0.pm[0]', RO, RW, /shared after fork.*fact 2/],
  ['cpu_read', 'st0.pm[0]', EXCLUSIVE, '9', /exclusive entry was restored.*fact 25/],
  ['cpu_read', 'st0.pm[0]', '9', EXCLUSIVE, /outlived an access.*fact 25/],
  ['migrate_to_dev', 'st0.pm[9]', RW, '9', /not selected or not moved.*fact 7/],
  ['cpu_read', 'st0.pm[9]', RW, '9', /exactly one page of 4 KiB.*fact 11/],
  ['close', 'st0.pm[9]', '9', RW, /last close of a mirror evicts.*fact 22/],
  ['pin', 'st0.pm[9]', '9', RW, /first brings it home.*fact 8/],
  ['migrate_to_dev', 'st0.pm[9]', '9', RW, /moved although it must not.*fact 7/],
  ['cpu_write', 'st1.pm[9]', '1', RO, /in every process.*fact 20/],
  ['madvise', 'st0.pm[9]', '0', RW, /survived an operation.*fact 9/],
  ['mremap', 'st0.pm[9]', RW, '0', /an entry is lost.*fact 9/],
  ['migrate_to_dev', 'st0.pm[9]', RW, '0', /a hole was not migrated.*fact 1\b/],
  ['cpu_write', 'st0.pm[9]', '9', '1', /mapped more than once.*fact 20/],
  ['fork', 'st0.pm[9]', '1', '9', /mapped once.*fact 26/],
  ['mmap', 'st0.pm[9]', '5', '1', /shared memory/],
  ['mprotect', 'st0.s0[1]', '255', '34', /no VMA.*fact 13/],
  ['migrate_to_dev', 'st0.s0[1]', '34', '2', /on the device in one.*fact 16/],
  ['snapshot', 'prot[1]', '17', '1', /zero page.*fact 15/],
  ['snapshot', 'prot[1]', '6', '2', /huge mapping.*fact 29/],
  ['snapshot', 'prot[1]', '34', '33', /write permission.*fact 11/],
  ['dev_write', 'errno', 'EFAULT', '0', /read-only entry fails every time.*fact 17/],
  ['dev_write', 'errno', '0', 'EFAULT', /fact 17/],
  ['dev_write', 'errno', 'EFAULT', 'EPERM', /fact 15/],
  ['check_exclusive', 'errno', 'EPERM', '0', /lost its exclusive entry.*fact 25/],
  ['check_exclusive', 'errno', '0', 'EPERM', /kept an exclusive entry.*fact 25/],
  ['migrate_to_dev', 'errno', 'ENOENT', '0', /no entry in the mirror.*fact 18/],
  ['migrate_to_dev', 'errno', '0', 'ENOENT', /has no entry in the mirror.*fact 4/],
  ['pin', 'errno', 'ENOMEM', '0', /fail_alloc.*fact 10/],
  ['migrate_to_sys', 'errno', 'EINVAL', '0', /ends a migration.*fact 4/],
  ['dev_read', 'faults', '0', '1', /mirror entry.*fact 18/],
  ['cpu_read', 'words[4]', '8196', '0', /contents are gone/],
  ['cpu_read', 'words[4]', '0', '8196', /should be fresh/],
  ['cpu_read', 'words[4]', '8196', '4100', /older write.*fact 18/],
  ['cpu_read', 'words[4]', '4100', '8196', /another process's write.*fact 20/],
  ['cpu_write', 'res', '[["SIGSEGV",1]]', '[["ok",1]]', /permission of the VMA.*fact 12/],
  ['cpu_read', 'st0.rss', '64 kB', '68 kB', /zero page is not.*fact 1\b/],
  ['cpu_read', 'st0.anon', '64 kB', '0 kB', /resident pages differ.*fact 26/],
  ['exclusive', 'st0.shd', '4 kB', '0 kB', /counts as shared.*fact 24/],
  ['open', 'i', '3', '4', /a line is missing/],
  ['munmap', 'kernel log', 'no warning', 'WARNING: what', /warned of itself/],
])('%s, %s: expected %s, got %s', (op, field, expected, actual, says) => {
  expect(explain({ op, field, expected, actual, firstDeviceType: 28 })).toMatch(says);
});

test('with the series the same swap types mean something else', () => {
  const seen = { op: 'fork', field: 'st0.pm[0]', expected: `${(26 << 8) | 2}`, actual: `${(25 << 8) | 2}` };
  expect(explain({ ...seen, firstDeviceType: 25 })).toMatch(/fork left a device private entry writable/);
});

test('nothing comes to mind of a difference that no rule knows', () => {
  expect(explain({ op: 'smaps', field: 'vmas', expected: '[]', actual: '[1]', firstDeviceType: 28 })).toBeNull();
});
