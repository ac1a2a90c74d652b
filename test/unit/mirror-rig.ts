/** A process mirrored on two devices, inline, looked at by every checker after each test: for what mirrors keep and forget. */
import { afterEach, expect } from 'vitest';
import { boot } from '#src/check/boot';
import type { Machine } from '#src/machine/types';

export const PAGE = 4096;
/** Bytes of a huge page. */
export const HUGE = 512 * PAGE;
const machines: Machine[] = [];

/** @param memory of each device, in one chunk */
export async function mirroredTwice(addressing: 'legacy' | 'offset', memory: string) {
  const machine = await boot({
    ...{ addressing, executor: 'inline', hugePages: 'madvise' },
    memory: { ram: '64MiB' },
    devices: ['gpu0', 'gpu1'].map((name) => ({ name, memory, chunk: memory })),
  });
  machines.push(machine);
  const process = await machine.process();
  const mirror = await process.mirror(0, { onFault: 'mirror' });
  const other = await process.mirror(1, { onFault: 'mirror' });
  return { machine, process, mirror, other };
}

afterEach(async () => {
  for (const machine of machines.splice(0)) {
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  }
});
