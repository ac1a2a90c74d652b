/**
 * Random programs over 8 MiB that may be huge, against a model of one number a page: a process and its child do all that the
 * operations of a trace do, while migrations, faults of devices and collapses, which change nothing that anybody sees, run in between in a
 * random order. After each step the contents are read past the page tables, so that looking disturbs nothing, and everything is
 * counted. Inline, so that a failure can be repeated.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PfnlessError } from '#src/base/errors';
import { ALL_CHECKERS } from '#src/check/boot';
import { type BootedMachine, bootWithState } from '#src/machine/boot';
import { FaultError } from '#src/machine/errors';
import type { Advice, Mirror, Pin, Process, Protection, VirtRange } from '#src/machine/types';
import { memoryImage, rangeAt } from './memory-image';

const PAGE = 4096;
const HUGE = 512;
const PAGES = 4 * HUGE;
const BASE = 0x1000_0000_0000;
const WORDS = PAGE / 8;

/** A page's contents: the same number in every word. Shared mappings share the object. */
interface Content {
  value: number;
}
interface Cell {
  prot: Protection;
  shared: boolean;
  content: Content;
}
type Model = (Cell | null)[];

interface Range {
  readonly page: number;
  readonly pages: number;
}
type Change = Range &
  (
    | { kind: 'mmap'; prot: Protection; shared: boolean }
    | { kind: 'munmap' | 'read' | 'write' | 'exclusive' }
    | { kind: 'splice' }
    | { kind: 'mprotect'; prot: Protection }
    | { kind: 'madvise'; advice: Advice }
    | { kind: 'mremap'; to: number; dontUnmap: boolean }
    | { kind: 'device write'; device: number; byLanes: boolean }
    | { kind: 'pin'; write: boolean }
    | { kind: 'fork' | 'exit' | 'unpin' }
  );
type Disturbance = Range & {
  readonly kind:
    | 'to device'
    | 'to system'
    | 'device read'
    | 'read'
    | 'collapse'
    | 'lanes'
    | 'fail alloc'
    | 'release chunks';
  readonly subject: number;
  readonly device: number;
};
interface Step {
  readonly subject: number;
  readonly change: Change;
  readonly disturbances: readonly Disturbance[];
}

const page = fc.oneof(
  fc.nat(PAGES - 1),
  fc.nat(3).map((block) => block * HUGE),
  fc.tuple(fc.nat(3), fc.constantFrom(1, 7, 255, 256, 257, 511)).map(([block, at]) => block * HUGE + at),
);
const pages = fc.oneof(
  fc.constantFrom(1, 2, 256, HUGE - 1, HUGE, HUGE + 1, 2 * HUGE, PAGES),
  { weight: 2, arbitrary: fc.constant(HUGE) },
  fc.integer({ min: 1, max: 1200 }),
);
const where = { page, pages };
const device = fc.nat(1);
const subject = fc.nat(1);
const prot = fc.constantFrom<Protection>('rw', 'rw', 'rw', 'r', 'none', 'w');
const advice = fc.constantFrom<Advice>('DONTNEED', 'FREE', 'HUGEPAGE', 'HUGEPAGE', 'NOHUGEPAGE', 'COLLAPSE');
const kind = <T extends string>(...kinds: T[]) => fc.constantFrom<T>(...kinds);
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({ kind: kind('mmap'), ...where, prot, shared: fc.nat(5).map((n) => n === 0) }),
  fc.record({ kind: kind('munmap'), ...where }),
  { weight: 2, arbitrary: fc.record({ kind: kind('mprotect'), ...where, prot }) },
  { weight: 3, arbitrary: fc.record({ kind: kind('madvise'), ...where, advice }) },
  { weight: 2, arbitrary: fc.record({ kind: kind('mremap'), ...where, to: page, dontUnmap: fc.boolean() }) },
  { weight: 5, arbitrary: fc.record({ kind: kind('write'), ...where }) },
  { weight: 2, arbitrary: fc.record({ kind: kind('read'), ...where }) },
  { weight: 3, arbitrary: fc.record({ kind: kind('device write'), ...where, device, byLanes: fc.boolean() }) },
  fc.record({ kind: kind('exclusive'), page, pages: fc.integer({ min: 1, max: 20 }) }),
  fc.record({ kind: kind('pin'), ...where, write: fc.boolean() }),
  fc.record({ kind: kind('splice'), ...where }),
  { weight: 2, arbitrary: fc.record({ kind: kind('fork', 'exit', 'unpin'), ...where }) },
);
const disturbance: fc.Arbitrary<Disturbance> = fc.record({
  kind: kind(
    ...(['to device', 'to device', 'to device', 'to system', 'device read', 'read', 'collapse', 'lanes'] as const),
    ...(['fail alloc', 'release chunks'] as const),
  ),
  ...where,
  subject,
  device,
});
const program = fc.record({
  seed: fc.nat(),
  steps: fc.array(fc.record<Step>({ subject, change, disturbances: fc.array(disturbance, { maxLength: 3 }) }), {
    minLength: 1,
    maxLength: 16,
  }),
});

const READABLE: readonly Protection[] = ['r', 'rw'];
const WRITABLE: readonly Protection[] = ['w', 'rw'];

interface Subject {
  readonly process: Process;
  readonly mirrors: readonly Mirror[];
  readonly model: Model;
}

/** The errno that a call was answered with, 0 for none. */
async function errnoOf(call: Promise<unknown>): Promise<string | 0> {
  try {
    await call;
    return 0;
  } catch (error) {
    if (error instanceof PfnlessError && typeof error.errno === 'string') return error.errno;
    throw error;
  }
}

class World {
  readonly booted: BootedMachine;
  readonly subjects: Subject[] = [];
  #pins: { pin: Pin; contents: readonly Content[] | null }[] = [];
  #writes = 0;

  constructor(booted: BootedMachine) {
    this.booted = booted;
  }

  static async create(addressing: 'legacy' | 'offset', seed: number): Promise<World> {
    const spec = {
      ...({ executor: 'inline', schedule: 'random', addressing, seed } as const),
      memory: { ram: '64MiB' },
      // The second is too small for all of the arena.
      devices: [
        { name: 'large', memory: '10MiB', chunk: '4MiB' },
        { name: 'small', memory: '6MiB', chunk: '2MiB' },
      ],
    };
    const world = new World(await bootWithState(spec, ALL_CHECKERS));
    const process = await world.booted.machine.process();
    const range = rangeAt(BASE, 0, PAGES);
    await process.mmap({ at: range.start, length: range.length });
    await process.madvise(range, 'HUGEPAGE');
    const model = Array.from({ length: PAGES }, (): Cell => ({ prot: 'rw', shared: false, content: { value: 0 } }));
    world.subjects.push(await world.subject(process, model));
    return world;
  }

  async subject(process: Process, model: Model): Promise<Subject> {
    const mirrors = [await process.mirror(0, { onFault: 'mirror' }), await process.mirror(1)];
    return { process, mirrors, model };
  }

  async step({ subject, change, disturbances }: Step): Promise<void> {
    const who = this.subjects[subject] ?? this.subjects[0]!;
    await Promise.all([this.change(who, change), ...disturbances.map((each) => this.disturb(each))]);
    expect(await this.booted.machine.check()).toEqual([]);
    for (const each of this.subjects) this.verify(each);
    for (const { pin, contents } of this.#pins) if (contents !== null) await this.verifyPin(pin, contents);
  }

  async change(who: Subject, change: Change): Promise<void> {
    const { process, mirrors, model } = who;
    const count = Math.min(change.pages, PAGES - change.page);
    const range = rangeAt(BASE, change.page, count);
    const cells = model.slice(change.page, change.page + count);
    switch (change.kind) {
      case 'mmap': {
        const { prot, shared } = change;
        await process.mmap({ at: range.start, length: range.length, protection: prot, shared });
        for (let i = 0; i < count; i++) model[change.page + i] = { prot, shared, content: { value: 0 } };
        return;
      }
      case 'munmap':
        await process.munmap(range);
        model.fill(null, change.page, change.page + count);
        return;
      case 'mprotect': {
        const hole = cells.indexOf(null);
        expect(await errnoOf(process.mprotect(range, change.prot))).toBe(hole < 0 ? 0 : 'ENOMEM');
        for (const cell of hole < 0 ? cells : cells.slice(0, hole)) cell!.prot = change.prot;
        return;
      }
      case 'madvise':
        return this.madvise(who, change.advice, range, cells);
      case 'mremap':
        return this.mremap(who, change, range, cells);
      case 'write':
        return this.write(who, range, cells);
      case 'read':
        return this.read(process, range, cells);
      case 'device write':
        return this.deviceWrite(mirrors[change.device]!, range, cells, change.byLanes);
      case 'exclusive':
        await mirrors[0]!.exclusive(range);
        return;
      case 'fork': {
        if (this.subjects.length > 1) return;
        let child: Process;
        try {
          child = await process.fork();
        } catch (error) {
          // A device is at work on a page that it has exclusively: EBUSY, which fork makes ENOMEM of.
          expect(error).toMatchObject({ errno: 'ENOMEM' });
          return;
        }
        // Writes to shared memory may come in between, and are seen by both.
        const copy = (cell: Cell | null) =>
          cell && { ...cell, content: cell.shared ? cell.content : { ...cell.content } };
        const copies = model.map(copy);
        this.subjects.push(await this.subject(child, copies));
        return;
      }
      case 'exit':
        if (this.subjects.length > 1) await this.subjects.pop()!.process.exit();
        return;
      case 'pin':
      case 'splice':
        return this.pin(change, range, cells);
      case 'unpin':
        for (const { pin } of this.#pins.splice(0)) await pin.release();
    }
  }

  async madvise({ process }: Subject, advice: Advice, range: VirtRange, cells: Model): Promise<void> {
    const errno = await errnoOf(process.madvise(range, advice));
    if (cells.includes(null) && (errno === 0 || advice === 'DONTNEED')) expect(errno).toBe('ENOMEM');
    if (advice !== 'DONTNEED') return;
    for (const cell of cells) if (cell !== null && !cell.shared) cell.content = { value: 0 };
  }

  async mremap(who: Subject, change: Change & { kind: 'mremap' }, range: VirtRange, cells: Model): Promise<void> {
    const { model, process } = who;
    const { to, dontUnmap } = change;
    const count = cells.length;
    const overlaps = to < change.page + count && change.page < to + count;
    const fits = to + count <= PAGES;
    if (!fits) return;
    const errno = await errnoOf(process.mremap(range, { to: rangeAt(BASE, to, 1).start, dontUnmap }));
    if (overlaps) {
      expect(errno).toBe('EINVAL');
      return;
    }
    if (cells[0] === null) {
      expect(errno).toBe('EFAULT');
      return;
    }
    expect(errno).toBe(0);
    // Gaps are kept: what lies at the target where the source has a hole stays.
    for (const [i, cell] of cells.entries()) {
      if (cell === null) continue;
      model[to + i] = cell;
      const left = { ...cell, content: cell.shared ? cell.content : { value: 0 } };
      model[change.page + i] = dontUnmap ? left : null;
    }
  }

  /** Page after page until one traps. */
  async write({ process }: Subject, range: VirtRange, cells: Model): Promise<void> {
    const value = ++this.#writes;
    const trap = cells.findIndex((cell) => cell === null || !WRITABLE.includes(cell.prot));
    const done = trap < 0 ? cells.length : trap;
    const store = process.writeArray('f64', range.start, new Float64Array((range.length / PAGE) * WORDS).fill(value));
    if (trap < 0) await store;
    else await expect(store).rejects.toMatchObject({ signal: 'SIGSEGV', address: range.start + trap * PAGE });
    for (const cell of cells.slice(0, done)) cell!.content.value = value;
  }

  async read(process: Process, range: VirtRange, cells: Model): Promise<void> {
    const trap = cells.findIndex((cell) => cell === null || cell.prot === 'none');
    const load = process.readArray('f64', range.start, (range.length / PAGE) * WORDS);
    if (trap >= 0) {
      await expect(load).rejects.toMatchObject({ signal: 'SIGSEGV', address: range.start + trap * PAGE });
      return;
    }
    const words = await load;
    for (const [i, cell] of cells.entries())
      expectPage(words.subarray(i * WORDS, (i + 1) * WORDS), cell!.content.value);
  }

  /** Through the driver, or by a program's lanes. */
  async deviceWrite(mirror: Mirror, range: VirtRange, cells: Model, byLanes: boolean): Promise<void> {
    const value = ++this.#writes;
    const word = new BigUint64Array(Float64Array.of(value).buffer)[0]!;
    const { errno } =
      byLanes && cells.length <= HUGE && cells.every((cell) => cell !== null && !cell.shared && cell.prot === 'rw')
        ? await this.lanesWrite(mirror, range, value)
        : await mirror.writePages(range, new BigUint64Array(cells.length).fill(word));
    if (errno === 0) expect(cells.findIndex((cell) => cell === null || cell.prot !== 'rw')).toBe(-1);
    for (const cell of cells) {
      if (cell === null) continue;
      // Pages before the one that failed may have been written: which, is seen afterwards.
      if (errno === 0) cell.content.value = value;
      else this.#perhaps.set(cell.content, value);
    }
  }

  async lanesWrite(mirror: Mirror, range: VirtRange, value: number): Promise<{ errno: string | 0 }> {
    const halves = new Int32Array(Float64Array.of(value).buffer);
    const words = range.length / 4;
    for (const half of [0, 1]) {
      const args = { target: range.start, count: words, value: halves[half]!, half };
      // The high half last: a number is whole only with both.
      const source = `export default function (ctx, a) { for (let i = ctx.lane * 2 + a.half; i < a.count; i += 2 * ctx.lanes) ctx.storeI32(a.target + i * 4, a.value); }`;
      const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`);
      const errno = await errnoOf(mirror.launch(url, { lanes: 32, args }));
      if (errno !== 0) return { errno };
    }
    return { errno: 0 };
  }

  readonly #perhaps = new Map<Content, number>();

  async pin(
    change: Range & ({ kind: 'splice' } | { kind: 'pin'; write: boolean }),
    range: VirtRange,
    cells: Model,
  ): Promise<void> {
    // Two at most: who holds all of memory stops everything.
    if (this.#pins.length > 1) return;
    const { process } = this.subjects[0]!;
    const mine = this.subjects[0]!.model.slice(change.page, change.page + cells.length);
    const write = change.kind === 'pin' && change.write;
    const wanted = write ? WRITABLE : READABLE;
    const refused = mine.findIndex((cell) => cell === null || !wanted.includes(cell.prot));
    try {
      const pin = await process.pin(range, { write, kind: change.kind === 'pin' ? 'longterm' : 'get' });
      if (change.kind === 'pin') expect(refused).toBe(-1);
      else {
        // What is mapped already can be had, also where the process may only write.
        const barred = mine.findIndex((cell) => cell === null || cell.prot === 'none');
        expect(pin.pages).toBeGreaterThanOrEqual(refused < 0 ? mine.length : refused);
        expect(pin.pages).toBeLessThanOrEqual(barred < 0 ? mine.length : barred);
      }
      // A long-term pin sees what the process writes, a plain reference what was there.
      this.#pins.push({ pin, contents: change.kind === 'pin' ? mine.map((cell) => cell!.content) : null });
    } catch (error) {
      expect(error).toMatchObject({ errno: expect.stringMatching(/EFAULT|ENOMEM/) });
      if (refused < 0) expect(error).toMatchObject({ errno: 'ENOMEM' });
    }
  }

  async verifyPin(pin: Pin, contents: readonly Content[]): Promise<void> {
    const bytes = await pin.read();
    const words = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
    for (const [i, { value }] of contents.entries()) expectPage(words.subarray(i * WORDS, (i + 1) * WORDS), value);
  }

  /** What changes nothing that anybody sees; it may fail. */
  async disturb({ kind, subject, device, page, pages }: Disturbance): Promise<void> {
    const who = this.subjects[subject] ?? this.subjects[0]!;
    const { process } = who;
    const mirror = who.mirrors[device]!;
    const range = rangeAt(BASE, page, Math.min(pages, PAGES - page));
    try {
      if (kind === 'to device') await mirror.migrate(range, 'device');
      else if (kind === 'to system') await mirror.migrate(range, 'system');
      else if (kind === 'device read') await mirror.readPages(range);
      else if (kind === 'read') await process.read(range.start, range.length);
      else if (kind === 'collapse') await process.madvise(range, 'COLLAPSE');
      else if (kind === 'lanes') {
        const args = { target: range.start, count: range.length / PAGE, stride: PAGE };
        await mirror.launch('touch', { lanes: Math.min(64, range.length / PAGE), args });
      } else if (kind === 'fail alloc') await mirror.failNextAllocation();
      else if (this.#pins.length === 0) await mirror.releaseChunks();
    } catch (error) {
      // Nobody promised that something is mapped there, or that the process lives.
      const code = error instanceof PfnlessError ? error.code : '';
      const fine = [
        'ERR_PFNLESS_FAULT',
        'ERR_PFNLESS_ERRNO',
        'ERR_PFNLESS_EXITED',
        'ERR_PFNLESS_CLOSED',
        'ERR_PFNLESS_DISPOSED',
      ];
      if (!(error instanceof FaultError) && !fine.includes(code)) throw error;
    }
  }

  verify({ process, model }: Subject): void {
    const image = memoryImage(this.booted.state, process, rangeAt(BASE, 0, PAGES));
    for (const [i, cell] of model.entries()) {
      const bytes = image.get(i);
      if (cell === null) {
        expect(bytes).toBeUndefined();
        continue;
      }
      if (bytes === undefined) {
        // A private page is in the page table or was never touched.
        if (!cell.shared && !this.#perhaps.has(cell.content)) expect([i, cell.content.value]).toEqual([i, 0]);
        continue;
      }
      const words = new Float64Array(bytes.buffer, bytes.byteOffset, WORDS);
      const perhaps = this.#perhaps.get(cell.content);
      if (perhaps !== undefined) {
        if (words[0] === perhaps) cell.content.value = perhaps;
        this.#perhaps.delete(cell.content);
      }
      expectPage(words, cell.content.value, i);
    }
  }

  async finish(): Promise<void> {
    const { machine } = this.booted;
    for (const { process, model } of this.subjects) {
      for (const [i, cell] of model.entries()) {
        if (cell !== null && cell.prot !== 'none') await this.read(process, rangeAt(BASE, i, 1), [cell]);
      }
    }
    for (const { pin } of this.#pins.splice(0)) await pin.release();
    for (const { process } of this.subjects.reverse()) await process.exit();
    expect(await machine.check()).toEqual([]);
    const { devices } = await machine.stats();
    expect(devices.map(({ usedPages }) => usedPages)).toEqual([0, 0]);
    await machine.dispose();
  }
}

function expectPage(words: Float64Array, value: number, page = 0): void {
  for (let i = 0; i < words.length; i++)
    if (words[i] !== value) expect({ page, i, word: words[i] }).toEqual({ page, i, word: value });
}

describe.each(['legacy', 'offset'] as const)('random programs over huge memory (%s)', (addressing) => {
  it('memory holds what was stored, and everything is accounted for', async () => {
    await fc.assert(
      fc.asyncProperty(program, async ({ seed, steps }) => {
        const world = await World.create(addressing, seed);
        for (const step of steps) await world.step(step);
        await world.finish();
      }),
      { numRuns: Number(process.env.PFNLESS_RUNS ?? 25) },
    );
  }, 200_000);
});
