import { describe, expect, it } from 'vitest';
import { STRUCT_PAGE, ZONE_BIT_DEVICE_COHERENT, ZONE_BIT_DEVICE_PRIVATE, ZONE_DEVICE } from '#src/abi/struct-page';
import { type DevicePrivateOffset, NULL_PAGE, type Page, type Pfn } from '#src/base/brand';
import { type Revision, sitesOf } from '#src/mm/check-sites';
import type { DevPagemap } from '#src/mm/dev-pagemap';
import { Memmap } from '#src/mm/memmap';
import {
  DevicePrivateSpace,
  type MemremapDeps,
  memremapDevicePrivatePagemap,
  memremapPages,
  memunmapDevicePrivatePagemap,
  memunmapPages,
  PagemapRegistry,
} from '#src/mm/memremap';
import { runAtomic, SCHEDULE_POINT } from '#src/sync/task';

const SECTION = 2 ** 27;
const PAGES_PER_SECTION = 32768;

type Machine = MemremapDeps & { readonly log: string[] };

function machine(
  seriesApplied: boolean,
  options: { slots?: number; maxPhysmemBits?: number; revision?: Revision } = {},
): Machine {
  const { slots = 8 * PAGES_PER_SECTION, maxPhysmemBits = 46, revision = 'v6' } = options;
  const log: string[] = [];
  const warn = (text: string): void => void log.push(text);
  const memmap = new Memmap(slots, 40);
  const pagemaps = new PagemapRegistry();
  const privateSpace = new DevicePrivateSpace({ memmap, pagemaps, warn, maxPhysmemBits });
  return { memmap, pagemaps, privateSpace, seriesApplied, sites: sitesOf({ revision }), warn, log };
}

const OPS = {
  folioFree: () => {},
  *migrateToRam() {
    yield SCHEDULE_POINT;
    return 0;
  },
};

const pagemap = (given: Partial<DevPagemap> = {}): DevPagemap => ({
  type: 'MEMORY_DEVICE_PRIVATE',
  owner: {},
  ops: OPS,
  nrPages: 1000,
  range: null,
  pages: NULL_PAGE,
  id: 0,
  ref: null,
  ...given,
});

const physical = (start: number, bytes: number): Partial<DevPagemap> => ({ range: { start, end: start + bytes - 1 } });
const field = ({ memmap }: Machine, page: number, name: keyof typeof STRUCT_PAGE.word): number =>
  memmap.words[page * 16 + STRUCT_PAGE.word[name]];
const offset = (at: number): DevicePrivateOffset => at as DevicePrivateOffset;

describe('memremap_device_private_pagemap', () => {
  it('gives the lowest range of offsets; offset 0 is a page', () => {
    const kernel = machine(true);
    const [a, b, c] = [pagemap(), pagemap({ nrPages: 7 }), pagemap({ nrPages: 3 })];
    for (const each of [a, b, c]) expect(memremapDevicePrivatePagemap(kernel, each, -1)).toBe(0);
    expect(a.range).toEqual({ start: 0, end: 1000 * 4096 - 1 });
    expect(b.range).toEqual({ start: 1000 * 4096, end: 1007 * 4096 - 1 });
    expect(kernel.privateSpace.offsetToPage(offset(0))).toBe(a.pages);
    expect(kernel.privateSpace.offsetToPage(offset(999))).toBe(a.pages + 999);
    expect(kernel.privateSpace.offsetToPage(offset(1000))).toBe(b.pages);
    expect(kernel.privateSpace.pageToOffset((c.pages + 2) as Page)).toBe(1009);

    runAtomic(memunmapDevicePrivatePagemap(kernel, b));
    const again = pagemap({ nrPages: 5 });
    memremapDevicePrivatePagemap(kernel, again);
    expect(again.range?.start).toBe(1000 * 4096);
    expect(kernel.privateSpace.print(({ id }) => (id === a.id ? 'gpu0' : undefined))).toBe(
      [
        '00000000-003e7fff : device private (gpu0)',
        '003e8000-003ecfff : device private',
        '003ef000-003f1fff : device private',
        '',
      ].join('\n'),
    );
    expect(kernel.log).toEqual([]);
  });

  it('initialises every struct page as free memory of the device', () => {
    const kernel = machine(true);
    const map = pagemap();
    memremapDevicePrivatePagemap(kernel, map, 3);
    for (const page of [map.pages, map.pages + 1, map.pages + 511, map.pages + 999]) {
      expect(field(kernel, page, 'zone')).toBe(ZONE_DEVICE | (3 << 8) | ZONE_BIT_DEVICE_PRIVATE);
      expect(field(kernel, page, 'pgmap')).toBe(map.id);
      expect(field(kernel, page, 'refcount')).toBe(0);
      expect(field(kernel, page, 'mapcount')).toBe(-1);
      expect(field(kernel, page, 'entireMapcount')).toBe(-1);
      expect(field(kernel, page, 'zoneDeviceData')).toBe(0);
    }
    expect(field(kernel, map.pages + 1000, 'zone')).toBe(0);
    expect(kernel.pagemaps.get(map.id)).toBe(map);
  });

  it.each([
    ['a type that is not private', { type: 'MEMORY_DEVICE_COHERENT' as const }, 'WARNING: Not device private memory'],
    ['no ops', { ops: null }, 'WARNING: Missing migrate_to_ram method'],
    ['no migrateToRam', { ops: { folioFree: OPS.folioFree } }, 'WARNING: Missing migrate_to_ram method'],
    ['no owner', { owner: null }, 'WARNING: Missing owner'],
  ])('refuses %s with a warning and EINVAL', (_, given, warning) => {
    const kernel = machine(true);
    const map = pagemap(given);
    expect(memremapDevicePrivatePagemap(kernel, map)).toBe('EINVAL');
    expect(kernel.log).toEqual([warning]);
    expect(map).toMatchObject({ pages: NULL_PAGE, id: 0, range: null, ref: null });
  });

  it('answers EINVAL to no pages, silently', () => {
    const kernel = machine(true);
    expect(memremapDevicePrivatePagemap(kernel, pagemap({ nrPages: 0 }))).toBe('EINVAL');
    expect(kernel.log).toEqual([]);
  });

  it('answers ENOMEM without struct pages, EBUSY without offsets, and keeps nothing', () => {
    const kernel = machine(true, { maxPhysmemBits: 22 });
    expect(memremapDevicePrivatePagemap(kernel, pagemap({ nrPages: 9 * PAGES_PER_SECTION }))).toBe('ENOMEM');
    expect(memremapDevicePrivatePagemap(kernel, pagemap({ nrPages: 1025 }))).toBe('EINVAL');
    const map = pagemap({ nrPages: 1000 });
    expect(memremapDevicePrivatePagemap(kernel, map)).toBe(0);
    expect(memremapDevicePrivatePagemap(kernel, pagemap({ nrPages: 100 }))).toBe('EBUSY');
    runAtomic(memunmapDevicePrivatePagemap(kernel, map));
    const all = pagemap({ nrPages: 1024 });
    expect(memremapDevicePrivatePagemap(kernel, all)).toBe(0);
    expect(all.pages).not.toBe(NULL_PAGE);
  });

  it('does not look for folioFree, as posted', () => {
    const kernel = machine(true);
    expect(memremapDevicePrivatePagemap(kernel, pagemap({ ops: { migrateToRam: OPS.migrateToRam } }))).toBe(0);
    expect(kernel.log).toEqual([]);
  });

  it('looks for it, corrected; and ranges begin at multiples of 2 MiB', () => {
    const kernel = machine(true, { revision: 'corrected' });
    expect(memremapDevicePrivatePagemap(kernel, pagemap({ ops: { migrateToRam: OPS.migrateToRam } }))).toBe('EINVAL');
    expect(kernel.log).toEqual(['WARNING: Missing folio_free method']);
    const [a, b] = [pagemap({ nrPages: 7 }), pagemap({ nrPages: 3 })];
    for (const each of [a, b]) expect(memremapDevicePrivatePagemap(kernel, each, -1)).toBe(0);
    expect(b.range!.start).toBe(2 ** 21);
  });

  it('sleeps in unmap until the last page is back', () => {
    const kernel = machine(true);
    const map = pagemap();
    memremapDevicePrivatePagemap(kernel, map);
    const { ref } = map;
    ref?.get();
    const unmapping = memunmapDevicePrivatePagemap(kernel, map);
    expect(unmapping.next().value).toMatchObject({ what: 'last reference of dev_pagemap 1' });
    expect(ref?.dying).toBe(true);
    expect(kernel.privateSpace.offsetToPage(offset(5))).toBe(map.pages + 5);
    ref?.put();
    expect(unmapping.next().done).toBe(true);
    expect(map).toMatchObject({ pages: NULL_PAGE, id: 0, range: null, ref: null });
  });

  it('warns once of an offset that nobody has', () => {
    const kernel = machine(true);
    const map = pagemap();
    memremapDevicePrivatePagemap(kernel, map);
    expect(kernel.privateSpace.offsetToPage(offset(7))).toBe(map.pages + 7);
    runAtomic(memunmapDevicePrivatePagemap(kernel, map));
    expect(kernel.privateSpace.offsetToPage(offset(7))).toBe(NULL_PAGE);
    expect(kernel.privateSpace.offsetToPage(offset(8))).toBe(NULL_PAGE);
    expect(kernel.log).toEqual(['device_private_offset_to_page: no pagemap at offset 0x7']);
  });

  it('finds the offset of a tail page by its head, and warns of a page of another kind', () => {
    const kernel = machine(true);
    const [first, map] = [pagemap({ nrPages: 512 }), pagemap()];
    memremapDevicePrivatePagemap(kernel, first);
    memremapDevicePrivatePagemap(kernel, map);
    const tail = (map.pages + 3) as Page;
    kernel.memmap.words[tail * 16 + STRUCT_PAGE.word.compoundHead] = (map.pages << 1) | 1;
    kernel.memmap.words[tail * 16 + STRUCT_PAGE.word.pgmap] = 0;
    expect(kernel.privateSpace.pageToOffset(tail)).toBe(515);
    expect(kernel.log).toEqual([]);
    const ram = kernel.memmap.allocArray(1);
    expect(() => kernel.privateSpace.pageToOffset(ram)).toThrow('has no pagemap');
    expect(kernel.log[0]).toMatch(/is not device private/);
  });
});

describe('memremap_pages', () => {
  it('gives a legacy private range a vmemmap', () => {
    const kernel = machine(false);
    const map = pagemap(physical(0xfff0000000, 2 * SECTION));
    expect(memremapPages(kernel, map)).toBe(0);
    expect(kernel.memmap.pfnToPage(0xfff0000 as Pfn)).toBe(map.pages);
    const last = kernel.memmap.pfnToPage(0xfffffff as Pfn);
    expect(last).toBe(map.pages + 65535);
    expect(field(kernel, last, 'zone')).toBe(ZONE_DEVICE | ZONE_BIT_DEVICE_PRIVATE);
    expect(field(kernel, last, 'refcount')).toBe(0);
    runAtomic(memunmapPages(kernel, map));
    expect(kernel.memmap.pfnToPage(0xfff0000 as Pfn)).toBe(NULL_PAGE);
    expect(map.range).not.toBeNull();
    expect(memremapPages(kernel, map)).toBe(0);
    expect(kernel.log).toEqual([]);
  });

  it('maps coherent memory with and without the series', () => {
    for (const seriesApplied of [false, true]) {
      const kernel = machine(seriesApplied);
      const map = pagemap({
        type: 'MEMORY_DEVICE_COHERENT',
        ops: { folioFree: OPS.folioFree },
        memory: { id: 1, bytes: new SharedArrayBuffer(SECTION) },
        ...physical(2 ** 38, SECTION),
      });
      expect(memremapPages(kernel, map)).toBe(0);
      expect(field(kernel, map.pages + 9, 'zone')).toBe(ZONE_DEVICE | ZONE_BIT_DEVICE_COHERENT);
      expect(field(kernel, map.pages + 9, 'refcount')).toBe(0);
    }
  });

  it('needs memory behind all of a coherent range', () => {
    const map = pagemap({
      type: 'MEMORY_DEVICE_COHERENT',
      memory: { id: 1, bytes: new SharedArrayBuffer(SECTION / 2) },
      ...physical(2 ** 38, SECTION),
    });
    expect(() => memremapPages(machine(true), map)).toThrow(/shorter than its range/);
  });

  it('refuses private memory once the series is applied', () => {
    const kernel = machine(true);
    expect(memremapPages(kernel, pagemap(physical(2 ** 38, SECTION)))).toBe('EINVAL');
    expect(kernel.log).toHaveLength(1);
  });

  it.each([
    ['no range', { range: null }, 'WARNING: nr_range must be specified'],
    ['no migrateToRam', { ops: { folioFree: OPS.folioFree } }, 'WARNING: Missing migrate_to_ram method'],
    ['no folioFree', { ops: { migrateToRam: OPS.migrateToRam } }, 'WARNING: Missing folio_free method'],
    ['no owner', { owner: null }, 'WARNING: Missing owner'],
    [
      'a misaligned range',
      physical(2 ** 38 + 4096, SECTION),
      'WARNING: Misaligned add_pages start: 0x4000001 end: 0x4008000',
    ],
  ])('refuses %s with a warning and EINVAL', (_, given, warning) => {
    const kernel = machine(false);
    expect(memremapPages(kernel, pagemap({ ...physical(2 ** 38, SECTION), ...given }))).toBe('EINVAL');
    expect(kernel.log).toEqual([warning]);
  });

  it('answers ENXIO over RAM, ENOMEM over a pagemap and without slots', () => {
    const kernel = machine(false);
    kernel.memmap.populateVmemmap(0 as Pfn, PAGES_PER_SECTION);
    expect(memremapPages(kernel, pagemap(physical(0, SECTION)))).toBe('ENXIO');
    memremapPages(kernel, pagemap(physical(2 ** 38, SECTION)));
    expect(memremapPages(kernel, pagemap(physical(2 ** 38 - SECTION, 2 * SECTION)))).toBe('ENOMEM');
    expect(kernel.log).toHaveLength(2);
    expect(memremapPages(kernel, pagemap(physical(2 ** 39, 8 * SECTION)))).toBe('ENOMEM');
    expect(kernel.log).toHaveLength(2);
  });
});
