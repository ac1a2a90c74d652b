/**
 * hmm-tests: a mapping that goes away under a device's access. The kernel's delay is a random nap; here the schedule is drawn
 * from a seed (inline) or the operating system's (threads), and the nap counts turns of the event loop.
 */
import { boot, type Machine, type PfnlessError } from 'pfnless';
import { describe, expect, test } from 'vitest';
import {
  coherentVariantsOf,
  counting,
  expectMemory,
  expectSnapshot,
  filled,
  onMachine,
  PAGE,
  PROT,
  part,
  specOf,
  toDevice,
  usedDevicePages,
  variantsOf,
} from './fixture.js';

const VARIANTS = [...variantsOf(1, 2, 8), ...coherentVariantsOf(2)];
const SEEDS = 6;
const ROUNDS = 4;
const PAGES = 64;
const SIGNIFICANT = PAGE / 4;

/** A nap of some turns: none, then more and more. */
async function nap(turns: number): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resume) => setImmediate(resume));
}

const codeOf = (outcome: Promise<unknown>): Promise<string> =>
  outcome.then(
    () => 'ok',
    (error: PfnlessError) => error.code,
  );

async function anonTeardown(machine: Machine, seed: number): Promise<void> {
  await onMachine(machine, async ({ process, mirrors, mirror, coherent }) => {
    for (let round = 0; round < ROUNDS; round++) {
      const range = await filled(process, counting(PAGES));
      const lower = part(range, 0, PAGES / 2);
      const upper = part(range, PAGES / 2, PAGES / 2);
      // Half of the rounds begin with the memory on a device.
      if (round % 2 === 1) await toDevice(mirror, range);
      // The driver's read, and a program that really runs beside the kernel where devices have threads.
      const args = { target: range.start, count: PAGES, stride: PAGE };
      const running = mirrors.map((each) => codeOf(each.launch('touch', { lanes: 4, args })));
      // One time the reader comes first, the other time the munmap.
      const readsFirst = (seed + round) % 4 < 2;
      const early = readsFirst ? mirrors.map((each) => each.readPages(range)) : [];
      await nap((seed * ROUNDS + round) % 5);
      const unmapped = process.munmap(upper);
      const reading = Promise.all(readsFirst ? early : mirrors.map((each) => each.readPages(range)));
      await unmapped;
      for (const code of await Promise.all(running)) expect(['ok', 'ERR_PFNLESS_FAULT']).toContain(code);
      for (const { errno, pages, words } of await reading) {
        // All of it, or up to where it failed: never a word that was not there.
        if (errno === 0) expect(pages).toBe(PAGES);
        else expect(errno).toBe('EFAULT');
        expect([...words].findIndex((word, page) => Number(word & 0xffff_ffffn) !== page * SIGNIFICANT)).toBe(-1);
      }
      for (const each of mirrors) {
        await expectSnapshot(each, upper, PROT.ERROR);
        expect(await each.peekPages(upper)).toMatchObject({ errno: 'ENOENT', pages: 0 });
      }
      await expectMemory(process, lower, counting(PAGES / 2));
      const stays = coherent && round % 2 === 1;
      expect(await usedDevicePages(machine, mirror)).toBe(stays ? PAGES / 2 : 0);
      await process.munmap(lower);
    }
  });
}

describe.each(VARIANTS)('$executor, $addressing, $devices $memory devices', (variant) => {
  test('anon_teardown', async () => {
    const seeds = variant.executor === 'inline' ? SEEDS : 1;
    for (let seed = 1; seed <= seeds; seed++) {
      const machine = await boot({ ...specOf(variant), seed });
      try {
        for (let run = 0; run < SEEDS / seeds; run++) await anonTeardown(machine, seed + run);
      } finally {
        await machine.dispose();
      }
    }
  });
});
