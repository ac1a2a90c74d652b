import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { HOST_DOORBELL } from '#src/abi/queue';
import { EngineControl } from '#src/device/control';
import type { DeviceLink } from '#src/transport/device-link';
import { createInlineLink } from '#src/transport/inline-link';
import { createWorkerLink } from '#src/transport/worker-link';
import { BASE, PAGE, Rig, RWA } from './device-rig.js';

const open: DeviceLink[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((link) => link.close(1000)));
});

const module = (body: string): string => `data:text/javascript,${encodeURIComponent(body)}`;
const program = (body: string): string => module(`export default (ctx, args) => { ${body} }`);
const launch = (link: DeviceLink, name: string, { lanes = 1, args = {} } = {}) =>
  link.control.launch({ program: name, context: 1, lanes, groupSize: 32, args });
const LOST = { code: 'ERR_PFNLESS_DEVICE_LOST' };

async function workerLink(rig = new Rig()): Promise<DeviceLink> {
  const link = await createWorkerLink({ config: rig.config, memories: rig.memories, ownCores: false });
  open.push(link);
  await link.control.bindContext(rig.context, rig.root);
  return link;
}

async function inlineLink(rig = new Rig()): Promise<DeviceLink> {
  const link = await createInlineLink({ config: rig.config, memories: rig.memories, device: new EngineControl() });
  await link.control.bindContext(rig.context, rig.root);
  return link;
}

/** The driver: serves faults as they come, until `until` settles. */
async function serveFaults<T>(rig: Rig, link: DeviceLink, until: Promise<T>): Promise<T> {
  let over = false;
  const settled = until.finally(() => {
    over = true;
  });
  const bell = new Int32Array(rig.memories.hostDoorbell);
  while (!over) {
    const rung = Atomics.load(bell, HOST_DOORBELL.word.doorbell);
    while (link.step());
    const faults = rig.takeFaults();
    for (const { address } of faults) rig.map((address - BASE) / PAGE, RWA);
    if (faults.length > 0) {
      rig.replay();
      link.ring();
    } else {
      Atomics.store(bell, HOST_DOORBELL.word.sleeping, 1);
      const outcome = Atomics.waitAsync(bell, HOST_DOORBELL.word.doorbell, rung, 5);
      await (outcome.async ? outcome.value : sleep(0));
      Atomics.store(bell, HOST_DOORBELL.word.sleeping, 0);
    }
  }
  return settled;
}

describe.each([
  ['worker', workerLink],
  ['inline', inlineLink],
] as const)('%s link', (_, create) => {
  test('boots, launches, serves each fault once, tells its statistics', async () => {
    const rig = new Rig();
    const link = await create(rig);
    const source = program(
      'ctx.atomicAdd(args.at, 1); ctx.storeI32(args.at + 4096 * (1 + ctx.lane % 8), ctx.lane % 8)',
    );
    const report = await serveFaults(rig, link, launch(link, source, { lanes: 400, args: { at: BASE } }));
    expect(report).toMatchObject({ lanes: 400, faults: 9, operations: 800, failure: null });
    expect(rig.ram[0]).toBe(400);
    expect(rig.ram[(PAGE / 4) * 6]).toBe(5);
    expect(await link.control.stats()).toMatchObject({
      faults: 9,
      launches: 1,
      operations: 800,
      walks: expect.any(Number),
    });
    expect(link.lost).toBeNull();
  });

  test('a built-in program runs by its name; an unknown one is refused with a sentence', async () => {
    const rig = new Rig();
    rig.map(0, RWA, 4);
    const link = await create(rig);
    const args = { target: BASE, count: 64, value: 5, step: 1 };
    const report = await serveFaults(rig, link, launch(link, 'fill', { lanes: 4, args }));
    expect(report.failure).toBeNull();
    expect(rig.ram[63]).toBe(68);
    expect((await launch(link, 'no-such-thing')).failure?.message).toMatch(/no program 'no-such-thing'.*fill/);
    expect((await launch(link, 'fill', { lanes: 0 })).failure?.message).toMatch(/lanes is 0/);
  });

  test('a program that throws, a module that throws, and one that exports no function fail their launch only', async () => {
    const rig = new Rig();
    const link = await create(rig);
    const run = (url: string) => serveFaults(rig, link, launch(link, url));
    expect((await run(program('null.x'))).failure).toMatchObject({ kind: 'program', lane: 0, message: /TypeError/ });
    expect((await run(module('throw new Error("at load")'))).failure?.message).toMatch(/cannot be loaded: at load/);
    expect((await run(module('export default 7'))).failure?.message).toMatch(/no function/);
    expect((await run('file:///no/such/file.js')).failure?.message).toMatch(/cannot be loaded/);
    expect((await run(program(''))).failure).toBeNull();
  });

  test('terminated with a launch in flight: the launch and all later calls reject, once', async () => {
    const link = await create();
    const inFlight = launch(link, program('ctx.loadI32(args.at)'), { args: { at: BASE } });
    const rejected = expect(inFlight).rejects.toMatchObject(LOST);
    await sleep(20);
    await link.terminate();
    await rejected;
    expect(link.lost).toMatchObject({ ...LOST, message: expect.stringContaining('device 0 (gpu0) is lost') });
    await expect(link.control.stats()).rejects.toMatchObject(LOST);
    await link.terminate();
    await link.close(1000);
    expect(link.lost).toMatchObject(LOST);
    expect([link.runnable, link.step()]).toEqual([false, false]);
  });

  test('closed in good order: later calls reject', async () => {
    const link = await create();
    await link.close(1000);
    await expect(link.control.stats()).rejects.toMatchObject({ code: 'ERR_PFNLESS_DISPOSED' });
    await link.close(1000);
    expect(link.lost).toMatchObject({ code: 'ERR_PFNLESS_DISPOSED' });
  });
});

describe('worker link', () => {
  test('a program that calls process.exit() loses the device, and no promise hangs', async () => {
    const link = await workerLink();
    const pending = [launch(link, program('process.exit(3)')), launch(link, program('ctx.loadI32(65536)'))];
    const [exiting, waiting] = await Promise.allSettled(pending);
    const rejected = { status: 'rejected', reason: { ...LOST, message: expect.stringContaining('exit code 3') } };
    expect(exiting).toMatchObject(rejected);
    expect(waiting).toMatchObject(rejected);
    expect(link.lost).toMatchObject(LOST);
  });

  test('a program that leaves a callback which throws loses the device with the reason', async () => {
    const link = await workerLink();
    await launch(link, program('queueMicrotask(() => { throw new Error("late"); })')).catch(() => {});
    await vi.waitFor(() => expect(link.lost?.message).toMatch(/threw Error: late/));
  });

  test('a device whose driver breaks the rules dies with the reason', async () => {
    const rig = new Rig();
    const link = await workerLink(rig);
    rig.tables.map(rig.root, BASE, 0, 1 << 8); // a memory without a link
    const launched = launch(link, program('ctx.loadI32(args.at)'), { args: { at: BASE } });
    await expect(launched).rejects.toMatchObject({
      ...LOST,
      message: expect.stringMatching(/InvariantViolation.*no link/),
    });
  });

  test('a program that never ends does not stop close()', async () => {
    const link = await workerLink();
    const launched = launch(link, program('for (;;);'));
    const rejected = expect(launched).rejects.toMatchObject({ code: 'ERR_PFNLESS_DISPOSED' });
    await sleep(50);
    const started = performance.now();
    await link.close(100);
    expect(performance.now() - started).toBeLessThan(3000);
    await rejected;
  });

  test('invalidations are obeyed while a lane runs for long', async () => {
    const rig = new Rig();
    rig.map(0, RWA);
    const link = await workerLink(rig);
    const source = program('for (let i = 0; i < 1e7 && ctx.loadI32(args.at) === 0; i++);');
    const launched = launch(link, source, { args: { at: BASE } });
    await sleep(5);
    for (let round = 0; round < 10; round++) {
      rig.tables.unmapRange(rig.root, BASE, BASE + PAGE);
      const sequence = rig.invalidate(BASE, BASE + PAGE);
      link.ring();
      while (rig.invalidateFence !== sequence) await sleep(0);
      if (round === 9) rig.ram[0] = 1;
      rig.map(0, RWA);
      rig.takeFaults();
      rig.replay();
      link.ring();
    }
    const report = await serveFaults(rig, link, launched);
    expect(report.failure).toBeNull();
  });
});
