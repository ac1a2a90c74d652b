/** Many seeds over a pool: rows as of runs without it, an abort and a crash that cost nobody else, results that survive. */
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { INJECTION_IDS } from '#src/base/injection';
import { openResultFile } from '#src/campaign/result-file';
import { type SeedProgress, type SeedRow, type SeedTask, startSeeds } from '#src/campaign/seeds';
import { overrideMachineSpec, parseMachineSpec } from '#src/machine/spec';
import { runRound } from '#src/stress/round';

const OPERATIONS = 3000;
const spec = parseMachineSpec({ preset: 'stress', executor: 'inline' });
const task = (seed: number): SeedTask => ({ seed, spec, inject: INJECTION_IDS, operations: OPERATIONS });
const folder = mkdtempSync(join(tmpdir(), 'pfnless-seeds-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('seeds over a pool', () => {
  it('come to what they come to without it, in their order', async () => {
    const progress: SeedProgress[] = [];
    const rows = await startSeeds([task(1), task(2), task(3)], {
      jobs: 2,
      onProgress: (seen) => void progress.push(seen),
    }).finished;
    for (const [at, row] of rows.entries()) {
      const seed = at + 1;
      const result = await runRound({
        spec: overrideMachineSpec(spec, { seed }),
        inject: INJECTION_IDS,
        isOver: (done) => done >= OPERATIONS,
      });
      expect(row).toEqual({ seed, outcome: 'held', result });
    }
    expect(progress[0]).toEqual({ done: 0, total: 3, found: 0, running: [1] });
    expect(progress.at(-1)).toEqual({ done: 3, total: 3, found: 0, running: [] });
  });

  it('are not begun any more when it is enough', async () => {
    let asked = 0;
    const rows = await startSeeds([task(1), task(2), task(3)], { jobs: 1, isOver: () => asked++ === 1 }).finished;
    expect(rows.map(({ seed }) => seed)).toEqual([1]);
  });
});

describe('trouble costs its own row', () => {
  const door = join(folder, 'door.mjs');
  beforeAll(() => {
    const real = JSON.stringify(import.meta.resolve('../../dist/workers/campaign.js'));
    const code = [
      `import { stressRound as run } from ${real};`,
      'export const stressRound = (task) => {',
      '  if (task.seed === 2) return new Promise(() => setInterval(() => {}, 1000));',
      '  if (task.seed === 3) process.exit(3);',
      "  if (task.seed === 4) throw new Error('by design');",
      '  return run(task);',
      '};',
    ];
    writeFileSync(door, code.join('\n'));
  });

  it('an abort, an exit and an exception: the other seeds are judged', async () => {
    const campaign = startSeeds([2, 1, 3, 4, 5].map(task), {
      jobs: 2,
      door: pathToFileURL(door),
      onProgress: ({ done }) => {
        // All others have ended, or are about to: this one never would.
        if (done === 4) campaign.abort(2);
      },
    });
    const rows = await campaign.finished;
    expect(rows.map(({ seed, outcome }) => [seed, outcome])).toEqual([
      [2, 'aborted'],
      [1, 'held'],
      [3, 'crashed'],
      [4, 'crashed'],
      [5, 'held'],
    ]);
    expect(rows[3]).toMatchObject({ message: 'by design' });
    expect(campaign.abort(2)).toBe(false);
  });
});

describe('the result file', () => {
  const held = (seed: number): SeedRow => ({ seed, outcome: 'held', result: { seed, violations: [] } as never });
  const campaign = { machine: { cpus: 2 }, inject: ['alloc-page'] };

  it('has what was judged before, whatever stopped the campaign', () => {
    const path = join(folder, 'results.jsonl');
    const file = openResultFile(path, campaign);
    expect(file.rows).toEqual([]);
    file.append(held(1));
    file.append({ seed: 2, outcome: 'crashed', message: 'out of memory' });
    file.append(held(3));
    appendFileSync(path, '{"seed":4,"outcome":"he');
    const again = openResultFile(path, campaign);
    expect(again.rows).toEqual([held(1), held(3)]);
    again.append(held(2));
    expect(openResultFile(path, campaign).rows).toEqual([held(1), held(3), held(2)]);
    expect(readFileSync(path, 'utf8').split('\n')).toHaveLength(6);
  });

  it('refuses another campaign, a broken line, and what it cannot write', () => {
    const path = join(folder, 'other.jsonl');
    openResultFile(path, campaign);
    expect(() => openResultFile(path, { ...campaign, inject: [] })).toThrow('has results of something else');
    appendFileSync(path, 'nonsense\n');
    expect(() => openResultFile(path, campaign)).toThrow('line 2 is no result');
    expect(() => openResultFile(join(folder, 'no', 'where'), campaign)).toThrow('ENOENT');
  });
});
