/** What surrounds a machine may be odd: clocks and timers that stand still, arguments that change, exits in the middle of calls. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { boot, runWorkload, workloads } from 'pfnless';
import { afterEach, describe, expect, test, vi } from 'vitest';

const PAGE = 4096;

afterEach(() => {
  vi.useRealTimers();
});

describe.each(['inline', 'threads'] as const)('%s', (executor) => {
  const spec = { executor, memory: { ram: '64MiB' }, devices: 1 } as const;

  test("timers that a test framework has in its hands are not the machine's", async () => {
    vi.useFakeTimers();
    await using machine = await boot(spec);
    const process = await machine.process();
    const range = await process.mmap({ length: 64 * PAGE });
    const mirror = await process.mirror(0);
    const args = { target: range.start, count: 64 * 1024, stride: 4, by: 2 };
    expect(await mirror.launch('increment', { lanes: 4, args })).toMatchObject({ lanes: 4 });
    expect(await machine.check()).toEqual([]);
  });

  test('the arguments of a launch are those that it was called with', async () => {
    await using machine = await boot(spec);
    const process = await machine.process();
    const range = await process.mmap({ length: 3 * PAGE });
    const mirror = await process.mirror(0);
    const args = { target: 0, count: 1, stride: 4, by: 0 };
    const launches = [0, 1, 2].map((page) => {
      Object.assign(args, { target: range.start + page * PAGE, by: page + 1 });
      return mirror.launch('increment', { lanes: 1, args });
    });
    await Promise.all(launches);
    const words = await process.readArray('u32', range.start, 3 * 1024);
    expect([0, 1, 2].map((page) => words[page * 1024])).toEqual([1, 2, 3]);
  });

  test('an exit waits for what its mirrors do', async () => {
    await using machine = await boot(spec);
    const process = await machine.process();
    const range = await process.mmap({ length: 256 * PAGE });
    const mirror = await process.mirror(0);
    const args = { target: range.start, count: 256 * 1024, stride: 4, by: 1 };
    const launch = mirror.launch('increment', { lanes: 64, args });
    const migration = mirror.migrate(range, 'device');
    await process.exit();
    expect(await launch).toMatchObject({ lanes: 64 });
    expect(await migration).toMatchObject({ requested: 256 });
    expect(await machine.check()).toEqual([]);
  });
});

test('machine after machine does not fill the memory of the process', async () => {
  const script = `
    import { boot } from ${JSON.stringify(import.meta.resolve('pfnless'))};
    for (let i = 0; i < 200; i++) await (await boot({ executor: 'inline', memory: { ram: '64MiB' }, devices: 2 })).dispose();
    console.log(process.memoryUsage.rss());`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script]);
  // It was 1.2 GB.
  expect(Number(stdout) / 2 ** 20).toBeLessThan(600);
});

test('a workload needs no options', async () => {
  await using machine = await boot({ executor: 'inline', memory: { ram: '64MiB' }, devices: 2, seed: 7 });
  const result = await runWorkload(machine, workloads.find(({ name }) => name === 'reduction')!);
  expect(result).toMatchObject({ ok: true, devices: 2 });
  expect(result.wallMs).toBeGreaterThan(0);
});

test('a message has an end, whatever was written', async () => {
  const name = 'a'.repeat(1e6);
  await expect(boot({ name })).rejects.toMatchObject({ code: 'ERR_PFNLESS_SPEC' });
  expect((await boot({ name }).catch((error: Error) => error.message)).toString().length).toBeLessThan(5000);
});
