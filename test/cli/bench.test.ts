/** What `pfnless bench` refuses, before it has measured anything. */
import { expect, test } from 'vitest';
import { pfnless } from './pfnless.js';

test.each([
  [['--filter', 'nonsense'], /no benchmark has "nonsense" in its name; there are: migrate to device;/],
  [['--growth', '--filter', 'nonsense'], /nothing that grows has "nonsense" in its name; there are: migrated memory;/],
  [['--growth', '--compare', 'old.json'], /--growth has nothing to compare/],
  [['--page', 'page.md', '--filter', 'fork'], /--page measures everything/],
  [['--page', 'page.md', '--growth'], /--page measures everything/],
  [['--page', 'page.md', '--addressing', 'legacy'], /--page compares both addressings/],
  [['--growth', '--samples', '20'], /--samples is not for it/],
  [['--compare', 'nowhere.json'], /nowhere\.json cannot be read/],
  [['--samples', '1'], /samples/],
])('bench %s', async (flags, says) => {
  const { code, stdout, stderr } = await pfnless(['bench', ...flags]);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toMatch(says);
});
