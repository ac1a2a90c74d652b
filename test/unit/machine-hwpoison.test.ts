/** Memory that fails, through the public API: signals, huge pages, memory of devices, devices that use what has failed. */
import { describe, expect, it, test } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { boot } from '#src/check/boot';
import { FaultError } from '#src/machine/errors';
import type { Machine, Process, VirtRange } from '#src/machine/types';
import { withCoherent } from './coherent-rig';
import { HUGE, PAGE, part, withHuge } from './huge-rig';

const at = (range: VirtRange, page: number): VirtAddr => (range.start + page * PAGE) as VirtAddr;

/** Frame number of a page. */
const pfnOf = async (process: Process, range: VirtRange, page: number): Promise<number> =>
  Number((await process.pagemap(part(range, page, 1)))[0]! & 0x7f_ffff_ffff_ffffn);

const failed = (machine: Machine): number => machine.meminfo().HardwareCorrupted / 4;

/** As `withHuge`, where frames are lost: so many fewer are free at the end. */
async function withLosses(lost: number, body: Parameters<typeof withHuge>[1]): Promise<void> {
  const all = withHuge({ devices: [{ memory: '8MiB', chunk: '4MiB' }] }, body);
  if (lost === 0) return all;
  await expect(all).rejects.toMatchObject({ actual: expect.any(Number) });
  await all.catch(({ actual, expected }) => expect(expected - actual).toBe(lost));
}

describe.each(['inline', 'threads'] as const)('hwpoison (%s)', (executor) => {
  test('SIGBUS with BUS_MCEERR_AR to who touches it, BUS_MCEERR_AO to who asked', async () => {
    await using machine = await boot({ executor, memory: { ram: '16MiB' }, devices: [{ memory: '4MiB' }] });
    const process = await machine.process();
    const range = await process.mmap({ length: 3 * PAGE });
    await process.write(range.start, new Uint8Array(3 * PAGE).fill(6));
    await process.mceKill('early');
    const pfn = await pfnOf(process, range, 1);
    await machine.hardOfflinePage(pfn);
    expect(await process.memoryErrors()).toEqual([at(range, 1)]);
    expect((machine.kpageflags(pfn, 1)[0]! >> 19n) & 1n).toBe(1n);
    expect(machine.proc('meminfo')).toContain('HardwareCorrupted:     4 kB\n');
    const error = await process.read(at(range, 0), 2 * PAGE).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(FaultError);
    expect(error).toMatchObject({ signal: 'SIGBUS', siCode: 'BUS_MCEERR_AR', address: at(range, 1), errno: 'EFAULT' });
    const beyond = await process.read((range.start + range.length) as VirtAddr, 1).catch((reason: unknown) => reason);
    expect(beyond).toMatchObject({ signal: 'SIGSEGV', siCode: null });
    // A device finds no memory there either, and takes what is beside it.
    await using mirror = await process.mirror(0);
    await expect(
      mirror.launch('touch', { lanes: 1, args: { target: at(range, 1), count: 1, stride: 4 } }),
    ).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT' });
    expect((await mirror.migrate(range, 'device')).migrated).toBe(2);
    await expect(process.pin(part(range, 1, 1))).rejects.toMatchObject({ errno: 'EFAULT' });
    await expect(machine.hardOfflinePage(pfn)).rejects.toMatchObject({ errno: 'EHWPOISON' });
    await expect(process.madvise(part(range, 1, 1), 'HWPOISON')).rejects.toMatchObject({ errno: 'EFAULT' });
    expect(await machine.check()).toEqual([]);
    await process.madvise(part(range, 1, 1), 'DONTNEED');
    expect(await process.read(range.start, 3 * PAGE)).toEqual(
      Uint8Array.from({ length: 3 * PAGE }, (_, byte) => (Math.floor(byte / PAGE) === 1 ? 0 : 6)),
    );
    await process.exit();
    expect(await machine.check()).toEqual([]);
    expect(failed(machine)).toBe(1);
  });
});

it('says what is wrong with its arguments', async () => {
  await using machine = await boot({ executor: 'inline', memory: { ram: '16MiB' }, devices: [] });
  const process = await machine.process();
  await expect(machine.hardOfflinePage(-1)).rejects.toMatchObject({ code: 'ERR_PFNLESS_ARGUMENT' });
  await expect(machine.softOfflinePage(0.5)).rejects.toMatchObject({ code: 'ERR_PFNLESS_ARGUMENT' });
  await expect(process.mceKill('soon' as never)).rejects.toMatchObject({ code: 'ERR_PFNLESS_ARGUMENT' });
  await expect(machine.hardOfflinePage(2 ** 30)).rejects.toMatchObject({ errno: 'EBUSY' });
});

describe('hwpoison and huge pages', () => {
  it('a huge page comes apart, and one small page is lost', () =>
    withLosses(1, async (rig) => {
      const range = await rig.filled();
      await rig.machine.hardOfflinePage(await pfnOf(rig.process, range, 7));
      expect(await rig.hugePages(range)).toBe(0);
      await expect(rig.process.read(at(range, 7), 1)).rejects.toMatchObject({ siCode: 'BUS_MCEERR_AR' });
      await rig.expectFilled(part(range, 0, 7), 1000);
      await rig.expectFilled(part(range, 8, HUGE - 8), 1008);
      await rig.check();
      // The rest moves as ever; it is no huge page any more, since something of it is missing.
      expect((await rig.mirror.migrate(range, 'device')).migrated).toBe(HUGE - 1);
      await expect(rig.process.madvise(range, 'COLLAPSE')).rejects.toMatchObject({ errno: 'EINVAL' });
    }));

  it('a page of zeroes that has failed is lost, though zeroes can be had elsewhere', () =>
    withLosses(1, async (rig) => {
      const range = await rig.area();
      await rig.process.write(at(range, 9), Uint8Array.of(1));
      await rig.machine.hardOfflinePage(await pfnOf(rig.process, range, 3));
      await expect(rig.process.read(at(range, 3), 1)).rejects.toMatchObject({ siCode: 'BUS_MCEERR_AR' });
      expect(await rig.process.read(at(range, 4), 1)).toEqual(Uint8Array.of(0));
    }));

  it('one that somebody holds does not come apart; when it is freed, all but the failed page come back', () =>
    withLosses(1, async (rig) => {
      const range = await rig.filled();
      const pin = await rig.process.pin(part(range, 0, 1));
      await rig.process.mceKill('early');
      await expect(rig.machine.hardOfflinePage(await pfnOf(rig.process, range, 7))).rejects.toMatchObject({
        errno: 'EHWPOISON',
      });
      expect(await rig.process.memoryErrors()).toEqual([at(range, 7)]);
      expect(failed(rig.machine)).toBe(1);
      await pin.release();
      await rig.check();
      await rig.process.munmap(range);
      await rig.check();
    }));

  it('soft offline of a part splits it, and nobody notices', () =>
    withLosses(1, async (rig) => {
      const range = await rig.filled();
      await rig.process.madvise(part(range, 5, 1), 'SOFT_OFFLINE');
      expect(failed(rig.machine)).toBe(1);
      await rig.expectFilled(range, 1000);
    }));

  it('a page on the device comes home to fail there', () =>
    withLosses(1, async (rig) => {
      const range = await rig.filled(4);
      await rig.mirror.migrate(range, 'device');
      await rig.process.madvise(part(range, 1, 1), 'HWPOISON');
      await expect(rig.process.read(at(range, 1), 1)).rejects.toMatchObject({ siCode: 'BUS_MCEERR_AR' });
      await rig.expectFilled(part(range, 2, 2), 1002);
    }));
});

it.each(['legacy', 'offset'] as const)('memory of a coherent device is its driver’s business (%s)', (addressing) =>
  withCoherent(addressing, async ({ machine, process, mirrors, filled, bytes }) => {
    const range = await filled(2);
    await mirrors[0].migrate(range, 'device');
    await expect(machine.hardOfflinePage(await pfnOf(process, range, 0))).rejects.toMatchObject({ errno: 'EBUSY' });
    await expect(process.madvise(range, 'HWPOISON')).rejects.toMatchObject({ errno: 'EBUSY' });
    expect(machine.meminfo().HardwareCorrupted).toBe(8);
    await expect(process.madvise(range, 'SOFT_OFFLINE')).rejects.toMatchObject({ errno: 'EIO' });
    expect(await bytes(range)).toEqual([1, 2]);
  }),
);
