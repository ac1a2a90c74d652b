/**
 * One trace's processes, open slots and pins on a machine, and what each operation of a trace is here: calls of the public
 * API. The answer of an operation has the fields that the recorder wrote, arguments included where the session can know
 * better (the device of a slot, the number of a write).
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { VirtAddr } from '../base/brand.js';
import { PfnlessError } from '../base/errors.js';
import { FaultError } from '../machine/errors.js';
import type { DeviceAccess, Machine, Mirror, Pin, Process, VirtRange } from '../machine/types.js';
import { type Fields, runsOf } from './compare.js';
import type { TraceHeader, TraceOperation } from './trace.js';

type Operation<Name extends TraceOperation['op']> = Extract<TraceOperation, { op: Name }>;
type RangeOperation = Extract<TraceOperation, { pg: number; n: number }>;
type MirrorOperation = Extract<TraceOperation, { slot: number }>;

const WORDS_PER_PAGE = PAGE_SIZE / 8;
/** Slots 0..3 are opened by the parent, 4..7 by the child. */
const SLOTS = 8;

const PROTECTION = { NONE: 'none', R: 'r', W: 'w', RW: 'rw' } as const;

/** A process of the trace. Slots are its file descriptors: a fork copies them. */
interface Party {
  readonly process: Process;
  readonly slots: (Mirror | undefined)[];
}

export class TraceSession {
  readonly #base: number;
  readonly #arenaBytes: number;
  readonly parent: Party;
  child: Party | null = null;
  #pin: Pin | null = null;
  #spliced: Pin | null = null;
  /** Writes so far: each stores its own number. */
  #writes = 0;

  private constructor(header: TraceHeader, process: Process) {
    this.#base = header.arena_base;
    this.#arenaBytes = header.arena_pages * PAGE_SIZE;
    this.parent = { process, slots: new Array(SLOTS) };
  }

  static async start(machine: Machine, header: TraceHeader): Promise<TraceSession> {
    return new TraceSession(header, await machine.process());
  }

  /** Every process exits, every mirror is closed. */
  async end(): Promise<void> {
    await this.#pin?.release();
    await this.#spliced?.release();
    await this.child?.process.exit();
    await this.parent.process.exit();
  }

  addressOf(page: number): VirtAddr {
    return (this.#base + page * PAGE_SIZE) as VirtAddr;
  }

  /** Do one operation. Kernel answers are fields; anything else is thrown. */
  async execute(operation: TraceOperation): Promise<Fields> {
    const answer = await this.#execute(operation);
    return 'k' in operation ? { ...answer, k: ++this.#writes } : answer;
  }

  async #execute(operation: TraceOperation): Promise<Fields> {
    const party = operation.proc === 0 ? this.parent : this.child;
    if (party === null) return { proc: 'no such process' };
    switch (operation.op) {
      case 'open':
        return this.#open(party, operation);
      case 'close':
        return this.#close(party, operation);
      case 'mmap': {
        const at = this.addressOf(operation.pg);
        const protection = PROTECTION[operation.prot];
        const shared = operation.kind === 'shared';
        return errnoOf(() => party.process.mmap({ at, length: operation.n * PAGE_SIZE, protection, shared }));
      }
      case 'munmap':
        return errnoOf(() => party.process.munmap(this.#rangeOf(operation)));
      case 'mprotect':
        return errnoOf(() => party.process.mprotect(this.#rangeOf(operation), PROTECTION[operation.prot]));
      case 'fork':
        return this.#fork(party);
      case 'exit':
        return this.#exit(party);
      case 'cpu_write':
        return this.#cpuWrite(party, operation);
      case 'cpu_read':
        return this.#cpuRead(party, operation);
      case 'smaps':
        return { ...(await party.process.smaps({ start: this.addressOf(0), length: this.#arenaBytes })) };
      case 'pin':
        return errnoOf(async () => {
          this.#pin = await party.process.pin(this.#rangeOf(operation), { write: operation.write === 1 });
        });
      case 'unpin':
        return this.#letGo('#pin');
      case 'splice':
        return this.#splice(party, operation);
      case 'splice_drain':
        return this.#letGo('#spliced');
      case 'state':
        return {};
      case 'mremap':
        return errnoOf(() => party.process.mremap(this.#rangeOf(operation), { to: this.addressOf(operation.dst) }));
      case 'madvise':
        return errnoOf(() => party.process.madvise(this.#rangeOf(operation), operation.advice));
      default:
        return this.#onMirror(party, operation);
    }
  }

  /** The child's slots are its copies of the parent's. */
  async #fork({ process, slots }: Party): Promise<Fields> {
    return errnoOf(async () => {
      const open = process.mirrors;
      const child = await process.fork();
      this.child = { process: child, slots: slots.map((mirror) => mirror && child.mirrors[open.indexOf(mirror)]) };
    });
  }

  async #exit(party: Party): Promise<Fields> {
    await party.process.exit();
    this.child = null;
    return { status: 0 };
  }

  #rangeOf({ pg, n }: RangeOperation): VirtRange {
    return { start: this.addressOf(pg), length: n * PAGE_SIZE };
  }

  async #open({ process, slots }: Party, { slot, dev }: Operation<'open'>): Promise<Fields> {
    return errnoOf(async () => {
      slots[slot] = await process.mirror(dev, { onFault: 'mirror' });
    });
  }

  async #close(party: Party, { slot }: Operation<'close'>): Promise<Fields> {
    const mirror = party.slots[slot];
    if (mirror === undefined) return { errno: 'EBADF', dev: -1 };
    party.slots[slot] = undefined;
    await mirror.close();
    return { errno: '0', dev: mirror.device };
  }

  async #onMirror(party: Party, operation: Exclude<MirrorOperation, { op: 'open' | 'close' }>): Promise<Fields> {
    const mirror = party.slots[operation.slot];
    if (mirror === undefined) return { errno: 'EBADF', dev: -1 };
    return { dev: mirror.device, ...(await this.#mirrorOperation(mirror, operation)) };
  }

  async #mirrorOperation(
    mirror: Mirror,
    operation: Exclude<MirrorOperation, { op: 'open' | 'close' }>,
  ): Promise<Fields> {
    switch (operation.op) {
      case 'migrate_to_dev': {
        const range = this.#rangeOf(operation);
        const { errno } = await mirror.migrate(range, 'device');
        return errno === 0 ? withWords(await mirror.peekPages(range)) : { errno };
      }
      case 'migrate_to_sys': {
        const { errno, folios } = await mirror.migrate(this.#rangeOf(operation), 'system');
        return errno === 0 ? { errno: '0', cpages: folios } : { errno };
      }
      case 'dev_read': {
        const access = await mirror.readPages(this.#rangeOf(operation));
        return access.errno === 0 ? { ...withWords(access), faults: access.faults } : { errno: access.errno };
      }
      case 'dev_write': {
        const { pg, n, k } = operation;
        const values = Array.from({ length: n }, (_, at) => writtenWord(k, pg + at));
        const { errno, pages: cpages, faults } = await mirror.writePages(this.#rangeOf(operation), values);
        return errno === 0 ? { errno: '0', cpages, faults } : { errno };
      }
      case 'exclusive': {
        const access = await mirror.exclusive(this.#rangeOf(operation));
        return access.errno === 0 ? withWords(access) : { errno: access.errno };
      }
      case 'check_exclusive':
        return { errno: (await mirror.isExclusive(this.#rangeOf(operation))) ? 'EPERM' : '0' };
      case 'fail_alloc':
        await mirror.failNextAllocation();
        return { errno: '0', flags: 1 };
      case 'release_chunks':
        return errnoOf(() => mirror.releaseChunks());
      case 'snapshot':
        return errnoOf(async () => {
          const prot = await mirror.snapshot(this.#rangeOf(operation));
          return { cpages: prot.length, prot: [...prot] };
        });
    }
  }

  /** vmsplice into a pipe. */
  async #splice({ process }: Party, operation: Operation<'splice'>): Promise<Fields> {
    const answer = await errnoOf(async () => {
      this.#spliced = await process.pin(this.#rangeOf(operation), { kind: 'get' });
      return { pages: this.#spliced.pages };
    });
    return { pages: 0, ...answer };
  }

  /** What the holder of the pages sees, and the end of its hold. */
  async #letGo(which: '#pin' | '#spliced'): Promise<Fields> {
    const pin = which === '#pin' ? this.#pin : this.#spliced;
    if (which === '#pin') this.#pin = null;
    else this.#spliced = null;
    if (pin === null) return { errno: 'EINVAL' };
    const words = wordsOf(await pin.read());
    await pin.release();
    return { errno: '0', ...words };
  }

  /** Page after page: a page that traps is passed over, as the recorder's signal handler does. */
  async #cpuWrite({ process }: Party, { pg, n, k }: Operation<'cpu_write'>): Promise<Fields> {
    const bytes = new Uint8Array(n * PAGE_SIZE);
    fillWords(bytes, pg, k);
    const res = await this.#byPage(pg, n, (start, from) => process.write(start, bytes.subarray(from)));
    return { res: runsOf(res) };
  }

  async #cpuRead({ process }: Party, { pg, n }: Operation<'cpu_read'>): Promise<Fields> {
    const bytes = new Uint8Array(n * PAGE_SIZE);
    const res = await this.#byPage(pg, n, async (start, from) => {
      try {
        bytes.set(await process.read(start, bytes.length - from), from);
      } catch (error) {
        // What was loaded before the trap is lost with the call: load it again, it is mapped now.
        const before = error instanceof FaultError ? pageFloor(error.address) - start : 0;
        if (before > 0) bytes.set(await process.read(start, before), from);
        throw error;
      }
    });
    const { words, ...torn } = wordsOf(bytes);
    return { res: runsOf(res), words: words.map((word, at) => (res[at] === 'ok' ? word : null)), ...torn };
  }

  /** Access pages from `pg` on; what traps ends one access, and the next begins behind it. */
  async #byPage(
    pg: number,
    n: number,
    access: (start: VirtAddr, from: number) => Promise<void>,
  ): Promise<('ok' | 'SIGSEGV' | 'SIGBUS')[]> {
    const outcomes = new Array<'ok' | 'SIGSEGV' | 'SIGBUS'>(n).fill('ok');
    for (let at = 0; at < n; ) {
      try {
        await access(this.addressOf(pg + at), at * PAGE_SIZE);
        break;
      } catch (error) {
        if (!(error instanceof FaultError)) throw error;
        at = Math.floor((error.address - this.addressOf(pg)) / PAGE_SIZE);
        outcomes[at++] = error.signal;
      }
    }
    return outcomes;
  }
}

/** `{ errno: '0' }` and what `call` adds, or the errno that the kernel answered with. */
async function errnoOf(call: () => Promise<unknown>): Promise<Fields> {
  try {
    const more = await call();
    return { errno: '0', ...(typeof more === 'object' && more !== null && !('start' in more) ? more : {}) };
  } catch (error) {
    if (error instanceof PfnlessError && error.code === 'ERR_PFNLESS_ERRNO') return { errno: error.errno };
    throw error;
  }
}

/** What write `k` stores into a page of the arena. */
const writtenWord = (k: number, page: number): bigint => BigInt(k * 4096 + page);

/** A successful access that read. */
function withWords({ pages, words, torn }: DeviceAccess): Fields {
  return { errno: '0', cpages: pages, words: Array.from(words, Number), ...(torn > 0 ? { torn } : {}) };
}

/** The bytes that write `k` stores into the pages from `pg` on: their first and last words, as the recorder does. */
function fillWords(bytes: Uint8Array, pg: number, k: number): void {
  const view = new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
  for (let at = 0; at < view.length; at += WORDS_PER_PAGE) {
    view[at] = view[at + WORDS_PER_PAGE - 1] = writtenWord(k, pg + at / WORDS_PER_PAGE);
  }
}

/** The first word of each page; `torn` where the last word of some pages is another. */
function wordsOf(bytes: Uint8Array): { words: number[]; torn?: number } {
  const view = new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
  const words: number[] = [];
  let torn = 0;
  for (let at = 0; at < view.length; at += WORDS_PER_PAGE) {
    words.push(Number(view[at]));
    if (view[at] !== view[at + WORDS_PER_PAGE - 1]) torn++;
  }
  return torn === 0 ? { words } : { words, torn };
}

const pageFloor = (addr: number): number => addr - (addr % PAGE_SIZE);
