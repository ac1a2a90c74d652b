/** A device that is reset or unplugged: its launches fail, its data does not. */
import { describe, expect, test } from 'vitest';
import { ALL_CHECKERS } from '#src/check/boot';
import { bootWithState } from '#src/machine/boot';

const MIB = 2 ** 20;
const PAGE = 4096;

describe.each(['inline', 'threads'] as const)('%s', (executor) => {
  const booted = () =>
    bootWithState(
      { executor, memory: { ram: '64MiB' }, devices: ['a', 'b'].map((name) => ({ name, memory: '16MiB' })) },
      ALL_CHECKERS,
    );

  test('a reset in the middle of launches and migrations: they end, no page is lost, and the device works on', async () => {
    const { machine, state } = await booted();
    const process = await machine.process();
    const range = await process.mmap({ length: 4 * MIB });
    await process.write(range.start, new Uint8Array(4 * MIB).fill(3));
    const mirror = await process.mirror(0);
    const add = { target: range.start, count: MIB, stride: 4, by: 0x01010101 };
    for (let round = 0; round < 4; round++) {
      const outcomes = [
        mirror.launch('touch', { lanes: 64, args: { target: range.start, count: MIB, stride: 4 } }),
        mirror.migrate(range, round % 2 ? 'system' : 'device'),
      ].map((running) =>
        running.then(
          () => 'ok',
          (error) => error.errno ?? error.code,
        ),
      );
      await state.devices[0]!.link.control.reset();
      for (const outcome of await Promise.all(outcomes)) expect(['ok', 'EIO']).toContain(outcome);
      expect(await machine.check()).toEqual([]);
    }
    const found = await process.read(range.start, 4 * MIB);
    expect(found.every((byte) => byte === 3)).toBe(true);
    await mirror.launch('increment', { lanes: 64, args: add });
    expect((await process.read(range.start, 4 * MIB)).every((byte) => byte === 4)).toBe(true);
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  });

  test('unplugged with pages on it: they are at home before it goes, and it takes no more', async () => {
    const { machine, state } = await booted();
    const process = await machine.process();
    const range = await process.mmap({ length: MIB });
    await process.write(range.start, new Uint8Array(MIB).fill(7));
    const mirror = await process.mirror('a');
    expect((await mirror.migrate(range, 'device')).migrated).toBe(MIB / PAGE);
    expect(await state.executor.run('unplug', state.devices[0]!.driver.unplug!())).toBe(0);
    expect((await machine.stats()).devices[0]!.usedPages).toBe(0);
    expect((await mirror.migrate(range, 'device')).migrated).toBe(0);
    await machine.killDevice('a');
    expect((await process.read(range.start, MIB)).every((byte) => byte === 7)).toBe(true);
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  });

  test('what somebody holds cannot leave: the device stays as it is', async () => {
    const { machine, state } = await bootWithState(
      { executor, memory: { ram: '64MiB' }, devices: [{ name: 'a', memory: '16MiB', type: 'coherent' }] },
      ALL_CHECKERS,
    );
    const process = await machine.process();
    const range = await process.mmap({ length: 8 * PAGE });
    const mirror = await process.mirror('a');
    await process.write(range.start, new Uint8Array(8 * PAGE).fill(5));
    expect((await mirror.migrate(range, 'device')).migrated).toBe(8);
    const pin = await process.pin({ start: range.start, length: PAGE }, { kind: 'get' });
    expect(await state.executor.run('unplug', state.devices[0]!.driver.unplug!())).toBe('EBUSY');
    await pin.release();
    expect((await mirror.migrate(range, 'device')).migrated).toBeGreaterThan(0);
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  });
});
