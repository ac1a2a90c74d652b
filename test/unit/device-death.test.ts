/** A device that dies in the middle of migrations leaves no page locked, held or lost behind, and its process can still exit. */
import { describe, expect, it } from 'vitest';
import { boot } from '#src/check/boot';

const BYTES = 8 * 2 ** 20;

// Found by stress: the peer went on with its mapping of memory that was gone.
it.each(['inline', 'threads'] as const)(
  'a peer loses what was in the memory of a device that dies (%s)',
  async (executor) => {
    const machine = await boot({
      ...{ executor, memory: { ram: '64MiB' } },
      devices: ['a', 'b'].map((name) => ({ name, memory: '16MiB', peers: 'link' })),
    });
    const process = await machine.process();
    const range = await process.mmap({ length: 4096 });
    await process.write(range.start, new Uint8Array(4096).fill(3));
    const [a, b] = [await process.mirror('a'), await process.mirror('b', { onFault: 'mirror' })];
    expect((await a.migrate(range, 'device')).migrated).toBe(1);
    expect([...(await b.read(range.start, 2))]).toEqual([3, 3]);
    await machine.killDevice('a');
    await machine.settle();
    await expect(b.read(range.start, 2)).rejects.toMatchObject({ code: 'ERR_PFNLESS_ERRNO' });
    await expect(process.read(range.start, 2)).rejects.toMatchObject({ signal: 'SIGBUS' });
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  },
);

describe.each(['inline', 'threads'] as const)('a device that dies (%s)', (executor) => {
  it.each([
    ['legacy', 'device', 0],
    ['legacy', 'system', 2],
    ['offset', 'device', 2],
    ['offset', 'system', 1],
  ] as const)(
    'under %s addressing, in the middle of a migration to the %s, after %i ms',
    async (addressing, to, ms) => {
      const machine = await boot({
        addressing,
        executor,
        memory: { ram: '64MiB' },
        devices: ['a', 'b'].map((name) => ({ name, memory: '16MiB' })),
      });
      try {
        const process = await machine.process();
        const range = await process.mmap({ length: BYTES });
        await process.write(range.start, new Uint8Array(BYTES).fill(3));
        const { freeRamPages } = await machine.stats();
        const [a, b] = [await process.mirror(0), await process.mirror(1)];
        if (to === 'system') await a.migrate(range, 'device');
        const migration = a.migrate(range, to).catch((reason) => reason.code);
        await new Promise((resolve) => setTimeout(resolve, ms));
        await machine.killDevice(0);
        await migration;
        expect(await machine.check()).toEqual([]);
        await a.close();
        await b.close();
        await process.exit();
        expect(await machine.check()).toEqual([]);
        const after = await machine.stats();
        expect(after.freeRamPages).toBeGreaterThan(freeRamPages);
        expect(after.devices.map(({ usedPages }) => usedPages)).toEqual([0, 0]);
      } finally {
        await machine.dispose();
      }
    },
  );
});
