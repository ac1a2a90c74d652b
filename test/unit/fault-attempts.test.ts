/** How often a page is wanted for atomics in vain before its lane is told so: in a row, not in the life of a mirror. */
import { expect, test } from 'vitest';
import { ALL_CHECKERS } from '#src/check/boot';
import { bootWithState } from '#src/machine/boot';

const PAGE = 4096;
/** More than are allowed in a row. */
const EPISODES = 70;

/** An atomic addition of each launch, after the CPU took the page home; device memory is full as often as `full` says, each time. */
async function launches(full: number): Promise<number> {
  let failures = 0;
  const inject = { fires: (point: string) => point === 'device-page' && failures-- > 0, below: () => 0 };
  const spec = { executor: 'inline', memory: { ram: '32MiB' }, devices: 1 } as const;
  const { machine } = await bootWithState(spec, ALL_CHECKERS, { inject });
  const process = await machine.process();
  const range = await process.mmap({ length: PAGE });
  const mirror = await process.mirror(0);
  let done = 0;
  for (let i = 0; i < EPISODES; i++) {
    await process.writeArray('i32', range.start, Int32Array.of(i));
    failures = full;
    try {
      await mirror.launch('atomic-increment', { lanes: 1, args: { target: range.start, count: 1, stride: 4, by: 1 } });
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_PFNLESS_FAULT', errno: 'ENOMEM' });
      break;
    }
    failures = 0;
    expect([...(await process.readArray('i32', range.start, 1))]).toEqual([i + 1]);
    done++;
  }
  expect(await machine.check()).toEqual([]);
  await machine.dispose();
  return done;
}

test('memory that is full once in a while fails nobody', async () => {
  expect(await launches(1)).toBe(EPISODES);
});

test('memory that stays full fails the first', async () => {
  expect(await launches(10_000)).toBe(0);
});
