/**
 * Whole machines in trouble: memory runs out, ranges vanish under running work, processes compete, devices die, everything is
 * disposed of in the middle. Each under both executors and both addressings; nothing may hang, leak or lie afterwards.
 */
import { boot, type Machine, type MachineSpecInput, type PfnlessError } from 'pfnless';
import { describe, expect, test } from 'vitest';

const MIB = 2 ** 20;
const VARIANTS = (['threads', 'inline'] as const).flatMap((executor) =>
  (['legacy', 'offset'] as const).map((addressing) => ({ executor, addressing })),
);

async function booted(spec: MachineSpecInput, work: (machine: Machine) => Promise<void>): Promise<void> {
  const machine = await boot(spec);
  try {
    await work(machine);
  } finally {
    await machine.dispose();
  }
}

const codeOf = (outcome: Promise<unknown>): Promise<string> =>
  outcome.then(
    () => 'ok',
    (error: PfnlessError) => error.code,
  );

describe.each(VARIANTS)('$executor, $addressing', (variant) => {
  test('RAM runs out under a writer: SIGBUS, and all of it comes back', () =>
    booted({ ...variant, memory: { ram: '32MiB' }, devices: [{ memory: '8MiB' }] }, async (machine) => {
      const before = (await machine.stats()).freeRamPages;
      const process = await machine.process();
      const range = await process.mmap({ length: 64 * MIB });
      await expect(process.write(range.start, new Uint8Array(64 * MIB).fill(1))).rejects.toMatchObject({
        code: 'ERR_PFNLESS_FAULT',
        errno: 'ENOMEM',
      });
      expect(await machine.check()).toEqual([]);
      await process.exit();
      expect((await machine.stats()).freeRamPages).toBe(before);
    }));

  test('neither RAM nor device memory is left: migrations answer ENOENT, atomics ENOMEM, plain work goes on', () =>
    booted({ ...variant, memory: { ram: '32MiB' }, devices: [{ memory: '8MiB', chunk: '4MiB' }] }, async (machine) => {
      const process = await machine.process();
      const range = await process.mmap({ length: 64 * MIB });
      const mirror = await process.mirror(0);
      const onDevice = { start: range.start, length: 8 * MIB };
      expect(await mirror.migrate(onDevice, 'device')).toMatchObject({ migrated: 2048, errno: 0 });
      await expect(
        process.write((range.start + 8 * MIB) as typeof range.start, new Uint8Array(40 * MIB).fill(7)),
      ).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT' });
      // The device's memory is full and cannot be evicted, since there is no RAM to evict to.
      const inRam = (range.start + 8 * MIB) as typeof range.start;
      expect(await mirror.migrate({ start: inRam, length: MIB }, 'device')).toMatchObject({
        migrated: 0,
        errno: 'ENOENT',
      });
      const work = { target: inRam, count: 1024, stride: 1024, by: 1 };
      await mirror.launch('increment', { lanes: 4, args: work });
      await expect(mirror.launch('atomic-increment', { lanes: 4, args: work })).rejects.toMatchObject({
        code: 'ERR_PFNLESS_FAULT',
        errno: 'ENOMEM',
      });
      expect(await machine.check()).toEqual([]);
    }));

  test('three processes on two devices: data stays apart, also when one mirror closes and evicts everybody', () =>
    booted({ ...variant, devices: 2 }, async (machine) => {
      const work = async (salt: number): Promise<void> => {
        const process = await machine.process();
        const range = await process.mmap({ length: MIB });
        await process.writeArray('i32', range.start, new Int32Array(MIB / 4).fill(salt));
        const mirrors = [await process.mirror(0), await process.mirror(1)];
        const args = { target: range.start, count: MIB / 1024, stride: 1024, by: 1 };
        await Promise.all(mirrors.map((mirror) => mirror.launch('atomic-increment', { lanes: 8, args })));
        await Promise.all(mirrors.map((mirror) => mirror.migrate(range, 'device')));
        await mirrors[0].close();
        const found = await process.readArray('i32', range.start, MIB / 4);
        const wrong = found.findIndex((value, i) => value !== (i % 256 === 0 ? salt + 2 : salt));
        expect({ salt, wrong }).toEqual({ salt, wrong: -1 });
      };
      await Promise.all([work(10), work(20), work(30)]);
      expect(await machine.check()).toEqual([]);
    }));

  test('munmap under two launches, a migration and a reader: each ends, and nothing is left over', () =>
    booted({ ...variant, devices: 2 }, async (machine) => {
      const process = await machine.process();
      const mirrors = [await process.mirror(0), await process.mirror(1)];
      for (let round = 0; round < 4; round++) {
        const range = await process.mmap({ length: 2 * MIB });
        await process.write(range.start, new Uint8Array(2 * MIB).fill(3));
        const args = { target: range.start, count: MIB / 2, stride: 4, by: 1 };
        const running = [
          ...mirrors.map((mirror) => codeOf(mirror.launch('increment', { lanes: 32, args }))),
          codeOf(mirrors[0].migrate(range, 'device')),
          codeOf(process.read(range.start, 2 * MIB)),
        ];
        await process.munmap({ start: (range.start + MIB / 2) as typeof range.start, length: MIB });
        for (const code of await Promise.all(running)) expect(['ok', 'ERR_PFNLESS_FAULT']).toContain(code);
        await process.munmap(range);
      }
      expect(await machine.check()).toEqual([]);
    }));

  test('a child of a process whose mirror is being closed has the other mirrors only', () =>
    booted({ ...variant, devices: 2 }, async (machine) => {
      const process = await machine.process();
      const range = await process.mmap({ length: MIB });
      await process.write(range.start, new Uint8Array(MIB).fill(5));
      const [closing, other] = [await process.mirror(0), await process.mirror(1)];
      await closing.migrate(range, 'device');
      const closed = closing.close();
      expect(process.mirrors).toEqual([other]);
      const child = await process.fork();
      await closed;
      expect(child.mirrors.map(({ device }) => device)).toEqual([1]);
      expect(await child.mirrors[0]!.read(range.start, 2)).toEqual(Uint8Array.of(5, 5));
      await child.exit();
      expect(await machine.check()).toEqual([]);
    }));

  test('a device dies in the middle of everything: its work fails, its data is lost, the rest goes on', () =>
    booted({ ...variant, devices: 2 }, async (machine) => {
      const process = await machine.process();
      const [dying, living] = [await process.mirror(0), await process.mirror(1)];
      const lost = await process.mmap({ length: 8 * MIB });
      const kept = await process.mmap({ length: MIB });
      await process.write(lost.start, new Uint8Array(8 * MIB).fill(3));
      await process.write(kept.start, new Uint8Array(MIB).fill(4));
      await dying.migrate({ start: lost.start, length: MIB }, 'device');
      const args = { target: lost.start, count: 2 * MIB, stride: 4, by: 1 };
      const running = [
        codeOf(dying.migrate(lost, 'device')),
        codeOf(dying.launch('increment', { lanes: 64, args })),
        codeOf(process.read(lost.start, 8 * MIB)),
      ];
      await machine.killDevice(0);
      const [migrated, launched, read] = await Promise.all(running);
      expect(['ok', 'ERR_PFNLESS_DEVICE_LOST']).toContain(migrated);
      expect(launched).toBe('ERR_PFNLESS_DEVICE_LOST');
      expect(['ok', 'ERR_PFNLESS_FAULT']).toContain(read);
      expect(await codeOf(dying.launch('touch', { lanes: 1, args: { target: kept.start, count: 1, stride: 4 } }))).toBe(
        'ERR_PFNLESS_DEVICE_LOST',
      );
      await living.launch('increment', { lanes: 4, args: { target: kept.start, count: 4, stride: 4096, by: 1 } });
      expect((await process.read(kept.start, 1))[0]).toBe(5);
      expect((await machine.stats()).devices[0].lost).not.toBeNull();
      expect(await machine.check()).toEqual([]);
      await process.exit();
      expect(await machine.check()).toEqual([]);
    }));

  test('dispose in the middle of three launches: they end, at once', async () => {
    const machine = await boot({ ...variant, devices: 3 });
    const process = await machine.process();
    const range = await process.mmap({ length: 16 * MIB });
    const mirrors = [await process.mirror(0), await process.mirror(1), await process.mirror(2)];
    const args = { target: range.start, count: 4 * MIB, stride: 4, by: 1 };
    const running = mirrors.map((mirror) => codeOf(mirror.launch('increment', { lanes: 64, args })));
    await machine.stats();
    await machine.dispose();
    expect(await Promise.all(running)).toEqual(Array(3).fill('ERR_PFNLESS_DISPOSED'));
  });

  test('sixteen devices add to the same words', () =>
    booted({ ...variant, devices: 16 }, async (machine) => {
      const process = await machine.process();
      const range = await process.mmap({ length: MIB });
      const args = { target: range.start, count: 4, stride: 4096, by: 1 };
      const mirrors = await Promise.all(Array.from({ length: 16 }, (_, device) => process.mirror(device)));
      await Promise.all(mirrors.map((mirror) => mirror.launch('atomic-increment', { lanes: 4, args })));
      const words = await process.readArray('i32', range.start, 4096);
      expect([words[0], words[1024], words[2048], words[3072]]).toEqual([16, 16, 16, 16]);
      expect(await machine.check()).toEqual([]);
    }));
});
