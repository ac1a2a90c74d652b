/** An option that is there and undefined is one that was not given: callers pass on what they may not have been given themselves. */
import * as pfnless from 'pfnless';
import { expect, test } from 'vitest';

const PAGE = 4096;

/** `given`, and every other option as undefined. */
function loosely<T extends object>(given: T, ...names: (keyof T)[]): T {
  return { ...Object.fromEntries(names.map((name) => [name, undefined])), ...given };
}

test('of a machine, and of what it offers', async () => {
  const spec: pfnless.MachineInput = { name: 'm', executor: 'inline', memory: { ram: '64MiB' }, devices: 2 };
  const loose = loosely(spec, 'addressing', 'revision', 'forget', 'cpus', 'schedule', 'seed', 'checks', 'hugePages');
  expect(pfnless.parseMachineSpec(loose)).toEqual(pfnless.parseMachineSpec(spec));

  await using machine = await pfnless.boot(loose);
  const process = await machine.process();
  const mapping: pfnless.MmapOptions = { length: 8 * PAGE };
  const range = await process.mmap(loosely(mapping, 'at', 'protection', 'shared', 'hugetlb', 'file', 'offset'));
  await process.write(range.start, new Uint8Array(8 * PAGE).fill(7));
  const mirror = await process.mirror(0, loosely({} as pfnless.MirrorOptions, 'onFault'));
  await mirror.migrate(range, 'device');
  const launch: pfnless.LaunchOptions = { lanes: 8, args: { target: range.start, count: 8, value: 3, step: 0 } };
  expect(await mirror.launch('fill', loosely(launch, 'groupSize'))).toMatchObject({ lanes: 8 });
  const pin = await process.pin(range, loosely({} as pfnless.PinOptions, 'write', 'kind'));
  await pin.release();
  await process.mlock(range, { onFault: undefined } as never);
  const half: pfnless.MremapOptions = { length: 4 * PAGE };
  expect(await process.mremap(range, loosely(half, 'to', 'mayMove', 'dontUnmap'))).toEqual({
    ...range,
    length: 4 * PAGE,
  });
  expect(await machine.check()).toEqual([]);
});

test('of an exploration and of a generated program', () => {
  const sizes = loosely({} as pfnless.GenerateOptions, 'tasks', 'calls', 'pages', 'devices', 'huge');
  expect(pfnless.generateProgram(5, sizes)).toEqual(pfnless.generateProgram(5));
  const program = pfnless.parseProgram('pages 2\nA: store 0 1\nA: load 0\nB: todevice 0 on 0\n');
  const options: pfnless.ExploreOptions = { strategy: 'pct', executions: 20 };
  const names = ['seed', 'depth', 'addressing', 'sites', 'twice', 'shrink', 'onProgress'] as const;
  expect(pfnless.explore(program, loosely(options, ...names))).toEqual(pfnless.explore(program, options));
});
