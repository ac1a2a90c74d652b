/**
 * Can devices that want the same pages keep each other from them for ever? The schedules are round robin, in which nothing but
 * the protocol breaks a tie. Each of these once ran for ever.
 */
import { boot, runWorkload, workloads } from 'pfnless';
import { expect, test } from 'vitest';

const CASES = (['legacy', 'offset'] as const).flatMap((addressing) => [
  { addressing, name: 'bfs', devices: 4, size: 4096 },
  { addressing, name: 'bfs', devices: 4, size: 8192 },
  { addressing, name: 'bfs', devices: 6, size: 4096 },
  { addressing, name: 'histogram', devices: 3, size: 2 ** 16 },
  { addressing, name: 'reduction', devices: 2, size: 2 ** 14 },
  { addressing, name: 'random-update', devices: 8, size: 16 },
  { addressing, name: 'migrate-storm', devices: 5, size: 16 },
]);

test.each(CASES)('$name on $devices devices, size $size ($addressing)', async ({ addressing, name, devices, size }) => {
  const workload = workloads.find((each) => each.name === name);
  if (workload === undefined) throw new Error(`no workload ${name}`);
  const machine = await boot({ addressing, devices, executor: 'inline', schedule: 'round-robin' });
  try {
    const result = await runWorkload(machine, workload, { devices, size, seed: 1, now: () => 0 });
    expect(result).toMatchObject({ ok: true, verified: true, violations: [] });
  } finally {
    await machine.dispose();
  }
});
