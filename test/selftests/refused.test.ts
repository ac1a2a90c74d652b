/** What the kernel's tests would need and nobody can have yet is refused in so many words, and changes nothing. */
import { expect } from 'vitest';
import { BUFFER, counting, expectMemory, filled, PAGE, selftests, toDevice, variantsOf } from './fixture.js';

const PAGES = BUFFER / PAGE;
const ADVICE = ['REMOVE', 'POPULATE_READ', 'DONTFORK', 'MERGEABLE'];

selftests(variantsOf(2), (test) => {
  test('madvise', async ({ process, mirror }) => {
    const range = await filled(process, counting(PAGES));
    await toDevice(mirror, range);
    for (const advice of ADVICE) {
      await expect(process.madvise(range, advice as never)).rejects.toMatchObject({ code: 'ERR_PFNLESS_ARGUMENT' });
    }
    await expect(process.madvise(range, 'COLLAPSE')).rejects.toMatchObject({ errno: 'EINVAL' });
    await expectMemory(process, range, counting(PAGES));
  });
});
