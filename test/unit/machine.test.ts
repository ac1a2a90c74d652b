import { afterEach, describe, expect, it, vi } from 'vitest';
import { CPU_BLOCK_BYTES } from '#src/abi/cpu';
import type { VirtAddr } from '#src/base/brand';
import { boot } from '#src/check/boot';
import type { Machine, Mirror, Process, VirtRange } from '#src/machine/types';

const PAGE = 4096;
const machines: Machine[] = [];

async function bootSmall(executor: 'inline' | 'threads', devices = 2): Promise<Machine> {
  const device = { memory: '8MiB', chunk: '4MiB' };
  const machine = await boot({
    executor,
    memory: { ram: '64MiB' },
    devices: Array.from({ length: devices }, () => device),
  });
  machines.push(machine);
  return machine;
}

/** A process with 16 pages, which count up, and its mirror on device 0. */
async function scene(
  executor: 'inline' | 'threads',
): Promise<{ machine: Machine; process: Process; range: VirtRange; mirror: Mirror }> {
  const machine = await bootSmall(executor);
  const process = await machine.process();
  const range = await process.mmap({ length: 16 * PAGE });
  await process.writeArray(
    'i32',
    range.start,
    Int32Array.from({ length: (16 * PAGE) / 4 }, (_, index) => index),
  );
  return { machine, process, range, mirror: await process.mirror(0) };
}

/** Loads of one word for several seconds. */
const longLaunch = (target: VirtAddr) => ({ lanes: 2 ** 20, args: { target, count: 2 ** 30, stride: 0 } });

afterEach(async () => {
  await Promise.all(machines.splice(0).map((machine) => machine.dispose()));
});

const at = (address: number) => address as VirtAddr;

describe('arguments', () => {
  type Call = (s: Awaited<ReturnType<typeof scene>>) => Promise<unknown>;
  const REFUSED: readonly (readonly [name: string, call: Call, message: RegExp])[] = [
    [
      'mmap of nothing',
      ({ process }) => process.mmap({ length: 0 }),
      /length of a mapping must be a whole number from 1/,
    ],
    ['mmap of half a byte', ({ process }) => process.mmap({ length: 0.5 }), /not 0\.5/],
    ['mmap without options', ({ process }) => process.mmap(undefined as never), /options of mmap must be an object/],
    [
      'mmap with a wrong protection',
      ({ process }) => process.mmap({ length: 1, protection: 'rwx' as never }),
      /one of none, r, w, rw, not "rwx"/,
    ],
    ['mmap at an odd place', ({ process }) => process.mmap({ length: 1, at: at(0x100001) }), /must start at a page/],
    [
      'mmap past the end',
      ({ process }) => process.mmap({ length: 2 * PAGE, at: at(2 ** 47 - 2 * PAGE) }),
      /leave the address space/,
    ],
    [
      'munmap of an odd range',
      ({ process, range }) => process.munmap({ start: at(range.start + 1), length: PAGE }),
      /must start at a page/,
    ],
    [
      'munmap of an odd length',
      ({ process, range }) => process.munmap({ start: range.start, length: 100 }),
      /must be whole pages/,
    ],
    ['read at no address', ({ process }) => process.read(at(-1), 1), /address must be a whole number/],
    [
      'read of less than nothing',
      ({ process, range }) => process.read(range.start, -1),
      /length must be a whole number/,
    ],
    ['read of too much', ({ process, range }) => process.read(range.start, 2 ** 40), /from 0 to 2147483648/],
    [
      'write of a string',
      ({ process, range }) => process.write(range.start, 'x' as never),
      /must be a Uint8Array, not "x"/,
    ],
    [
      'array of an unknown type',
      ({ process, range }) => process.readArray('f16' as never, range.start, 1),
      /one of u8, i32, u32, f32, f64, not "f16"/,
    ],
    [
      'array at an odd address',
      ({ process, range }) => process.readArray('f64', at(range.start + 4), 1),
      /must be a multiple of 8/,
    ],
    [
      'array of another type',
      ({ process, range }) => process.writeArray('f32', range.start, new Int32Array(1) as never),
      /must be in a Float32Array, not an Int32Array/,
    ],
    ['unknown device number', ({ process }) => process.mirror(2), /There is no device 2: the machine's are 0 to 1/],
    ['unknown device name', ({ process }) => process.mirror('gpu'), /did you mean "gpu0"/],
    [
      'unknown fault policy',
      ({ process }) => process.mirror(1, { onFault: 'panic' as never }),
      /onFault must be one of migrate, mirror, not "panic"/,
    ],
    [
      'migration of half a page',
      ({ mirror, range }) => mirror.migrate({ start: range.start, length: 2048 }, 'device'),
      /whole pages/,
    ],
    [
      'migration to nowhere',
      ({ mirror, range }) => mirror.migrate(range, 'moon' as never),
      /to device or system, not to "moon"/,
    ],
    ['launch of nothing', ({ mirror }) => mirror.launch('', { lanes: 1 }), /name of a built-in or the URL of a module/],
    [
      'launch of no lanes',
      ({ mirror }) => mirror.launch('fill', { lanes: 0 }),
      /lanes must be a whole number from 1 to 16777216/,
    ],
    ['launch of too many lanes', ({ mirror }) => mirror.launch('fill', { lanes: 2 ** 24 + 1 }), /not 16777217/],
    [
      'launch in groups of nobody',
      ({ mirror }) => mirror.launch('fill', { lanes: 1, groupSize: 0 }),
      /work group must be a whole number from 1 to 1024/,
    ],
    [
      'launch with a word',
      ({ mirror }) => mirror.launch('fill', { lanes: 1, args: { value: 'one' as never } }),
      /argument value must be a number/,
    ],
    ['kill of an unknown device', ({ machine }) => machine.killDevice('gpu7'), /There is no device "gpu7"/],
  ];

  it('are refused with one sentence each', async () => {
    const setting = await scene('inline');
    for (const [name, call, message] of REFUSED) {
      const error = await call(setting).then(
        () => null,
        (reason) => reason,
      );
      expect(error, name).toMatchObject({ code: 'ERR_PFNLESS_ARGUMENT', message: expect.stringMatching(message) });
      expect(error.message, name).toMatch(/^[A-Z0-9].*[.?]$/);
    }
    expect(await setting.machine.check()).toEqual([]);
  });
});

describe.each(['inline', 'threads'] as const)('machine (%s)', (executor) => {
  it('moves data to a device and back, and finds nothing wrong', async () => {
    const { machine, process, range, mirror } = await scene(executor);
    expect(await mirror.migrate(range, 'device')).toEqual({
      requested: 16,
      collected: 16,
      migrated: 16,
      folios: 16,
      errno: 0,
    });
    expect(await machine.check()).toEqual([]);
    const values = await process.readArray('i32', range.start, 5000);
    expect(values.every((value, index) => value === index)).toBe(true);
    await mirror.migrate(range, 'system');
    const { migratedToDevice, migratedToRam, devices } = await machine.stats();
    expect({ migratedToDevice, migratedToRam }).toEqual({ migratedToDevice: 16, migratedToRam: 16 });
    expect(devices.map(({ usedPages }) => usedPages)).toEqual([0, 0]);
    await process.exit();
    expect(await machine.check()).toEqual([]);
  });

  it('serves overlapping calls of one process', async () => {
    const { machine, process, range, mirror } = await scene(executor);
    await Promise.all([
      mirror.migrate(range, 'device'),
      process.readArray('i32', range.start, 4096),
      process.mmap({ length: 3 * PAGE }),
      mirror.launch('increment', { lanes: 4096, args: { target: range.start, count: 4096, stride: 4, by: 1 } }),
      process.mmap({ length: PAGE }).then((other) => process.munmap(other)),
    ]);
    expect(await process.readArray('i32', range.start, 3)).toEqual(Int32Array.of(1, 2, 3));
    expect(await machine.check()).toEqual([]);
  });

  it('answers a bad access with a fault', async () => {
    const { process, range, mirror } = await scene(executor);
    const end = at(range.start + range.length);
    await expect(process.read(at(end - 4), 8)).rejects.toMatchObject({
      code: 'ERR_PFNLESS_FAULT',
      signal: 'SIGSEGV',
      address: end,
    });
    const readOnly = await process.mmap({ length: PAGE, protection: 'r' });
    await expect(process.write(readOnly.start, new Uint8Array(1))).rejects.toMatchObject({ signal: 'SIGSEGV' });
    const wild = { lanes: 1, args: { target: end, count: 1, value: 7, step: 1 } };
    await expect(mirror.launch('fill', wild)).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT', address: end });
    await expect(mirror.launch('incremnt', { lanes: 1 })).rejects.toMatchObject({
      code: 'ERR_PFNLESS_ARGUMENT',
      message: expect.stringMatching(/There is no program "incremnt" \(did you mean "increment"\?\)/),
    });
  });

  it('refuses calls after the end of a mirror, a process, the machine', async () => {
    const { machine, process, range, mirror } = await scene(executor);
    await mirror.close();
    await mirror.close();
    await expect(mirror.migrate(range, 'device')).rejects.toThrow('the mirror of process 1 on gpu0 is closed');
    await process.exit();
    await expect(process.read(range.start, 1)).rejects.toThrow('process 1 has exited');
    const other = await machine.process();
    await machine.dispose();
    await machine.dispose();
    for (const call of [machine.process(), machine.stats(), machine.check(), other.mmap({ length: 1 })]) {
      await expect(call).rejects.toMatchObject({ code: 'ERR_PFNLESS_DISPOSED' });
    }
    expect(() => machine.iomem()).toThrow('the machine has been disposed');
  });

  it('disposes in the middle of running work', async () => {
    const { machine, range, mirror } = await scene(executor);
    const running = mirror.launch('touch', longLaunch(range.start as VirtAddr));
    const outcome = expect(running).rejects.toMatchObject({ code: 'ERR_PFNLESS_DISPOSED' });
    await new Promise((resolve) => setTimeout(resolve, 5));
    const start = performance.now();
    await machine.dispose();
    await outcome;
    expect(performance.now() - start).toBeLessThan(500);
  });

  it('survives the death of a device: launches fail, data on it is lost, the rest works', async () => {
    const { machine, process, range, mirror } = await scene(executor);
    await mirror.migrate({ start: range.start, length: PAGE }, 'device');
    const launch = longLaunch(at(range.start + PAGE));
    const running = mirror.launch('touch', launch);
    const outcome = expect(running).rejects.toMatchObject({ code: 'ERR_PFNLESS_DEVICE_LOST' });
    await new Promise((resolve) => setTimeout(resolve, 5));
    await machine.killDevice('gpu0');
    await outcome;
    await expect(mirror.launch('touch', launch)).rejects.toMatchObject({ code: 'ERR_PFNLESS_DEVICE_LOST' });
    await expect(process.read(range.start, 4)).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT', signal: 'SIGBUS' });
    const second = await process.mirror(1);
    const other = await process.mmap({ length: PAGE });
    await second.launch('fill', { lanes: 4, args: { target: other.start, count: 4, value: 5, step: 1 } });
    expect(await process.readArray('i32', other.start, 4)).toEqual(Int32Array.of(5, 6, 7, 8));
    expect((await machine.stats()).devices.map(({ lost }) => lost !== null)).toEqual([true, false]);
    expect(await machine.check()).toEqual([]);
    await process.exit();
  });
});

describe('boot', () => {
  it('says which request found no address space, and leaves nothing behind', async () => {
    await expect(boot({ preset: 'pci-window', addressing: 'legacy', executor: 'inline' })).rejects.toMatchObject({
      code: 'ERR_PFNLESS_BOOT',
      errno: 'ERANGE',
      message:
        'gpu0 got no device memory under legacy addressing: no physical address space is free for 32 MiB (ERANGE).',
      failed: { device: 'gpu0', bytes: 32 * 2 ** 20, errno: 'ERANGE' },
      iomem: expect.stringContaining('System RAM'),
    });
  });

  it('ends the CPUs that it has started when this computer cannot hold another', async () => {
    const threads = () => process.getActiveResourcesInfo().filter((name) => name === 'MessagePort').length;
    const before = threads();
    let blocks = 0;
    vi.stubGlobal(
      'SharedArrayBuffer',
      class extends SharedArrayBuffer {
        constructor(bytes: number) {
          if (bytes === CPU_BLOCK_BYTES && ++blocks === 3) throw new RangeError('no room');
          super(bytes);
        }
      },
    );
    try {
      await expect(boot({ executor: 'threads', cpus: 4, memory: { ram: '16MiB' }, devices: [] })).rejects.toMatchObject(
        {
          code: 'ERR_PFNLESS_BOOT',
          message: expect.stringMatching(/cannot hold the block of CPU 3/),
        },
      );
    } finally {
      vi.unstubAllGlobals();
    }
    expect(blocks).toBe(3);
    expect(threads()).toBe(before);
  });

  it('boots a machine without devices', async () => {
    const machine = await boot({ executor: 'inline', memory: { ram: '16MiB' }, devices: [] });
    machines.push(machine);
    expect(machine.deviceCount).toBe(0);
    expect(await machine.check()).toEqual([]);
  });
});
