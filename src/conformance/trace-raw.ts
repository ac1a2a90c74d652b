/**
 * System calls as a trace's `raw` has them: with any argument, in bytes from the begin of the arena on, and with the flags that the call
 * itself takes. Below 0 numbers are what they are to a kernel, which counts to 2^64.
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import type { VirtAddr } from '../base/brand.js';
import type { DriverMirror } from '../drivers/driver.js';
import type { Kernel } from '../mm/kernel.js';
import { type Advice, doMadvise } from '../mm/madvise.js';
import { doMlock, doMunlock } from '../mm/mlock.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { doMmap, doMunmap, PROTECTIONS } from '../mm/mmap.js';
import { doMprotect } from '../mm/mprotect.js';
import { doMremap } from '../mm/mremap.js';
import { doMsync } from '../mm/page-writeback.js';
import {
  userfaultfdProtect,
  userfaultfdRegister,
  userfaultfdResolve,
  userfaultfdUnregister,
} from '../mm/userfaultfd.js';
import type { Userfaultfd } from '../mm/userfaultfd-context.js';
import type { VmFile } from '../mm/vma.js';
import type { Sleeps } from '../sync/task.js';

/** Calls of a process on its memory. `flags` of mmap is the protection, of mmap_device the device. */
const MEMORY_CALLS = [
  'mmap_private',
  'mmap_shared',
  'mmap_device',
  'munmap',
  'mprotect',
  'mremap',
  'madvise',
  'mlock',
  'munlock',
  'msync',
] as const;
const WATCH_CALLS = ['uffd_register', 'uffd_unregister', 'uffd_protect'] as const;
/** Ioctls of the test driver; `flags` is the slot. */
const DEVICE_CALLS = [
  'dev_read',
  'migrate_to_dev',
  'migrate_to_sys',
  'snapshot',
  'exclusive',
  'check_exclusive',
] as const;
export const RAW_CALLS = [...MEMORY_CALLS, ...WATCH_CALLS, ...DEVICE_CALLS] as const;

/** What a line of a trace says. */
export interface RawCall {
  readonly call: (typeof RAW_CALLS)[number];
  readonly at: number;
  readonly bytes: number;
  readonly flags?: number | undefined;
  readonly to?: number | undefined;
  readonly len?: number | undefined;
}

/** Who calls, and what he has open. */
export interface RawCaller {
  readonly mm: MmStruct;
  readonly userfaultfd: Userfaultfd | null;
  mirror(slot: number): DriverMirror | undefined;
  deviceFile(device: number): VmFile | undefined;
}

const [MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP] = [1, 2, 4];
const MS_SYNC = 4;
const UFFDIO_WRITEPROTECT_MODE_WP = 1;
/** MADV_*, by number. */
const ADVICE_OF: Readonly<Record<number, Advice>> = {
  3: 'WILLNEED',
  4: 'DONTNEED',
  8: 'FREE',
  14: 'HUGEPAGE',
  15: 'NOHUGEPAGE',
  20: 'COLD',
  21: 'PAGEOUT',
  25: 'COLLAPSE',
};

const upTo = (last: number): readonly number[] => Array.from({ length: last + 1 }, (_, flags) => flags);
const NO_FLAGS = [undefined];
const SLOTS = upTo(7);
/** What `flags` may be. */
const FLAGS_OF: Readonly<Record<RawCall['call'], readonly (number | undefined)[]>> = {
  mmap_private: upTo(PROTECTIONS.length - 1),
  mmap_shared: upTo(PROTECTIONS.length - 1),
  mmap_device: upTo(1),
  munmap: NO_FLAGS,
  mprotect: upTo(PROTECTIONS.length - 1),
  mremap: upTo(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP),
  madvise: Object.keys(ADVICE_OF).map(Number),
  mlock: upTo(1),
  munlock: NO_FLAGS,
  msync: [MS_SYNC],
  uffd_register: NO_FLAGS,
  uffd_unregister: NO_FLAGS,
  uffd_protect: upTo(UFFDIO_WRITEPROTECT_MODE_WP),
  dev_read: SLOTS,
  migrate_to_dev: SLOTS,
  migrate_to_sys: SLOTS,
  snapshot: SLOTS,
  exclusive: SLOTS,
  check_exclusive: SLOTS,
};
const IOCTLS: ReadonlySet<string> = new Set(DEVICE_CALLS);

/** What is wrong with a line, beyond what the schema says. */
export function rawProblem({ call, bytes, flags, to, len }: RawCall, arenaPages: number): string | null {
  if (!FLAGS_OF[call].includes(flags)) return `flags: ${call} of a trace does not take ${flags ?? 'none'}`;
  const given = [to, len].filter((value) => value !== undefined).length;
  if (given !== (call === 'mremap' ? 2 : 0)) return 'to, len: only mremap has them, and both';
  if (!IOCTLS.has(call)) return null;
  const fits = bytes % PAGE_SIZE === 0 && bytes <= arenaPages * PAGE_SIZE;
  return fits ? null : `bytes: ${call} takes whole pages, of which the arena has ${arenaPages}`;
}

/** As a kernel sees it. Only what is a multiple of a page is exact in the upper half. */
const unsigned = (value: number): number => (value < 0 ? value + 2 ** 64 : value);

/** Do what a line says. */
export function* rawCall(kernel: Kernel, caller: RawCaller, base: number, line: RawCall): Sleeps<Result> {
  const start = unsigned(base + line.at) as VirtAddr;
  const length = unsigned(line.bytes);
  const { flags = 0 } = line;
  const { mm, userfaultfd } = caller;
  switch (line.call) {
    case 'mmap_private':
    case 'mmap_shared': {
      const kind = line.call === 'mmap_shared' ? 'shared' : 'private';
      const mapped = yield* doMmap(kernel, mm, { addr: start, length, prot: PROTECTIONS[flags]!, fixed: true, kind });
      return typeof mapped === 'string' ? mapped : 0;
    }
    case 'mmap_device': {
      const file = { file: caller.deviceFile(flags)!, pgoff: 0 };
      const mapped = yield* doMmap(kernel, mm, { addr: start, length, prot: 'rw', fixed: true, file });
      return typeof mapped === 'string' ? mapped : 0;
    }
    case 'munmap':
      return yield* doMunmap(kernel, mm, start, length);
    case 'mprotect':
      return yield* doMprotect(kernel, mm, start, length, PROTECTIONS[flags]!);
    case 'mremap': {
      const fixedAt = unsigned(base + line.to!) as VirtAddr;
      const moved = yield* doMremap(kernel, mm, start, length, unsigned(line.len!), {
        maymove: (flags & MREMAP_MAYMOVE) !== 0,
        dontunmap: (flags & MREMAP_DONTUNMAP) !== 0,
        ...((flags & MREMAP_FIXED) !== 0 ? { fixedAt } : {}),
      });
      return typeof moved === 'string' ? moved : 0;
    }
    case 'madvise':
      return yield* doMadvise(kernel, mm, start, length, ADVICE_OF[flags]!);
    case 'mlock':
      return yield* doMlock(kernel, mm, start, length, flags !== 0);
    case 'munlock':
      return yield* doMunlock(kernel, mm, start, length);
    case 'msync':
      return yield* doMsync(kernel, mm, start, length);
    case 'uffd_register':
      return userfaultfd === null ? 'EBADF' : yield* userfaultfdRegister(kernel, userfaultfd, start, length);
    case 'uffd_unregister':
      return userfaultfd === null ? 'EBADF' : yield* userfaultfdUnregister(kernel, userfaultfd, start, length);
    case 'uffd_protect': {
      if (userfaultfd === null) return 'EBADF';
      const change = flags === UFFDIO_WRITEPROTECT_MODE_WP ? userfaultfdProtect : userfaultfdResolve;
      return yield* change(kernel, userfaultfd, start, length);
    }
    default: {
      const mirror = caller.mirror(flags);
      return mirror === undefined ? 'EBADF' : yield* onMirror(mirror, line.call, start, length / PAGE_SIZE);
    }
  }
}

function* onMirror(
  mirror: DriverMirror,
  call: (typeof DEVICE_CALLS)[number],
  start: VirtAddr,
  pages: number,
): Sleeps<Result> {
  const end = (start + pages * PAGE_SIZE) as VirtAddr;
  switch (call) {
    case 'dev_read':
      return (yield* mirror.deviceRead(start, pages)).errno;
    case 'migrate_to_dev': {
      const { errno } = yield* mirror.migrateToDevice(start, end);
      return errno === 0 ? mirror.peek(start, pages).errno : errno;
    }
    case 'migrate_to_sys':
      return (yield* mirror.migrateToSystem(start, end)).errno;
    case 'snapshot': {
      const codes = yield* mirror.snapshot(start, end);
      return typeof codes === 'string' ? codes : 0;
    }
    case 'exclusive':
      return (yield* mirror.exclusive(start, pages)).errno;
    case 'check_exclusive':
      return mirror.checkExclusive(start, pages);
  }
}
