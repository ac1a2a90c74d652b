/** Devices that reach each other's private memory: pages move between them directly, or are used where they are. */
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { DMIRROR_PROT } from '#src/abi/dmirror';
import type { VirtAddr } from '#src/base/brand';
import { boot } from '#src/check/boot';
import type { Addressing, ExecutorKind, Machine, Mirror, Process, VirtRange } from '#src/machine/types';
import { workloads } from '#src/workload/library/index';
import { runWorkload } from '#src/workload/run';

const PAGE = 4096;
const HUGE = 512;
const { DEV_PRIVATE_LOCAL, DEV_PRIVATE_REMOTE, PMD, WRITE } = DMIRROR_PROT;
const machines: Machine[] = [];

afterEach(async () => {
  for (const machine of machines.splice(0)) {
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  }
});

interface Scene {
  readonly machine: Machine;
  readonly process: Process;
  readonly range: VirtRange;
  readonly mirrors: readonly [Mirror, Mirror, Mirror];
}

/** Devices 0 and 1 are peers, device 2 is not. `range` counts up. */
async function scene(addressing: Addressing, executor: ExecutorKind, pages = 16, onFault?: 'mirror'): Promise<Scene> {
  const device = { memory: '8MiB', chunk: '4MiB' };
  const machine = await boot({
    addressing,
    executor,
    memory: { ram: '64MiB' },
    devices: [{ ...device, peers: 'link' }, { ...device, peers: 'link' }, device],
  });
  machines.push(machine);
  const process = await machine.process();
  const range = await process.mmap({ at: 0x1000_0000_0000 as VirtAddr, length: pages * PAGE });
  if (pages === HUGE) await process.madvise(range, 'HUGEPAGE');
  await process.writeArray('i32', range.start, counting(pages));
  const open = (index: number) => process.mirror(index, onFault === undefined ? {} : { onFault });
  return { machine, process, range, mirrors: [await open(0), await open(1), await open(2)] };
}

const counting = (pages: number): Int32Array => Int32Array.from({ length: (pages * PAGE) / 4 }, (_, i) => i);
const codes = async (mirror: Mirror, range: VirtRange): Promise<number[]> => [...new Set(await mirror.snapshot(range))];

describe.each([
  ['legacy', 'inline'],
  ['offset', 'inline'],
  ['offset', 'threads'],
] as const)('peers (%s, %s)', (addressing, executor) => {
  it.each([16, HUGE])('hand %i pages over without a stop in RAM', async (pages) => {
    const { machine, process, range, mirrors } = await scene(addressing, executor, pages);
    const [a, b] = mirrors;
    const folios = pages === HUGE ? 1 : pages;
    expect(await a.migrate(range, 'device')).toMatchObject({ migrated: pages, folios, errno: 0 });
    expect(await b.migrate(range, 'device')).toMatchObject({ migrated: pages, folios, errno: 0 });
    const stats = await machine.stats();
    expect(stats.migratedToRam).toBe(0);
    expect(stats.migratedToDevice).toBe(2 * pages);
    const huge = pages === HUGE ? PMD : 0;
    expect(await codes(b, range)).toEqual([DEV_PRIVATE_LOCAL | WRITE | huge]);
    expect(await codes(a, range)).toEqual([DEV_PRIVATE_REMOTE | WRITE | huge]);
    expect(await machine.check()).toEqual([]);
    expect(await process.readArray('i32', range.start, (pages * PAGE) / 4)).toEqual(counting(pages));
  });

  it('use pages where they are', async () => {
    const { machine, process, range, mirrors } = await scene(addressing, executor, 16, 'mirror');
    const [a, b] = mirrors;
    await a.migrate(range, 'device');
    const before = (await machine.stats()).migratedToRam;
    const access = await b.readPages(range);
    expect(access).toMatchObject({ errno: 0, pages: 16, faults: 1 });
    expect([...access.words].map((word) => Number(word & 0xffffffffn))).toEqual(
      Array.from({ length: 16 }, (_, page) => (page * PAGE) / 4),
    );
    expect(await codes(a, range)).toEqual([DEV_PRIVATE_LOCAL | WRITE]);
    await b.writePages(range, new Array<bigint>(16).fill(7n));
    expect((await a.readPages(range)).words).toEqual(new BigUint64Array(16).fill(7n));
    expect((await machine.stats()).migratedToRam).toBe(before);
    expect(await machine.check()).toEqual([]);
    // The CPU takes them all home, from whoever maps them.
    expect(await process.readArray('i32', range.start, 1)).toEqual(Int32Array.of(7));
    expect(await machine.check()).toEqual([]);
  });

  it('leave what others have: its owner is another', async () => {
    const { range, mirrors } = await scene(addressing, executor);
    const [a, , stranger] = mirrors;
    await a.migrate(range, 'device');
    expect(await codes(stranger, range)).toEqual([DMIRROR_PROT.NONE]);
    expect(await stranger.migrate(range, 'device')).toMatchObject({ migrated: 0, errno: 'ENOENT' });
    expect(await codes(a, range)).toEqual([DEV_PRIVATE_LOCAL | WRITE]);
  });

  it('send home what a peer has', async () => {
    const { process, range, mirrors } = await scene(addressing, executor);
    const [a, b] = mirrors;
    await a.migrate(range, 'device');
    expect(await b.migrate(range, 'system')).toMatchObject({ migrated: 16, errno: 0 });
    expect(await codes(a, range)).toEqual([WRITE]);
    expect(await process.readArray('i32', range.start, (16 * PAGE) / 4)).toEqual(counting(16));
  });

  it('lose what is on a device that dies, and nothing else', async () => {
    const { machine, process, range, mirrors } = await scene(addressing, executor);
    const [a, b] = mirrors;
    const half = { start: range.start, length: 8 * PAGE };
    await a.migrate(half, 'device');
    await b.migrate({ start: (range.start + 8 * PAGE) as VirtAddr, length: 8 * PAGE }, 'device');
    await machine.killDevice(0);
    expect(await b.migrate(range, 'device')).toMatchObject({ migrated: 0, errno: 'ENOENT' });
    await expect(process.readArray('i32', range.start, 1)).rejects.toThrow(/SIGBUS/);
    const rest = await process.readArray('i32', (range.start + 8 * PAGE) as VirtAddr, (8 * PAGE) / 4);
    expect(rest).toEqual(counting(16).subarray((8 * PAGE) / 4));
  });
});

/** In parallel: a page that came to one device was once taken by its peer before it was mapped, and mapped behind its back. */
it.each(['legacy', 'offset'] as const)('share a graph (%s, threads)', async (addressing) => {
  const device = { memory: '16MiB', peers: 'link' };
  const machine = await boot({ addressing, executor: 'threads', devices: [device, device, device] });
  machines.push(machine);
  const bfs = workloads.find(({ name }) => name === 'bfs')!;
  for (let seed = 1; seed <= 3; seed++) {
    const result = await runWorkload(machine, bfs, { devices: 3, size: 4096, seed, now: () => 0 });
    expect(result).toMatchObject({ ok: true, verified: true, violations: [] });
  }
});

describe('random programs of peers', () => {
  const PAGES = 8;
  const span = fc
    .tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: PAGES }))
    .map(([first, pages]) => ({ first, pages: Math.min(pages, PAGES - first) }));
  const step = fc.record({
    op: fc.constantFrom('device', 'system', 'deviceRead', 'deviceWrite', 'cpuRead', 'cpuWrite', 'drop'),
    device: fc.nat(2),
    span,
  });

  it.each(['legacy', 'offset'] as const)('read what was written last (%s)', async (addressing) => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 24 }), fc.nat(2 ** 31), async (steps, seed) => {
        const device = { memory: '2MiB', chunk: '2MiB', peers: 'link' };
        await using machine = await boot({
          addressing,
          executor: 'inline',
          schedule: 'random',
          seed,
          memory: { ram: '16MiB' },
          devices: [device, device, device],
        });
        const process = await machine.process();
        const range = await process.mmap({ length: PAGES * PAGE });
        const mirrors = await Promise.all([0, 1, 2].map((index) => process.mirror(index)));
        const model = new BigUint64Array(PAGES);
        let count = 0n;
        for (const { op, device: index, span: part } of steps) {
          const where = { start: (range.start + part.first * PAGE) as VirtAddr, length: part.pages * PAGE };
          const mirror = mirrors[index]!;
          const values = model.subarray(part.first, part.first + part.pages);
          if (op === 'device' || op === 'system') await mirror.migrate(where, op);
          if (op === 'deviceRead') expect((await mirror.readPages(where)).words).toEqual(new BigUint64Array(values));
          if (op === 'deviceWrite') {
            values.fill(++count);
            expect(await mirror.writePages(where, [...values])).toMatchObject({ errno: 0 });
          }
          if (op === 'cpuRead') {
            const bytes = await process.read(where.start, where.length);
            const words = new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
            for (let page = 0; page < part.pages; page++) expect(words[page * 512]).toBe(values[page]);
          }
          if (op === 'cpuWrite') {
            values.fill(++count);
            await process.write(where.start, new Uint8Array(new BigUint64Array(part.pages * 512).fill(count).buffer));
          }
          if (op === 'drop') {
            values.fill(0n);
            await process.madvise(where, 'DONTNEED');
          }
          expect(await machine.check()).toEqual([]);
        }
      }),
      { numRuns: 40 },
    );
  });
});
