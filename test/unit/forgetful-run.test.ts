/** A run on a kernel that forgets something comes to an end, whatever becomes of the kernel, and says how to see it again. */
import { describe, expect, test } from 'vitest';
import { InvariantViolation } from '#src/base/errors';
import { runCampaign } from '#src/campaign/pool';
import { type CampaignTask, runTask, type WorkloadRow } from '#src/campaign/task';
import { boot } from '#src/check/boot';
import { parseMachineSpec } from '#src/machine/spec';
import { CHECK_SITES } from '#src/mm/check-sites';

/** Small: there are many sites. */
const SMALL = { memory: { ram: '24MiB' }, swap: ['8MiB'], devices: [{ memory: '4MiB', chunk: '2MiB' }] };

const taskOf = (input: object, timeoutMs?: number): CampaignTask => ({
  workload: 'oversubscription',
  machine: 'small.yaml',
  timeoutMs,
  spec: parseMachineSpec({ ...SMALL, ...input }),
});

/** It held, or it says what is wrong and how to see it again. */
function requireAnswer(row: WorkloadRow, id: string): void {
  if (row.ok) return;
  expect(row.error !== undefined || row.violations.length > 0).toBe(true);
  expect(row.error?.message ?? '').not.toMatch(/suppressed|disposed|the run is over/i);
  expect(row.reproduce).toMatch(new RegExp(`^npx pfnless run oversubscription .*--site ${id} `));
}

describe('a run ends in a row', () => {
  test.each(CHECK_SITES.map(({ id }) => id))('%s forgotten (inline)', async (id) => {
    requireAnswer(await runTask(taskOf({ executor: 'inline', forget: [id] }, 5000)), id);
  });

  // What broke disposal, what waited for the last reference, and what is stuck in the run itself.
  test.each(['evict-kind', 'collect-kind', 'leaf-to-page-migration'])('%s forgotten (threads)', async (id) => {
    const row = await runTask(taskOf({ executor: 'threads', forget: [id] }, 5000));
    expect(row.ok).toBe(false);
    requireAnswer(row, id);
  });

  test('that does not come forward: it is stuck, and says who waits for what', async () => {
    const row = await runTask(taskOf({ executor: 'threads' }, 20));
    expect(row).toMatchObject({ ok: false, error: { code: 'ERR_PFNLESS_DEADLOCK' } });
    expect(row.error?.message).toMatch(/^stuck: no end after 0\.02 s: .+\.$/);
    expect(row.reproduce).toMatch(/ --timeout 20ms$/);
  });

  test.each(['entry-to-page', 'range-step', 'collect-kind'])('%s: with and without a pool the same', async (id) => {
    const task = taskOf({ executor: 'inline', forget: [id] });
    const [pooled] = await runCampaign([task], { jobs: 1 });
    expect({ ...pooled, wallMs: 0 }).toEqual({ ...(await runTask(task)), wallMs: 0 });
  });
});

describe('the end of a machine that is broken', () => {
  test.each(['inline', 'threads'] as const)('is not waited for, and replaces no error (%s)', async (executor) => {
    const breakIt = async (): Promise<void> => {
      await using machine = await boot({ preset: 'stress', executor, forget: ['entry-to-page'] });
      await using process = await machine.process();
      const range = await process.mmap({ length: 2 ** 20 });
      await process.write(range.start, new Uint8Array(range.length).fill(1));
      const mirror = await process.mirror(0);
      await mirror.migrate(range, 'device');
      await process.read(range.start, range.length);
    };
    await expect(breakIt()).rejects.toThrow(InvariantViolation);
  });

  test('is bounded where only the end shows that it is (threads)', async () => {
    const machine = await boot({ preset: 'stress', executor: 'threads', forget: ['entry-to-page'] });
    const process = await machine.process();
    const range = await process.mmap({ length: 2 ** 20 });
    await process.write(range.start, new Uint8Array(range.length).fill(1));
    await (await process.mirror(0)).migrate(range, 'device');
    await process.munmap(range);
    await expect(machine.dispose()).rejects.toThrow(
      /^The machine does not come to its end: remove gpu0 waits for last/,
    );
  });
});
