import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type CampaignProgress, runCampaign } from '#src/campaign/pool';
import { type CampaignTask, runTask, type WorkloadRow } from '#src/campaign/task';
import { type MachineInput, parseMachineSpec } from '#src/machine/spec';

const SMALL: MachineInput = { memory: { ram: '64MiB' }, devices: [{ memory: '8MiB', chunk: '4MiB' }], seed: 3 };
const task = (workload: string, input: object = {}, size = 4096): CampaignTask => ({
  workload,
  size,
  machine: 'small.yaml',
  spec: parseMachineSpec({ ...SMALL, executor: 'inline', ...input }),
});
const untimed = (rows: readonly WorkloadRow[]) => rows.map((row) => ({ ...row, wallMs: 0 }));

describe('a campaign', () => {
  it('gives the rows of a run without threads, in the order of the tasks', async () => {
    const tasks = [
      task('histogram', {}, 65536),
      task('saxpy'),
      task('pointer-chase', {}, 64),
      task('saxpy', { seed: 4 }),
    ];
    const expected: WorkloadRow[] = [];
    for (const each of tasks) expected.push(await runTask(each));
    const seen: CampaignProgress[] = [];
    const rows = await runCampaign(tasks, { jobs: 3, onProgress: (progress) => seen.push(progress) });
    expect(untimed(rows)).toEqual(untimed(expected));
    expect(rows.every(({ ok }) => ok)).toBe(true);
    expect(seen[0]).toEqual({ done: 0, total: 4, running: ['histogram'] });
    expect(seen.at(-1)).toEqual({ done: 4, total: 4, running: [] });
    expect(Math.max(...seen.map(({ running }) => running.length))).toBe(3);
  });

  it('runs machines that have threads of their own', async () => {
    const tasks = ['legacy', 'offset'].map((addressing) => task('saxpy', { addressing, executor: 'threads' }));
    const rows = await runCampaign(tasks, { jobs: 2 });
    expect(rows).toMatchObject([{ ok: true }, { ok: true }]);
  });

  it('throws what the first refused task was refused for', async () => {
    const tasks = [task('saxpy'), task('saxpy', {}, 2 ** 30), task('histogram', {}, 2 ** 30)];
    await expect(runCampaign(tasks, { jobs: 2 })).rejects.toMatchObject({
      name: 'PfnlessError',
      code: 'ERR_PFNLESS_ARGUMENT',
      message: expect.stringMatching(/^saxpy: the size must be/),
    });
  });

  it('throws that a machine does not boot, with the errno', async () => {
    const spec = parseMachineSpec({ preset: 'pci-window', addressing: 'legacy', executor: 'inline' });
    await expect(runCampaign([{ ...task('saxpy'), spec }], { jobs: 1 })).rejects.toMatchObject({
      code: 'ERR_PFNLESS_BOOT',
      errno: 'ERANGE',
    });
  });
});

describe('a thread that crashes costs its own row', () => {
  const folder = mkdtempSync(join(tmpdir(), 'pfnless-campaign-'));
  const file = join(folder, 'door.mjs');
  const CRASHES: Readonly<Record<string, [code: string, message: RegExp]>> = {
    bfs: ['process.exit(3)', /^The thread of this run crashed: .*exited with code: 3/],
    matmul: ['process.exit(0)', /exited with code: 0/],
    stencil: ["throw new Error('by design')", /^The thread of this run crashed: by design/],
    reduction: ["setImmediate(() => { throw new Error('much later'); }); return new Promise(() => {})", /much later/],
  };

  beforeAll(() => {
    const door = JSON.stringify(import.meta.resolve('../../dist/workers/campaign.js'));
    const crashes = Object.entries(CRASHES).map(([name, [code]]) => `if (task.workload === '${name}') { ${code} }`);
    writeFileSync(
      file,
      `import run from ${door};\nexport default (task) => {\n${crashes.join('\n')}\nreturn run(task);\n};\n`,
    );
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it.each(Object.entries(CRASHES))('%s: %s', async (workload, [, message]) => {
    const tasks = [task('saxpy'), task(workload), task('saxpy', { seed: 9 }), task('vector-add')];
    const rows = await runCampaign(tasks, { jobs: 2, door: pathToFileURL(file) });
    expect(rows.map(({ name, ok }) => [name, ok])).toEqual([
      ['saxpy', true],
      [workload, false],
      ['saxpy', true],
      ['vector-add', true],
    ]);
    expect(rows[1]!.error).toMatchObject({
      code: 'ERR_PFNLESS_INTERNAL',
      message: expect.stringMatching(message),
    });
    expect(rows[1]!.reproduce).toMatch(new RegExp(`^npx pfnless run ${workload} --machine small.yaml .*--seed 3`));
  });
});
