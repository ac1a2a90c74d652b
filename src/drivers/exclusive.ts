/** Taking a page of RAM away from the CPU, for the device's atomics. Linux: dmirror_exclusive() in lib/test_hmm.c. */
import type { Errno } from '../abi/errno.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { makeDeviceExclusive } from '../mm/device-exclusive.js';
import { pageFrame, pageMemory } from '../mm/highmem.js';
import { mmuIntervalReadBegin } from '../mm/mmu-notifier.js';
import { putPage } from '../mm/put-page.js';
import { folioUnlock } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import type { Dmirror } from './dmirror.js';
import type { MigrationContext } from './migration-targets.js';

/**
 * Take one page and map it on the device, atomics allowed. The CPU's next access takes it back.
 * Precondition: mmap_lock held for reading. EFAULT: no mapping, or not writable; EOPNOTSUPP: not anonymous memory; ENOMEM.
 */
export function* takeExclusive(ctx: MigrationContext, dmirror: Dmirror, addr: VirtAddr): Sleeps<0 | Errno> {
  const { kernel } = ctx;
  const page = yield* lockExclusive(ctx, dmirror, addr);
  if (typeof page === 'string') return page;
  // While the page is locked the CPU cannot have it back.
  const mapped = dmirror.mapExclusive(addr, pageMemory(kernel, page), pageFrame(kernel, page));
  folioUnlock(kernel.memmap.words, page);
  putPage(kernel, page);
  return mapped ? 0 : 'ENOMEM';
}

/** `make_device_exclusive()` of one page, which is locked and held on success, while nobody is about to take it away. */
function* lockExclusive({ kernel, owner }: MigrationContext, dmirror: Dmirror, addr: VirtAddr): Sleeps<Page | Errno> {
  for (;;) {
    const page = yield* makeDeviceExclusive(kernel, dmirror.mm, addr, owner);
    if (typeof page === 'string' || !dmirror.invalidating) return page;
    folioUnlock(kernel.memmap.words, page);
    putPage(kernel, page);
    yield* mmuIntervalReadBegin(dmirror.notifier);
  }
}
