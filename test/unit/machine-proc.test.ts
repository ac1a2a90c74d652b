/** The files of /proc through the public API, as data and as text. */

import { boot, type Machine, type Process, type VirtAddr, type VirtRange } from 'pfnless';
import { expect, test } from 'vitest';

const PAGE = 4096;
const SPEC = {
  executor: 'inline',
  memory: { ram: '16MiB' },
  hugetlbPages: 1,
  devices: [{ memory: '4MiB' }],
} as const;

async function withProcess(body: (machine: Machine, process: Process) => Promise<void>): Promise<void> {
  const machine = await boot(SPEC);
  const process = await machine.process();
  await body(machine, process);
  expect(await machine.check()).toEqual([]);
  await machine.dispose();
}

test('the machine: data and text say the same', () =>
  withProcess(async (machine, process) => {
    const { start } = await process.mmap({ length: 4 * PAGE });
    await process.write(start, new Uint8Array(4 * PAGE).fill(1));
    expect(machine.meminfo().AnonPages).toBe(16);
    expect(machine.proc('meminfo')).toContain(`MemFree:        ${String(machine.meminfo().MemFree).padStart(8)} kB\n`);
    expect(machine.proc('vmstat')).toContain(`pgfault ${machine.vmstat().pgfault}\n`);
    expect(machine.proc('iomem')).toBe(machine.iomem());
    const pfn = Number((await process.pagemap({ start, length: PAGE }))[0]! & ((1n << 55n) - 1n));
    expect([...machine.kpagecount(pfn, 1)]).toEqual([1n]);
    expect((machine.kpageflags(pfn, 1)[0]! >> 12n) & 1n).toBe(1n);
  }));

test('the process: status, maps, smaps, and soft-dirty bits after clear_refs', () =>
  withProcess(async (_machine, process) => {
    const range = await process.mmap({ length: 2 * PAGE });
    await process.write(range.start, Uint8Array.of(1));
    expect(await process.status()).toMatchObject({ VmSize: 8, VmRSS: 4, RssAnon: 4 });
    expect(await process.proc('status')).toContain('RssAnon:\t       4 kB\n');
    expect(await process.proc('maps')).toMatch(/^[0-9a-f]{12}-[0-9a-f]{12} rw-p 00000000 00:00 0 \n$/);
    expect(await process.proc('smaps')).toContain('Rss:                   4 kB\n');
    const softDirty = async (): Promise<bigint[]> =>
      [...(await process.pagemap(range))].map((word) => (word >> 55n) & 1n);
    expect(await softDirty()).toEqual([1n, 1n]);
    await process.clearRefs('soft-dirty');
    expect(await softDirty()).toEqual([0n, 0n]);
    await process.write(range.start, Uint8Array.of(2));
    expect(await softDirty()).toEqual([1n, 0n]);
  }));

test('wrong arguments are refused with a sentence', () =>
  withProcess(async (machine, process) => {
    expect(() => machine.proc('cpuinfo' as never)).toThrow('must be one of iomem, meminfo, vmstat, not "cpuinfo"');
    expect(() => machine.kpageflags(-1, 1)).toThrow('The page frame number must be');
    await expect(process.proc('mem' as never)).rejects.toThrow('must be one of maps, smaps, status');
    await expect(process.clearRefs(4 as never)).rejects.toThrow('must be one of all, anonymous, mapped, soft-dirty');
  }));

test('smaps: advice about huge pages, and whether one fits', () =>
  withProcess(async (_machine, process) => {
    const HUGE = 2 ** 21;
    const described = async (range: VirtRange): Promise<string[]> => {
      const paragraphs = (await process.proc('smaps')).split(/^(?=[0-9a-f]+-)/m);
      const paragraph = paragraphs.find((text) => text.startsWith(`${range.start.toString(16)}-`))!;
      return ['THPeligible', 'VmFlags'].map((name) => new RegExp(`${name}: *(.*)`).exec(paragraph)![1]!.trim());
    };
    const range = await process.mmap({ length: HUGE });
    expect(await described(range)).toEqual(['0', 'rd wr mr mw ac sd']);
    await process.madvise(range, 'HUGEPAGE');
    expect(await described(range)).toEqual(['1', 'rd wr mr mw ac sd hg']);
    const most = { start: (range.start + 4096) as VirtAddr, length: HUGE - 4096 };
    await process.munmap({ start: range.start, length: 4096 });
    expect(await described(most)).toEqual(['0', 'rd wr mr mw ac sd hg']);
    await process.madvise(most, 'NOHUGEPAGE');
    expect(await described(most)).toEqual(['0', 'rd wr mr mw ac sd nh']);
    const shared = await process.mmap({ length: HUGE, shared: true });
    await process.madvise(shared, 'HUGEPAGE');
    expect(await described(shared)).toEqual(['0', 'rd wr sh mr mw ms sd hg']);
    const pool = await process.mmap({ length: HUGE, hugetlb: true });
    await process.mprotect(pool, 'r');
    await process.mprotect(pool, 'rw');
    expect(await described(pool)).toEqual(['0', 'rd wr mr mw de ht sd']);
  }));

test('a huge page: THP in kpageflags, soft-dirty as one, pages in meminfo', () =>
  withProcess(async (machine, process) => {
    const range = await process.mmap({ length: 2 ** 21 });
    await process.madvise(range, 'HUGEPAGE');
    await process.write(range.start, Uint8Array.of(1));
    expect((await process.smaps(range)).ahp).toBe(2048);
    expect(machine.meminfo().AnonPages).toBe(2048);
    const words = await process.pagemap(range);
    const pfn = Number(words[0]! & ((1n << 55n) - 1n));
    const flags = machine.kpageflags(pfn, 512);
    const bit = (word: bigint, at: bigint): number => Number((word >> at) & 1n);
    expect([0, 1, 511].map((i) => [15n, 16n, 22n].map((at) => bit(flags[i]!, at)))).toEqual([
      [1, 0, 1],
      [0, 1, 1],
      [0, 1, 1],
    ]);
    expect([...machine.kpagecount(pfn, 512)]).toEqual(Array(512).fill(1n));
    await process.clearRefs('soft-dirty');
    const softDirty = async (): Promise<number[]> => [...(await process.pagemap(range))].map((word) => bit(word, 55n));
    expect(await softDirty()).toEqual(Array(512).fill(0));
    await process.write(range.start, Uint8Array.of(2));
    expect(await softDirty()).toEqual(Array(512).fill(1));
    // The huge zero page.
    const empty = await process.mmap({ length: 2 ** 21 });
    await process.madvise(empty, 'HUGEPAGE');
    await process.read(empty.start, 1);
    const zero = Number((await process.pagemap(empty))[3]! & ((1n << 55n) - 1n));
    expect([22n, 24n, 32n].map((at) => bit(machine.kpageflags(zero, 1)[0]!, at))).toEqual([1, 1, 0]);
  }));
