import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { HOST_DOORBELL } from '#src/abi/queue';
import { ThreadsExecutor } from '#src/sched/threads-executor';
import { SCHEDULE_POINT, type Sleeps, waitUntil } from '#src/sync/task';

/**
 * A device of a few lines: answers each request with the same number, then rings as the protocol says (data, doorbell,
 * notify if the host sleeps). Words of `memory`: 0 request, 1 answer.
 */
const DEVICE = `
  const { workerData } = require('node:worker_threads');
  const memory = new Int32Array(workerData.memory);
  const host = new Int32Array(workerData.host);
  for (let seen = 0; seen >= 0; ) {
    const request = Atomics.load(memory, 0);
    if (request === seen) { Atomics.wait(memory, 0, seen, 100); continue; }
    seen = request;
    if (request % 7 === 0) Atomics.wait(memory, 2, 0, 0.05);
    Atomics.store(memory, 1, request);
    Atomics.add(host, ${HOST_DOORBELL.word.doorbell}, 1);
    if (Atomics.load(host, ${HOST_DOORBELL.word.sleeping}) === 1) Atomics.notify(host, ${HOST_DOORBELL.word.doorbell});
  }
`;

interface FakeDevice {
  ask(): number;
  answered(request: number): boolean;
  worker: Worker;
}

const workers: Worker[] = [];

async function createFakeDevice(host: SharedArrayBuffer): Promise<FakeDevice> {
  const memory = new SharedArrayBuffer(64);
  const words = new Int32Array(memory);
  const worker = new Worker(DEVICE, { eval: true, workerData: { memory, host } });
  workers.push(worker);
  await new Promise((resolve) => worker.once('online', resolve));
  return {
    worker,
    ask() {
      const request = words[0] + 1;
      Atomics.store(words, 0, request);
      Atomics.notify(words, 0);
      return request;
    },
    answered: (request) => Atomics.load(words, 1) === request,
  };
}

const createHost = () => new SharedArrayBuffer(HOST_DOORBELL.bytes);
/** A condition that holds, and takes its time to say so. */
const busy = (ms: number) => (): boolean => {
  const start = performance.now();
  while (performance.now() - start < ms);
  return true;
};
const delay = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.terminate()));
});

describe('threads executor', () => {
  it('loses no wake-up in 10,000 rounds', async () => {
    const host = createHost();
    const executor = new ThreadsExecutor(host);
    const device = await createFakeDevice(host);
    function* rounds(): Sleeps<number> {
      for (let round = 0; round < 10_000; round++) {
        const request = device.ask();
        yield* waitUntil(`answer ${request}`, () => device.answered(request));
      }
      return 10_000;
    }
    const start = performance.now();
    expect(await executor.run('rounds', rounds())).toBe(10_000);
    // A lost wake-up costs the whole park time: with every one lost this would take more than 10 seconds.
    expect(performance.now() - start).toBeLessThan(8_000);
  }, 20_000);

  it('lets the event loop have its turn while a task waits', async () => {
    const executor = new ThreadsExecutor(createHost());
    let done = false;
    setTimeout(() => {
      done = true;
    }, 20);
    await executor.run(
      'timer',
      waitUntil('the timer', () => done),
    );
  });

  it('lets the event loop have its turn while a caller runs task after task', async () => {
    const executor = new ThreadsExecutor(createHost());
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const start = performance.now();
    while (performance.now() - start < 100) await executor.run('short', waitUntil('nothing', busy(2)));
    clearInterval(timer);
    expect(ticks).toBeGreaterThanOrEqual(5);
  });

  it('interrupts a long task at its schedule points for the event loop', async () => {
    const executor = new ThreadsExecutor(createHost());
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    let points = 0;
    function* long(): Sleeps<void> {
      const start = performance.now();
      while (performance.now() - start < 100) {
        points++;
        if (executor.preempt()) yield SCHEDULE_POINT;
      }
    }
    await executor.run('long', long());
    clearInterval(timer);
    expect(ticks).toBeGreaterThanOrEqual(5);
    expect(points).toBeGreaterThan(1000);
  });

  it('runs a background task when the doorbell rings at rest', async () => {
    const host = createHost();
    const executor = new ThreadsExecutor(host);
    const device = await createFakeDevice(host);
    let served = 0;
    let request = 0;
    function* serve(): Sleeps<never> {
      for (;;) {
        const wanted = served + 1;
        yield* waitUntil('a request', () => request === wanted && device.answered(wanted));
        served = wanted;
      }
    }
    executor.background('service', serve());
    for (let round = 1; round <= 20; round++) {
      await delay(1);
      request = device.ask();
      for (let wait = 0; served !== round && wait < 200; wait++) await delay(1);
      expect(served).toBe(round);
    }
    executor.stop(new Error('over'));
  });

  it('burns nothing at rest', async () => {
    const executor = new ThreadsExecutor(createHost());
    executor.background('service', waitUntil('a fault', () => false) as Sleeps<never>);
    await executor.settle();
    const before = process.cpuUsage();
    await delay(200);
    const { user, system } = process.cpuUsage(before);
    executor.stop(new Error('over'));
    expect((user + system) / 1000).toBeLessThan(100);
  });

  it('does not hold a process that has nothing in flight', async () => {
    const program = `
      import { ThreadsExecutor } from ${JSON.stringify(new URL('../../dist/src/sched/threads-executor.js', import.meta.url).href)};
      const executor = new ThreadsExecutor(new SharedArrayBuffer(64));
      executor.background('service', (function* () { for (;;) yield { what: 'a fault', ready: () => false }; })());
      await executor.run('work', (function* () { return 1; })());
      await executor.settle();
      console.log('at rest');
    `;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], {
      timeout: 10_000,
    });
    expect(stdout.trim()).toBe('at rest');
  });

  it('stop rejects what is in flight, also in the middle of its work', async () => {
    const executor = new ThreadsExecutor(createHost());
    const stuck = executor.run(
      'a',
      waitUntil('nothing', () => false),
    );
    const settling = executor.settle();
    const outcomes = Promise.allSettled([stuck, settling]);
    await delay(5);
    executor.stop(new Error('over'));
    expect(await outcomes).toEqual([
      expect.objectContaining({ status: 'rejected' }),
      expect.objectContaining({ status: 'rejected' }),
    ]);
    await expect(
      executor.run(
        'b',
        waitUntil('x', () => true),
      ),
    ).rejects.toThrow('over');
  });
});
