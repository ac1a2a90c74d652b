/** Host CPUs that run by themselves: they walk page tables while the kernel changes them, and nothing is lost or seen too late. */

import { describe, expect, test } from 'vitest';
import { LOW_ACCESSED, LOW_DIRTY } from '#src/abi/pte-halves';
import type { VirtAddr } from '#src/base/brand';
import { SeededInjector } from '#src/base/injection';
import { ALL_CHECKERS, boot } from '#src/check/boot';
import { bootWithState } from '#src/machine/boot';
import type { VirtRange, WordOperation, WordResult } from '#src/machine/types';
import { leafTable, pteIndex } from '#src/mm/pgtable';

const PAGE = 4096;
const MIB = 2 ** 20;
const at = ({ start }: VirtRange, bytes: number) => (start + bytes) as VirtRange['start'];
const times = (count: number, operation: (i: number) => WordOperation): WordOperation[] =>
  Array.from({ length: count }, (_, i) => operation(i));

describe.each([
  ['inline', 'legacy'],
  ['inline', 'offset'],
  ['threads', 'legacy'],
  ['threads', 'offset'],
] as const)('%s, %s', (executor, addressing) => {
  const SPEC = { executor, addressing, cpus: 2, memory: { ram: '64MiB' } } as const;

  test('loads, stores and additions, on pages that come by faults, and on a huge page', async () => {
    const machine = await boot({ ...SPEC, devices: 1 });
    const process = await machine.process();
    const range = await process.mmap({ length: 8 * MIB });
    await process.madvise(range, 'HUGEPAGE');
    const aligned = (Math.ceil(range.start / (2 * MIB)) + 1) * 2 * MIB;
    const operations = [range.start, at(range, 4092), aligned, aligned + MIB + 8].flatMap(
      (address): WordOperation[] => [
        { kind: 'load', address: address as VirtRange['start'] },
        { kind: 'store', address: address as VirtRange['start'], value: -7 },
        { kind: 'add', address: address as VirtRange['start'], value: 9 },
        { kind: 'load', address: address as VirtRange['start'] },
      ],
    );
    const results = await process.execute(2, operations);
    expect(results).toEqual([1, 2, 3, 4].flatMap(() => [0, 0, -7, 2].map((found) => ({ outcome: 'done', found }))));
    expect((await process.readArray('i32', at(range, 4092), 1))[0]).toBe(2);
    const { cpus } = await machine.stats();
    expect(cpus[0]).toEqual({ hits: 0, walks: 0, faults: 0, shootdowns: 0 });
    expect(cpus[1]!.faults).toBeGreaterThanOrEqual(4);
    expect(cpus[1]!.hits).toBeGreaterThanOrEqual(4);
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  });

  test('hardware sets accessed with a load, dirty with a store, and the kernel hears of it', async () => {
    const { machine, state } = await bootWithState({ ...SPEC, devices: [] }, ALL_CHECKERS);
    const process = await machine.process();
    const range = await process.mmap({ length: PAGE });
    await process.write(range.start, Uint8Array.of(1));
    const { kernel } = state;
    const [mm] = kernel.mms;
    const low = () => kernel.ram.halves[2 * (leafTable(kernel, mm!, range.start as VirtAddr) + pteIndex(range.start))]!;
    const marks = () => ({ accessed: (low() & LOW_ACCESSED) !== 0, dirty: (low() & LOW_DIRTY) !== 0 });
    await process.madvise(range, 'FREE');
    expect(marks()).toEqual({ accessed: false, dirty: false });
    await process.execute(1, [{ kind: 'load', address: range.start }]);
    expect(marks()).toEqual({ accessed: true, dirty: false });
    await process.execute(1, [{ kind: 'store', address: range.start, value: 3 }]);
    expect(marks()).toEqual({ accessed: true, dirty: true });
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  });

  test('what is taken away is gone for good when the call returns', async () => {
    const machine = await boot({ ...SPEC, devices: 1 });
    const process = await machine.process();
    for (const take of ['munmap', 'mprotect', 'dontneed'] as const) {
      const range = await process.mmap({ length: 4 * PAGE });
      await process.writeArray('i32', at(range, PAGE), Int32Array.of(42));
      const loads = times(500, () => ({ kind: 'load', address: at(range, PAGE) }));
      let taken = false;
      const running = (async () => {
        const results: WordResult[] = [];
        while (!taken) results.push(...(await process.execute(1, loads)));
        return results;
      })();
      await process.execute(2, [{ kind: 'load', address: at(range, 2 * PAGE) }]);
      if (take === 'munmap') await process.munmap(range);
      else if (take === 'mprotect') await process.mprotect(range, 'none');
      else await process.madvise(range, 'DONTNEED');
      taken = true;
      // Whoever looks from now on does not find it.
      const [late] = await process.execute(2, [{ kind: 'load', address: at(range, PAGE) }]);
      expect(late).toEqual({ outcome: take === 'dontneed' ? 'done' : 'SIGSEGV', found: 0 });
      const results = await running;
      const lost = results.findIndex(({ outcome, found }) => outcome !== 'done' || found !== 42);
      const rest = lost < 0 ? [] : results.slice(lost);
      expect(rest.filter(({ outcome, found }) => outcome !== late!.outcome || found !== 0)).toEqual([]);
      expect(await machine.check()).toEqual([]);
    }
    await machine.dispose();
  });

  test('two CPUs and a device add to the same words while the pages travel: no addition is lost', async () => {
    const machine = await boot({ ...SPEC, devices: ['a', 'b'].map((name) => ({ name, memory: '8MiB' })) });
    const process = await machine.process();
    const range = await process.mmap({ length: 64 * PAGE });
    const mirrors = [await process.mirror(0), await process.mirror(1)];
    const words = 16;
    const rounds = executor === 'inline' ? 20 : 400;
    const additions = times(words * rounds, (i) => ({
      kind: 'add' as const,
      address: at(range, (i % words) * 4 * PAGE),
      value: 1,
    }));
    let ended = 0;
    let launches = 0;
    const running = [1, 2].map(async (cpu) => {
      for (const { outcome } of await process.execute(cpu, additions)) expect(outcome).toBe('done');
      ended++;
    });
    for (let turn = 0; ended < 2; turn++) {
      await mirrors[turn % 2]!.migrate(range, turn % 3 === 2 ? 'system' : 'device');
      if (turn % 5 === 0) await mirrors[0]!.exclusive({ start: range.start, length: 8 * PAGE });
      if (turn > 5) continue;
      const args = { target: range.start, count: words, stride: 4 * PAGE, by: 1 };
      running.push(mirrors[turn % 2]!.launch('atomic-increment', { lanes: words, args }).then(() => {}));
      launches++;
    }
    await Promise.all(running);
    const loads = times(words, (i) => ({ kind: 'load' as const, address: at(range, i * 4 * PAGE) }));
    const found = (await process.execute(1, loads)).map((result) => result.found);
    expect(found).toEqual(Array(words).fill(2 * rounds + launches));
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  });

  test('page tables come and go under a CPU that walks them, shootdowns are answered late', async () => {
    const inject = new SeededInjector(1, [['shootdown-late', { oneIn: 2 }]]);
    const { machine } = await bootWithState({ ...SPEC, devices: [] }, ALL_CHECKERS, { inject });
    inject.armed = true;
    const { freeRamPages } = await machine.stats();
    const process = await machine.process();
    const kept = await process.mmap({ length: PAGE });
    let over = false;
    const worker = (async () => {
      while (!over) {
        const results = await process.execute(1, churn(kept));
        for (const { outcome } of results) expect(['done', 'SIGSEGV']).toContain(outcome);
      }
    })();
    for (let round = 0; round < (executor === 'inline' ? 10 : 100); round++) {
      const range = await process.mmap({ length: 6 * MIB, at: FAR });
      await process.write(at(range, 3 * MIB), Uint8Array.of(round));
      if (round % 3 === 0) await process.madvise(range, 'HUGEPAGE');
      await process.execute(2, [{ kind: 'store', address: at(range, 5 * MIB), value: round }]);
      if (round % 2 === 0) await process.madvise(range, 'DONTNEED');
      await process.munmap(range);
    }
    over = true;
    await worker;
    expect(await machine.check()).toEqual([]);
    await process.exit();
    expect((await machine.stats()).freeRamPages).toBe(freeRamPages);
    expect(inject.fired['shootdown-late']).toBeGreaterThan(0);
    await machine.dispose();
  });
});

const FAR = (2 ** 40) as VirtRange['start'];

/** Accesses to memory that comes and goes, and to some that stays. */
const churn = (kept: VirtRange): WordOperation[] =>
  times(200, (i) => ({
    kind: i % 3 === 0 ? ('store' as const) : ('load' as const),
    address: i % 5 === 0 ? kept.start : ((FAR + ((i * 409600) % (6 * MIB))) as VirtRange['start']),
    value: i,
  }));

test('wrong use is refused in a sentence', async () => {
  const machine = await boot({ executor: 'inline', cpus: 1, devices: [] });
  const process = await machine.process();
  const range = await process.mmap({ length: PAGE });
  const load = { kind: 'load', address: range.start } as const;
  await expect(process.execute(0, [load])).rejects.toThrow('The CPU must be a whole number from 1 to 1');
  await expect(process.execute(1, [{ ...load, kind: 'swap' as 'load' }])).rejects.toThrow('one of load, store, add');
  await expect(process.execute(1, [{ ...load, address: at(range, 2) }])).rejects.toThrow('multiple of 4');
  await expect(process.execute(1, [{ ...load, value: 2 ** 31 }])).rejects.toThrow('The value');
  expect(await process.execute(1, [])).toEqual([]);
  await machine.dispose();
  const bare = await boot({ executor: 'inline', devices: [] });
  await expect((await bare.process()).execute(1, [load])).rejects.toThrow('give its spec `cpus`');
  await bare.dispose();
});
