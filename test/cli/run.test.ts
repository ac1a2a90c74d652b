/** The contract of the command line (README, commands): one JSON object, its fields, the exit code. */
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { jsonOf, pfnless, start } from './pfnless.js';

const TRACE = fileURLToPath(new URL('../conformance/traces/scen-anon_read.jsonl.gz', import.meta.url));
const LAYOUTS = fileURLToPath(new URL('../conformance/layouts.jsonl.gz', import.meta.url));

interface Row {
  readonly name: string;
  readonly wallMs: number;
}

describe('run', () => {
  test.each([
    ['legacy', 'threads'],
    ['offset', 'threads'],
    ['legacy', 'inline'],
    ['offset', 'inline'],
  ])('two workloads verify (%s, %s)', async (addressing, executor) => {
    const flags = ['--addressing', addressing, '--executor', executor, '--devices', '3', '--seed', '5', '--json'];
    const finished = await pfnless(['run', 'vector-add', 'histogram', ...flags]);
    const result = jsonOf(finished);
    expect(result).toMatchObject({
      schema: 'pfnless/run@1',
      ok: true,
      seed: 5,
      addressing,
      executor,
      devices: 3,
      machine: 'laptop',
    });
    expect(result.workloads.map(({ name }: Row) => name)).toEqual(['vector-add', 'histogram']);
    for (const row of result.workloads) {
      expect(row).toMatchObject({ ok: true, verified: true, violations: [] });
      expect(row.faults.device).toBeGreaterThan(0);
      expect(row.migrated.toDevice).toBeGreaterThan(0);
      expect(row.wallMs).toBeGreaterThan(0);
    }
    expect(finished.code).toBe(0);
    expect(finished.stderr).toBe('');
  });

  test('inline: the same seed gives the same counters', async () => {
    const words = [
      'run',
      'vector-add',
      'migrate-storm',
      '--executor',
      'inline',
      '--schedule',
      'random',
      '--seed',
      '7',
      '--json',
    ];
    const [first, second] = (await Promise.all([pfnless(words), pfnless(words)])).map((finished) => {
      const result = jsonOf(finished);
      return { ...result, workloads: result.workloads.map((row: Row) => ({ ...row, wallMs: 0 })) };
    });
    expect(second).toEqual(first);
  });

  test('--jobs changes nothing but the time (inline)', async () => {
    const words = ['run', 'stencil', 'saxpy', 'histogram', '--executor', 'inline', '--devices', '2', '--json'];
    const [alone, pooled] = await Promise.all([pfnless(words), pfnless([...words, '--jobs', '2'])]);
    const untimed = ({ stdout }: { readonly stdout: string }) => stdout.replace(/"wallMs": [\d.]+/g, '');
    expect(untimed(pooled)).toBe(untimed(alone));
    expect([alone.code, pooled.code, pooled.stderr]).toEqual([0, 0, '']);
  });

  test('Ctrl-C ends all jobs at once', async () => {
    const child = start(['run', 'oversubscription', 'oversubscription', '--jobs', '2', '--size', '4']);
    await once(child.stdout, 'data');
    await sleep(1000);
    child.kill('SIGINT');
    const killed = performance.now();
    const [code] = await once(child, 'exit');
    expect(code).toBe(130);
    expect(performance.now() - killed).toBeLessThan(1000);
  });

  test('for people: the seed first, then a table', async () => {
    const { stdout, code } = await pfnless(['run', 'saxpy', '--executor', 'inline', '--seed', '9']);
    expect(stdout).toMatch(/^seed 9 · machine laptop · 2 devices · offset addressing · executor inline\n/);
    expect(stdout).toMatch(/\nsaxpy +ok /);
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100);
    expect(code).toBe(0);
  });

  test.each([
    ['SIGINT', 'threads', 400],
    ['SIGINT', 'threads', 1500],
    ['SIGTERM', 'threads', 1000],
    ['SIGINT', 'inline', 1000],
  ] as const)('%s stops at once (%s, after %i ms)', async (signal, executor, afterMs) => {
    const child = start(['run', 'oversubscription', '--devices', '4', '--size', '4', '--executor', executor]);
    await once(child.stdout, 'data');
    // By then the machine is busy: first with the input, then with migrations and evictions.
    await sleep(afterMs);
    child.kill(signal);
    const killed = performance.now();
    const [code] = await once(child, 'exit');
    expect(code).toBe(130);
    // It takes about 0.1 s; other tests run beside.
    expect(performance.now() - killed).toBeLessThan(1000);
  });

  test('a machine that does not boot is found, not wrong use', async () => {
    const finished = await pfnless(['run', 'saxpy', '--machine', 'pci-window', '--addressing', 'legacy', '--json']);
    expect(jsonOf(finished)).toMatchObject({
      schema: 'pfnless/run@1',
      ok: false,
      error: { code: 'ERR_PFNLESS_BOOT', errno: 'ERANGE' },
    });
    expect(finished.code).toBe(1);
  });
});

describe('a kernel that forgets', () => {
  test('--jobs changes nothing: what broke is told, and how to see it again', async () => {
    const words = ['run', 'saxpy', 'oversubscription', '--executor', 'inline', '--devices', '1', '--machine', 'stress'];
    const kernel = ['--site', 'range-step'];
    const [alone, pooled] = await Promise.all([
      pfnless([...words, ...kernel]),
      pfnless([...words, ...kernel, '--jobs', '2']),
    ]);
    const untimed = (text: string) => text.replace(/[\d.]+ m?s\b/g, '').replace(/ +/g, ' ');
    expect(untimed(pooled.stdout)).toBe(untimed(alone.stdout));
    expect(alone.stdout).toMatch(
      /\noversubscription: \S.*\n {2}again: npx pfnless run oversubscription .*--site range-step /,
    );
    expect([alone.code, pooled.code, alone.stderr, pooled.stderr]).toEqual([1, 1, '', '']);
  });

  test('a run without end is stuck after --timeout', async () => {
    const words = [
      'run',
      'oversubscription',
      '--machine',
      'stress',
      '--devices',
      '1',
      '--site',
      'leaf-to-page-migration',
    ];
    const { code, stdout } = await pfnless([...words, '--timeout', '3s']);
    expect(code).toBe(1);
    expect(stdout).toMatch(
      /\noversubscription: stuck: no end after 3 s: .* waits for .*\n {2}again: .* --timeout 3000ms\n$/,
    );
  });
});

describe("Node's own flags", () => {
  test.each([
    ['of V8', ['--max-old-space-size=2048', '--expose-gc']],
    ['of the process', ['--title=gpus', '--trace-exit']],
    ['of modules', ['-r', 'node:fs', '--import', 'data:text/javascript,0', '-C', 'special', '--enable-source-maps']],
  ])('%s', async (_, flags) => {
    const machine = await pfnless(['run', 'vector-add', '--json'], undefined, flags);
    expect(machine).toMatchObject({ code: 0, stderr: '' });
    const pool = await pfnless(['conform', TRACE, TRACE, '--jobs', '2', '--json'], undefined, flags);
    expect(jsonOf(pool)).toMatchObject({ ok: true, traces: 2 });
  });

  test('what a thread must load first, it loads', async () => {
    const said = `data:text/javascript,${encodeURIComponent('process.stderr.write("loaded;")')}`;
    const { stderr } = await pfnless(['run', 'vector-add', '--devices', '2'], undefined, ['--import', said]);
    expect(stderr).toBe('loaded;'.repeat(3));
  });
});

describe('list', () => {
  test('names and summaries', async () => {
    const finished = await pfnless(['list', '--json']);
    const lists = jsonOf(finished);
    expect(lists).toMatchObject({ schema: 'pfnless/list@1', ok: true });
    for (const kind of ['workloads', 'programs', 'machines', 'drivers', 'addressings']) {
      expect(lists[kind].length).toBeGreaterThan(0);
      for (const item of lists[kind]) expect(item).toEqual({ name: expect.any(String), summary: expect.any(String) });
    }
    expect(finished.code).toBe(0);
  });

  test('some of it, one line each where no person reads', async () => {
    const only = jsonOf(await pfnless(['list', 'sites', 'machines', '--json']));
    expect(Object.keys(only)).toEqual(['schema', 'ok', 'sites', 'machines']);
    const { stdout } = await pfnless(['list', 'sites']);
    expect(stdout.split('\n')).toHaveLength(only.sites.length + 3);
  });
});

describe('iomem', () => {
  interface Range {
    readonly name: string;
    readonly end: string;
  }

  test('legacy: device memory stands in the physical map', async () => {
    const maps = jsonOf(await pfnless(['iomem', '--addressing', 'legacy', '--json']));
    expect(maps).toMatchObject({ schema: 'pfnless/iomem@1', ok: true, failed: null, devicePrivate: [] });
    expect(maps.physical.at(-1).end).toBe('0x3fffffffffff');
  });

  test('offset: beside it, where legacy finds no room', async () => {
    const maps = jsonOf(await pfnless(['iomem', '--machine', 'pci-window', '--addressing', 'offset', '--json']));
    expect(maps).toMatchObject({ ok: true, failed: null });
    expect(maps.physical.at(-1)).toMatchObject({ name: 'PCI Bus 0000:00', start: '0x100000000', end: '0xffffffffff' });
    expect(maps.devicePrivate.map(({ name }: Range) => name)).toEqual([
      'device private (gpu0)',
      'device private (gpu1)',
    ]);
  });

  test('for people: the physical map as /proc/iomem has it, then a heading and the other map', async () => {
    const { stdout } = await pfnless(['iomem']);
    expect(stdout).toMatch(/\n000f0000-000fffff : Reserved\n {2}000f0000-000fffff : System ROM\n/);
    expect(stdout).toMatch(
      /: Reserved\n\nDevice private address space:\n00000000-00ffffff : device private \(gpu0\)\n.* \(gpu1\)\n$/,
    );
  });

  test.each(['pci-window', 'constrained-43bit'])('%s, legacy: names the failed request', async (machine) => {
    const words = ['iomem', '--machine', machine, '--addressing', 'legacy'];
    const finished = await pfnless([...words, '--json']);
    expect(jsonOf(finished)).toMatchObject({
      ok: false,
      failed: { code: 'ERR_PFNLESS_BOOT', device: 'gpu0', bytes: 32 * 2 ** 20, errno: 'ERANGE' },
    });
    expect(finished.code).toBe(1);

    const { stdout, stderr, code } = await pfnless(words);
    expect(stdout).toMatch(/^00000000-00000fff : Reserved\n/);
    expect(stderr).toMatch(/^pfnless: .*gpu0.*\n$/);
    expect(code).toBe(1);
  });
});

describe('layouts', () => {
  test.runIf(existsSync(LAYOUTS))('recorded placements are predicted', async () => {
    const finished = await pfnless(['layouts', LAYOUTS, '--json']);
    expect(jsonOf(finished)).toMatchObject({ schema: 'pfnless/layouts@1', ok: true, mismatches: [] });
    expect(finished.code).toBe(0);
  });
});
