/** What each operation of a program does to the machine: kernel and driver functions, as machine/process.ts calls them. */
import { PAGE_SIZE } from '../abi/address.js';
import { errnoName, VM_FAULT_OOM, VM_FAULT_SIGSEGV } from '../abi/errno.js';
import { PfnlessError } from '../base/errors.js';
import type { DriverMirror } from '../drivers/driver.js';
import { clearRefs } from '../mm/clear-refs.js';
import { getUserPages, pinUserPages } from '../mm/gup.js';
import type { Kernel } from '../mm/kernel.js';
import { doMadvise, type Advice as KernelAdvice } from '../mm/madvise.js';
import { doMlock, doMunlock } from '../mm/mlock.js';
import { doMmap, doMunmap, type MmapRequest } from '../mm/mmap.js';
import { doMprotect } from '../mm/mprotect.js';
import { doMremap } from '../mm/mremap.js';
import { pagemapWord } from '../mm/proc-pagemap.js';
import { copyFromUser, copyToUser, type UserAccess } from '../mm/uaccess.js';
import {
  userfaultfdProtect,
  userfaultfdRegister,
  userfaultfdResolve,
  userfaultfdUnregister,
} from '../mm/userfaultfd.js';
import type { Sleeps } from '../sync/task.js';
import type { Call } from '../workload/program/program.js';
import type { TaskCpu } from './cpu.js';
import { addressOf, type Subject } from './subject.js';

/** A word, or 0 for success, or how it failed: an errno or a signal. */
export type CallResult = number | string;

/**
 * All but `fork`, which makes a process and a task.
 * @param task name of the task: pins are its own
 * @param cpu what it runs on; `null`: the kernel's own CPU, as all others do
 */
export function perform(
  kernel: Kernel,
  subject: Subject,
  task: string,
  call: Call,
  cpu: TaskCpu | null,
): Sleeps<CallResult> {
  const { mm } = subject;
  switch (call.op) {
    case 'load':
      return load(kernel, subject, call, cpu);
    case 'store':
      return store(kernel, subject, call, cpu);
    case 'mmap':
      return mapFresh(kernel, subject, call);
    case 'munmap':
      return doMunmap(kernel, mm, start(call), bytes(call));
    case 'mprotect':
      return doMprotect(kernel, mm, start(call), bytes(call), call.protection!);
    case 'mremap':
      return move(kernel, subject, call);
    case 'madvise':
      return doMadvise(kernel, mm, start(call), bytes(call), call.advice!.toUpperCase() as KernelAdvice);
    case 'uffd_register':
      return userfaultfdRegister(kernel, subject.openUserfaultfd(call.feature), start(call), bytes(call));
    case 'uffd_unregister':
    case 'uffd_protect':
    case 'uffd_resolve':
    case 'uffd_close':
      return onUserfaultfd(kernel, subject, call);
    case 'mlock':
      return doMlock(kernel, mm, start(call), bytes(call), false);
    case 'munlock':
      return doMunlock(kernel, mm, start(call), bytes(call));
    case 'clear_refs':
      return forgetStores(kernel, subject);
    case 'soft_dirty':
      return softDirty(kernel, subject, call);
    case 'pin':
    case 'get':
      return hold(kernel, subject, task, call);
    case 'unpin':
    case 'put':
      return letGo(subject, task, call.op === 'unpin');
    case 'open':
      return open(subject, call.device!);
    case 'close':
      return close(subject, call.device!);
    case 'exit':
      return exit(subject);
    default:
      return onMirror(subject, call);
  }
}

const start = ({ page }: Call) => addressOf(page!);
const bytes = ({ page, last }: Call): number => (last! - page! + 1) * PAGE_SIZE;
const place = ({ page, offset = 0 }: Call) => (addressOf(page!) + offset) as ReturnType<typeof addressOf>;

const word = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer);
const wordOf = (memory: Uint8Array): number => new Uint32Array(memory.buffer, memory.byteOffset, 1)[0]!;

/** How a CPU's access that failed looks to the program. */
export function signalOf({ fault }: UserAccess): string {
  if (fault & VM_FAULT_SIGSEGV) return 'SIGSEGV';
  return fault & VM_FAULT_OOM ? 'OOM' : 'SIGBUS';
}

function* load(kernel: Kernel, { mm }: Subject, call: Call, cpu: TaskCpu | null): Sleeps<CallResult> {
  const out = new Uint8Array(4);
  const access =
    cpu === null
      ? yield* copyFromUser(kernel, mm, place(call), out)
      : yield* cpu.access(mm, place(call), false, (memory) => out.set(memory));
  return access.fault === 0 ? wordOf(out) : signalOf(access);
}

function* store(kernel: Kernel, { mm }: Subject, call: Call, cpu: TaskCpu | null): Sleeps<CallResult> {
  const bytes = word(call.value!);
  const access =
    cpu === null
      ? yield* copyToUser(kernel, mm, place(call), bytes)
      : yield* cpu.access(mm, place(call), true, (memory) => memory.set(bytes));
  return access.fault === 0 ? 0 : signalOf(access);
}

function* mapFresh(kernel: Kernel, { mm, file }: Subject, call: Call): Sleeps<CallResult> {
  const { backing } = call;
  const ofFile = backing === 'file' || backing === 'private-file';
  const request: MmapRequest = {
    ...{ addr: start(call), length: bytes(call), prot: call.protection ?? 'rw', fixed: true },
    kind: backing === 'shared' || backing === 'file' ? 'shared' : 'private',
    ...(ofFile ? { file: { file: file!, pgoff: call.page! } } : {}),
  };
  const mapped = yield* doMmap(kernel, mm, request);
  return typeof mapped === 'string' ? mapped : 0;
}

function* forgetStores(kernel: Kernel, { mm }: Subject): Sleeps<CallResult> {
  yield* clearRefs(kernel, mm, 'soft-dirty');
  return 0;
}

/** Bit 55 of the page's word in /proc/pid/pagemap. */
function* softDirty(kernel: Kernel, { mm }: Subject, call: Call): Sleeps<CallResult> {
  yield* mm.mmapLock.downRead();
  const word = pagemapWord(kernel, mm, start(call));
  mm.mmapLock.upRead();
  return Number((word >> 55n) & 1n);
}

function* move(kernel: Kernel, { mm }: Subject, call: Call): Sleeps<CallResult> {
  const flags = { maymove: true, fixedAt: addressOf(call.to!), dontunmap: call.dontunmap === true };
  const moved = yield* doMremap(kernel, mm, start(call), bytes(call), bytes(call), flags);
  return typeof moved === 'string' ? moved : 0;
}

function* hold(kernel: Kernel, subject: Subject, task: string, call: Call): Sleeps<CallResult> {
  const count = call.last! - call.page! + 1;
  const write = call.write === true;
  if (call.op === 'pin') {
    const pages = yield* pinUserPages(kernel, subject.mm, start(call), count, { write, longterm: true });
    if (typeof pages === 'string') return pages;
    subject.hold(task, true, pages);
    return 0;
  }
  const { pages, errno } = yield* getUserPages(kernel, subject.mm, start(call), count, write);
  subject.hold(task, false, pages);
  return errno;
}

// biome-ignore lint/correctness/useYield: a call that never sleeps
function* letGo(subject: Subject, task: string, pinned: boolean): Sleeps<CallResult> {
  subject.letGo(pinned, task);
  return 0;
}

function* open(subject: Subject, device: number): Sleeps<CallResult> {
  try {
    yield* subject.open(device);
    return 0;
  } catch (error) {
    if (error instanceof PfnlessError && error.errno !== undefined) return error.errno;
    throw error;
  }
}

function* close(subject: Subject, device: number): Sleeps<CallResult> {
  return (yield* subject.close(device)) ? 0 : 'EBADF';
}

function* onUserfaultfd(kernel: Kernel, subject: Subject, call: Call): Sleeps<CallResult> {
  const { userfaultfd } = subject;
  if (userfaultfd === null) return 'EBADF';
  switch (call.op) {
    case 'uffd_unregister':
      return yield* userfaultfdUnregister(kernel, userfaultfd, start(call), bytes(call));
    case 'uffd_protect':
      return yield* userfaultfdProtect(kernel, userfaultfd, start(call), bytes(call));
    case 'uffd_resolve':
      return yield* userfaultfdResolve(kernel, userfaultfd, start(call), bytes(call), { wake: true });
    default:
      yield* subject.closeUserfaultfd();
      return 0;
  }
}

function* exit(subject: Subject): Sleeps<CallResult> {
  yield* subject.exit();
  return 0;
}

/** A call on an open device file: the file stays open until it returns. */
function* onMirror(subject: Subject, call: Call): Sleeps<CallResult> {
  const open = subject.getMirror(call.device!);
  if (open === null) return 'EBADF';
  const result = yield* mirrorCall(open.mirror, call);
  yield* open.put();
  return result;
}

function* mirrorCall(mirror: DriverMirror, call: Call): Sleeps<CallResult> {
  switch (call.op) {
    case 'todevice':
      return (yield* mirror.migrateToDevice(start(call), end(call))).errno;
    case 'tosystem':
      return (yield* mirror.migrateToSystem(start(call), end(call))).errno;
    case 'exclusive':
      return (yield* mirror.exclusive(start(call), call.last! - call.page! + 1)).errno;
    case 'release':
      return yield* mirror.releaseChunks();
    case 'fail_alloc':
      mirror.failAlloc();
      return 0;
    case 'read': {
      const out = new Uint8Array(4);
      const errno = yield* mirror.read(place(call), out);
      return errno === 0 ? wordOf(out) : errno;
    }
    case 'write':
      return yield* mirror.write(place(call), word(call.value!));
    case 'touch':
      return yield* launch(mirror, 'touch', { target: place(call), count: 1, stride: 4 });
    case 'fill':
      return yield* launch(mirror, 'fill', { target: place(call), count: 1, value: call.value!, step: 0 });
    default:
      return yield* launch(mirror, 'atomic-increment', { target: place(call), count: 1, stride: 4, by: call.value! });
  }
}

const end = ({ last }: Call) => addressOf(last! + 1);

/** One lane. */
function* launch(mirror: DriverMirror, program: string, args: Readonly<Record<string, number>>): Sleeps<CallResult> {
  const { failure } = yield* mirror.launch({ program, lanes: 1, groupSize: 1, args });
  if (failure === null) return 0;
  return failure.kind === 'fault' ? errnoName(failure.errno) : failure.message;
}
