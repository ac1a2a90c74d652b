/** The axes along which machines grow: migrated memory, mappings, pagemaps, processes, devices. */
import { PAGE_SIZE } from '../abi/address.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { formatBytes } from '../base/bytes.js';
import type { Mirror, VirtRange } from '../machine/types.js';
import { mmOfPid } from '../mm/mm-struct.js';
import { vmaLookup } from '../mm/vma.js';
import { nsPer, nsPerAsync } from './clock.js';
import type { Axis } from './growth.js';
import { addPagemap } from './pagemap.js';
import { bootForBench, migrateAll, requireEqual } from './rig.js';

const MIB = 2 ** 20;
const steps = (from: number, to: number, factor: number): number[] =>
  from > to ? [] : [from, ...steps(from * factor, to, factor)];

/** Pages that are on their way at the same time, whatever the range: smaller ranges are moved more often, to be measurable. */
const PAGES_A_SAMPLE = 8192;

export const migratedBytesAxis: Axis = {
  name: 'migrated memory',
  unit: 'ns a page, to the device and back',
  sizes: steps(MIB, 4096 * MIB, 4),
  print: formatBytes,
  limit: 0.02,
  async prepare(size, addressing) {
    const deviceMemory = Math.max(size, 16 * MIB);
    const { machine } = await bootForBench(addressing, { ram: size + 256 * MIB, deviceMemory });
    const process = await machine.process();
    const range = await process.mmap({ length: size });
    const mirror = await process.mirror(0);
    const one = Uint8Array.of(1);
    for (let at = 0; at < size; at += PAGE_SIZE) await process.write((range.start + at) as VirtAddr, one);
    const pages = size / PAGE_SIZE;
    const times = Math.ceil(PAGES_A_SAMPLE / pages);
    return {
      sample: () =>
        nsPerAsync(times * pages, async () => {
          for (let i = 0; i < times; i++) {
            await migrateAll(mirror, range, 'device');
            await migrateAll(mirror, range, 'system');
          }
        }),
      dispose: () => machine.dispose(),
    };
  },
};

const LOOKUPS = 100_000;

export const vmaAxis: Axis = {
  name: 'mappings of a process',
  unit: 'ns to find one',
  sizes: steps(1, 100_000, 10),
  // A level for each factor of twelve or more; at 100,000 mappings most leaves are in no cache that is near.
  limit: 0.3,
  async prepare(size, addressing) {
    // Two for each page of another protection, and what lies around them.
    const maxMapCount = 2 * size + 2;
    const { machine, state } = await bootForBench(addressing, { ram: '64MiB', deviceMemory: '16MiB', maxMapCount });
    const process = await machine.process();
    const { start } = await process.mmap({ length: size * 2 * PAGE_SIZE });
    const pageAt = (i: number): VirtRange => ({ start: (start + i * 2 * PAGE_SIZE) as VirtAddr, length: PAGE_SIZE });
    // Every second page has another protection, so that no two merge.
    for (let i = 0; i < size; i++) await process.mprotect(pageAt(i), 'r');
    const mm = mmOfPid(state.kernel, process.pid)!;
    let at = 0;
    return {
      sample: async () =>
        nsPer(LOOKUPS, () => {
          for (let i = 0; i < LOOKUPS; i++) {
            at = (at + 7919) % size;
            if (vmaLookup(mm, start + at * 2 * PAGE_SIZE) === undefined) requireEqual('mapping', at, 'there');
          }
        }),
      dispose: () => machine.dispose(),
    };
  },
};

const PAGEMAP_PAGES = 512;

export const pagemapAxis: Axis = {
  name: 'pagemaps',
  unit: 'ns from an entry to its page and back',
  sizes: steps(1, 1000, 10),
  limit: 0.2,
  async prepare(size, addressing) {
    const { machine, state } = await bootForBench(addressing, {
      ram: '64MiB',
      deviceMemory: (size + 8) * 8 * MIB,
      chunk: 8 * MIB,
    });
    const { kernel } = state;
    const pages = Array.from({ length: size }, () => addPagemap(kernel, PAGEMAP_PAGES).pgmap.pages);
    const type = kernel.addressing.devicePrivateType(true);
    let at = 0;
    return {
      sample: async () =>
        nsPer(LOOKUPS, () => {
          for (let i = 0; i < LOOKUPS; i++) {
            at = (at + 7919) % size;
            const page = (pages[at]! + (i % PAGEMAP_PAGES)) as Page;
            const number = kernel.addressing.pageNumber(page);
            if (kernel.addressing.leafToPage(type, number) !== page) requireEqual('page', number, page);
          }
        }),
      dispose: () => machine.dispose(),
    };
  },
};

const PROCESS_PAGES = 16;

export const processAxis: Axis = {
  name: 'processes',
  unit: 'ns a page to the device and back, in each process in turn',
  sizes: [1, 4, 16, 64, 200],
  limit: 0.1,
  async prepare(size, addressing) {
    const { machine } = await bootForBench(addressing, { ram: '512MiB', deviceMemory: '64MiB' });
    const all: { readonly mirror: Mirror; readonly range: VirtRange }[] = [];
    for (let i = 0; i < size; i++) {
      const process = await machine.process();
      const range = await process.mmap({ length: PROCESS_PAGES * PAGE_SIZE });
      await process.write(range.start, new Uint8Array(range.length).fill(1));
      all.push({ mirror: await process.mirror(0), range });
    }
    const times = Math.ceil(400 / size);
    return {
      sample: () =>
        nsPerAsync(times * size * PROCESS_PAGES, async () => {
          for (let i = 0; i < times; i++) {
            for (const { mirror, range } of all) {
              await migrateAll(mirror, range, 'device');
              await migrateAll(mirror, range, 'system');
            }
          }
        }),
      dispose: () => machine.dispose(),
    };
  },
};

export const deviceAxis: Axis = {
  name: 'devices',
  unit: 'ns a page to each device in turn, and back',
  sizes: steps(1, 16, 2),
  limit: 0.15,
  async prepare(size, addressing) {
    const { machine } = await bootForBench(addressing, { ram: '256MiB', deviceMemory: '16MiB', devices: size });
    const process = await machine.process();
    const range = await process.mmap({ length: 8 * MIB });
    await process.write(range.start, new Uint8Array(range.length).fill(1));
    const mirrors: Mirror[] = [];
    for (let device = 0; device < size; device++) mirrors.push(await process.mirror(device));
    const pages = range.length / PAGE_SIZE;
    return {
      sample: () =>
        nsPerAsync(size * pages, async () => {
          for (const mirror of mirrors) {
            await migrateAll(mirror, range, 'device');
            await migrateAll(mirror, range, 'system');
          }
        }),
      dispose: () => machine.dispose(),
    };
  },
};
