/**
 * Random programs over one file against plain bytes: two processes map it, shared and private, and the CPU, a device and calls
 * read and write it, while write-back, migrations and device faults, which change nothing that anybody sees, run in between in a
 * random order. Inline, so that a failure can be repeated.
 */
import fc from 'fast-check';
import {
  boot,
  type Machine,
  type MachineFile,
  type Mirror,
  type Process,
  type VirtAddr,
  type VirtRange,
} from 'pfnless';
import { describe, expect, it } from 'vitest';

const PAGE = 4096;
const PAGES = 6;
const BYTES = PAGES * PAGE;

type Change =
  | { kind: 'load' | 'device load'; subject: number; shared: boolean; page: number }
  | { kind: 'store' | 'device store'; subject: number; shared: boolean; at: number; byte: number; count: number }
  | { kind: 'pread'; at: number; count: number }
  | { kind: 'pwrite'; at: number; byte: number; count: number }
  | { kind: 'truncate'; size: number }
  | { kind: 'fork' | 'exit' | 'unmap private' };
type Disturbance =
  | { kind: 'sync' }
  | {
      kind: 'msync' | 'to device' | 'to system' | 'device load' | 'load';
      subject: number;
      shared: boolean;
      page: number;
      count: number;
    };
interface Step {
  readonly change: Change;
  readonly disturbances: readonly Disturbance[];
  readonly verify: boolean;
}

const subject = fc.nat(1);
const shared = fc.boolean();
const page = fc.nat(PAGES - 1);
const byte = fc.integer({ min: 1, max: 255 });
const at = fc.oneof(
  fc.nat(BYTES - 1),
  page.map((index) => index * PAGE),
);
const count = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 2 * PAGE }));
const size = fc.oneof(
  fc.nat(BYTES),
  fc.nat(PAGES).map((index) => index * PAGE),
);
const kindOf = <T extends string>(...kinds: T[]) => fc.constantFrom<T>(...kinds);
const change: fc.Arbitrary<Change> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: kindOf('load', 'device load'), subject, shared, page }) },
  { weight: 8, arbitrary: fc.record({ kind: kindOf('store', 'device store'), subject, shared, at, byte, count }) },
  fc.record({ kind: kindOf('pread'), at, count }),
  { weight: 2, arbitrary: fc.record({ kind: kindOf('pwrite'), at, byte, count }) },
  { weight: 2, arbitrary: fc.record({ kind: kindOf('truncate'), size }) },
  { weight: 2, arbitrary: fc.record({ kind: kindOf('fork', 'exit', 'unmap private') }) },
);
const pages = fc.integer({ min: 1, max: PAGES });
const disturbance: fc.Arbitrary<Disturbance> = fc.oneof(fc.record({ kind: kindOf('sync') }), {
  weight: 5,
  arbitrary: fc.record({
    kind: kindOf('msync', 'to device', 'to system', 'device load', 'load'),
    ...{ subject, shared, page, count: pages },
  }),
});
const program = fc.record({
  seed: fc.nat(),
  size,
  steps: fc.array(
    fc.record<Step>({ change, disturbances: fc.array(disturbance, { maxLength: 3 }), verify: fc.boolean() }),
    { minLength: 1, maxLength: 20 },
  ),
});

/** One process: where it maps the file, and the private copies that it must have, by page. */
interface Subject {
  readonly process: Process;
  readonly mirror: Mirror;
  readonly shared: VirtRange;
  readonly own: VirtRange;
  readonly copies: Map<number, Uint8Array>;
}

class World {
  readonly machine: Machine;
  readonly file: MachineFile;
  readonly subjects: Subject[] = [];
  /** What the file holds. */
  bytes: Uint8Array;

  constructor(machine: Machine, file: MachineFile, bytes: Uint8Array) {
    this.machine = machine;
    this.file = file;
    this.bytes = bytes;
  }

  static async create(addressing: 'legacy' | 'offset', seed: number, size: number): Promise<World> {
    const machine = await boot({
      ...{ executor: 'inline', schedule: 'random', addressing, seed },
      memory: { ram: '16MiB' },
      devices: [{ memory: '2MiB', chunk: '2MiB' }],
    });
    const bytes = new Uint8Array(size).map((_, index) => index % 251);
    const world = new World(machine, await machine.file(bytes), bytes);
    const process = await machine.process();
    const mirror = await process.mirror(0, { onFault: 'mirror' });
    const mapped = await process.mmap({ length: BYTES, file: world.file, shared: true });
    const own = await process.mmap({ length: BYTES, file: world.file });
    world.subjects.push({ process, mirror, shared: mapped, own, copies: new Map() });
    return world;
  }

  async step({ change, disturbances, verify }: Step): Promise<void> {
    await Promise.all([this.change(change), ...disturbances.map((each) => this.disturb(each))]);
    if (verify) await this.verify();
    expect(await this.machine.check()).toEqual([]);
  }

  #subject(index: number): Subject {
    return this.subjects[Math.min(index, this.subjects.length - 1)]!;
  }

  get filePages(): number {
    return Math.ceil(this.bytes.length / PAGE);
  }

  /** What a mapping must show of a page. */
  expected({ copies }: Subject, isShared: boolean, index: number): Uint8Array {
    const own = isShared ? undefined : copies.get(index);
    if (own !== undefined) return own;
    const content = new Uint8Array(PAGE);
    content.set(this.bytes.subarray(index * PAGE, (index + 1) * PAGE));
    return content;
  }

  async change(change: Change): Promise<void> {
    switch (change.kind) {
      case 'load':
      case 'device load': {
        const who = this.#subject(change.subject);
        const start = (change.shared ? who.shared.start : who.own.start) + change.page * PAGE;
        const party = change.kind === 'load' ? who.process : who.mirror;
        const load = party.read(start as VirtAddr, PAGE);
        if (change.page >= this.filePages) await expect(load).rejects.toThrow(/SIGBUS|EFAULT/);
        else expect(await load).toEqual(this.expected(who, change.shared, change.page));
        return;
      }
      case 'store':
      case 'device store':
        return this.store(change);
      case 'pread': {
        const end = change.at + change.count;
        expect(await this.file.read(change.at, change.count)).toEqual(this.bytes.slice(change.at, end));
        return;
      }
      case 'pwrite': {
        const written = new Uint8Array(change.count).fill(change.byte).subarray(0, BYTES - change.at);
        const next = new Uint8Array(Math.max(this.bytes.length, change.at + written.length));
        next.set(this.bytes);
        next.set(written, change.at);
        expect(await this.file.write(change.at, written)).toBe(written.length);
        this.bytes = next;
        return;
      }
      case 'truncate': {
        await this.file.truncate(change.size);
        const next = new Uint8Array(change.size);
        next.set(this.bytes.subarray(0, change.size));
        this.bytes = next;
        for (const { copies } of this.subjects) {
          for (const index of [...copies.keys()]) if (index >= this.filePages) copies.delete(index);
        }
        return;
      }
      case 'fork': {
        if (this.subjects.length > 1) return;
        const [parent] = this.subjects;
        const process = await parent!.process.fork();
        const copies = new Map([...parent!.copies].map(([index, bytes]) => [index, bytes.slice()]));
        const mirror = await process.mirror(0, { onFault: 'mirror' });
        this.subjects.push({ ...parent!, process, mirror, copies });
        return;
      }
      case 'exit':
        if (this.subjects.length > 1) await this.subjects.pop()!.process.exit();
        return;
      case 'unmap private': {
        const [{ process, own, copies }] = this.subjects as [Subject];
        await process.mmap({ length: BYTES, at: own.start, file: this.file });
        copies.clear();
      }
    }
  }

  /** A store inside the file and inside one page; behind the end of the file it fails. */
  async store(change: Change & { kind: 'store' | 'device store' }): Promise<void> {
    const who = this.#subject(change.subject);
    const index = Math.floor(change.at / PAGE);
    const isBehind = index >= this.filePages;
    // Between the end of the file and that of its page a mapping can write, but nobody says for how long.
    const last = isBehind ? (index + 1) * PAGE : Math.min((index + 1) * PAGE, this.bytes.length);
    if (change.at >= last) return;
    const bytes = new Uint8Array(Math.min(change.count, last - change.at)).fill(change.byte);
    const start = ((change.shared ? who.shared.start : who.own.start) + change.at) as VirtAddr;
    const party = change.kind === 'store' ? who.process : who.mirror;
    if (isBehind) {
      await expect(party.write(start, bytes)).rejects.toThrow(/SIGBUS|EFAULT/);
      return;
    }
    try {
      await party.write(start, bytes);
    } catch (reason) {
      // A page on the device that is shared after fork: nobody breaks COW there.
      if (change.kind === 'device store' && !change.shared && (reason as { errno?: string }).errno === 'EFAULT') return;
      throw reason;
    }
    if (change.shared) {
      this.bytes.set(bytes, change.at);
      return;
    }
    const copy = who.copies.get(index) ?? this.expected(who, false, index);
    copy.set(bytes, change.at - index * PAGE);
    who.copies.set(index, copy);
  }

  async disturb(what: Disturbance): Promise<void> {
    if (what.kind === 'sync') return this.file.sync();
    const { process, mirror, shared, own } = this.subjects[0]!;
    const mapping = what.shared ? shared : own;
    const length = Math.min(what.count, PAGES - what.page) * PAGE;
    const range = { start: (mapping.start + what.page * PAGE) as VirtAddr, length };
    if (what.kind === 'msync') return process.msync(range);
    if (what.kind === 'to device') await mirror.migrate(range, 'device');
    else if (what.kind === 'to system') await mirror.migrate(range, 'system');
    else if (what.kind === 'device load') await mirror.readPages(range);
    // Behind the end of the file it may well fail.
    else await process.read(range.start, length).catch(() => {});
  }

  async verify(): Promise<void> {
    expect(this.file.size).toBe(this.bytes.length);
    expect(await this.file.read(0, BYTES)).toEqual(this.bytes);
    for (const who of this.subjects) {
      for (let index = 0; index < this.filePages; index++) {
        for (const isShared of [true, false]) {
          const start = ((isShared ? who.shared.start : who.own.start) + index * PAGE) as VirtAddr;
          const found = await who.process.read(start, PAGE);
          expect(Buffer.compare(found, this.expected(who, isShared, index))).toBe(0);
        }
      }
    }
  }

  async finish(): Promise<void> {
    await this.verify();
    await this.file.sync();
    expect(await this.file.stored(0, BYTES)).toEqual(this.bytes);
    for (const { process } of this.subjects) await process.exit();
    await this.file.close();
    expect(await this.machine.check()).toEqual([]);
    await this.machine.dispose();
  }
}

describe.each(['legacy', 'offset'] as const)('random programs over a file (%s)', (addressing) => {
  it('everybody sees what was written, the disk what was synced', async () => {
    await fc.assert(
      fc.asyncProperty(program, async ({ seed, size, steps }) => {
        const world = await World.create(addressing, seed, size);
        for (const step of steps) await world.step(step);
        await world.finish();
      }),
      { numRuns: Number(process.env.PFNLESS_RUNS ?? 40) },
    );
  }, 120_000);
});
