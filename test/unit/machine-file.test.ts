/** Files as users hold them: arguments, lives, and programs of devices that work on them. */
import { boot, type Machine, type MachineFile, type Process } from 'pfnless';
import { afterEach, describe, expect, it } from 'vitest';

const PAGE = 4096;
const WORDS = PAGE / 4;
const machines: Machine[] = [];

async function bootSmall(executor: 'inline' | 'threads' = 'inline', addressing: 'legacy' | 'offset' = 'offset') {
  const machine = await boot({
    ...{ executor, addressing },
    memory: { ram: '32MiB' },
    devices: [{ memory: '4MiB', chunk: '2MiB' }],
  });
  machines.push(machine);
  return machine;
}

afterEach(async () => {
  await Promise.all(machines.splice(0).map((machine) => machine.dispose()));
});

describe('arguments', () => {
  type Call = (machine: Machine, process: Process, file: MachineFile) => Promise<unknown>;
  const REFUSED: readonly (readonly [name: string, call: Call, message: RegExp])[] = [
    ['a file of nothing', (m) => m.file(undefined as never), /a Uint8Array or of a size, not of undefined/],
    ['a file of text', (m) => m.file('abc' as never), /not of "abc"/],
    ['a file of numbers', (m) => m.file([1] as never), /not of a list/],
    ['half a byte', (m) => m.file({ size: 0.5 }), /size of a file must be a whole number from 0 .*not 0\.5/],
    ['less than nothing', (m) => m.file({ size: -1 }), /not -1/],
    ['too much', (m) => m.file({ size: 2 ** 60 }), /to 281474976710656/],
    ['read before the start', (_m, _p, file) => file.read(-1, 1), /offset in a file must be/],
    ['read of too much', (_m, _p, file) => file.read(0, 2 ** 40), /length must be/],
    ['write of numbers', (_m, _p, file) => file.write(0, [1] as never), /must be a Uint8Array/],
    ['truncate to text', (_m, _p, file) => file.truncate('1' as never), /not "1"/],
    ['stored', (_m, _p, file) => file.stored(0, -1), /length must be/],
    ['mmap of an object', (_m, p) => p.mmap({ length: 1, file: {} as never }), /must be what machine\.file\(\)/],
    ['mmap at byte 1', (_m, p, file) => p.mmap({ length: 1, file, offset: 1 }), /begin at a page of its file/],
    ['mmap at -1', (_m, p, file) => p.mmap({ length: 1, file, offset: -PAGE }), /offset of a mapping must be/],
    ['an offset in nothing', (_m, p) => p.mmap({ length: 1, offset: PAGE }), /needs the file/],
    ['msync of half a page', (_m, p) => p.msync({ start: 0 as never, length: 1 }), /whole pages/],
  ];

  it('are refused with a sentence', async () => {
    const machine = await bootSmall();
    const process = await machine.process();
    const file = await machine.file({ size: PAGE });
    for (const [name, call, message] of REFUSED) {
      const error = await call(machine, process, file).then(
        () => null,
        (reason: unknown) => reason,
      );
      expect(error, name).toMatchObject({ code: 'ERR_PFNLESS_ARGUMENT', message: expect.stringMatching(message) });
    }
    const other = await bootSmall();
    const mapped = (await other.process()).mmap({ length: 1, file });
    await expect(mapped).rejects.toMatchObject({ code: 'ERR_PFNLESS_ARGUMENT', message: /another machine/ });
  });
});

describe('lives', () => {
  it('a file is closed once; what is mapped of it stays until it is unmapped', async () => {
    const machine = await bootSmall();
    const process = await machine.process();
    await process.write((await process.mmap({ length: 1 })).start, Uint8Array.of(1));
    const before = (await machine.stats()).freeRamPages;
    const file = await machine.file(new Uint8Array(3 * PAGE).fill(7));
    const range = await process.mmap({ length: 3 * PAGE, file, shared: true });
    await process.write(range.start, Uint8Array.of(8));
    await file.close();
    await file.close();
    for (const late of [file.read(0, 1), file.sync(), process.mmap({ length: 1, file }), file.cached()]) {
      await expect(late).rejects.toMatchObject({ code: 'ERR_PFNLESS_DISPOSED', message: /file .* is closed/ });
    }
    expect([...(await process.read(range.start, 2))]).toEqual([8, 7]);
    expect((await machine.stats()).freeRamPages).toBe(before - 1);
    await process.munmap(range);
    expect((await machine.stats()).freeRamPages).toBe(before);
  });

  it('mmap and close of one file at once: the mapping has got it, or the call comes too late', async () => {
    const machine = await bootSmall();
    const process = await machine.process();
    const file = await machine.file(new Uint8Array(PAGE).fill(7));
    const [range] = await Promise.all([process.mmap({ length: PAGE, file }), file.close()]);
    expect([...(await process.read(range.start, 1))]).toEqual([7]);
    expect(await machine.check()).toEqual([]);
  });

  it('a machine goes with its open files and their mappings', async () => {
    const machine = await bootSmall();
    const process = await machine.process();
    const file = await machine.file({ size: PAGE });
    await process.mmap({ length: PAGE, file });
    await machine.dispose();
    await expect(file.read(0, 1)).rejects.toMatchObject({ code: 'ERR_PFNLESS_DISPOSED' });
    await expect(machine.file({ size: 1 })).rejects.toMatchObject({ code: 'ERR_PFNLESS_DISPOSED' });
  });

  it('the cache, the disk and the mappings, step by step', async () => {
    const machine = await bootSmall();
    const process = await machine.process();
    await using file = await machine.file(new Uint8Array(2 * PAGE).fill(1));
    expect([await file.cached(), file.size]).toEqual([[], 2 * PAGE]);
    const range = await process.mmap({ length: PAGE, file, offset: PAGE, shared: true });
    expect([...(await process.mincore(range))]).toEqual([0]);
    await process.write(range.start, Uint8Array.of(2));
    expect([await file.cached(), ...(await file.read(PAGE, 2)), ...(await file.stored(PAGE, 2))]).toEqual([
      [1],
      ...[2, 1],
      ...[1, 1],
    ]);
    await process.msync(range);
    expect([...(await file.stored(PAGE, 2))]).toEqual([2, 1]);
    await file.truncate(PAGE);
    await expect(process.read(range.start, 1)).rejects.toMatchObject({ signal: 'SIGBUS', errno: 'EFAULT' });
    expect(await file.write(2 * PAGE - 1, Uint8Array.of(3))).toBe(1);
    expect([...(await process.read(range.start, 1)), ...(await file.read(2 * PAGE - 2, 9))]).toEqual([0, 0, 3]);
    await expect(process.msync({ start: 0x10000 as never, length: PAGE })).rejects.toMatchObject({ errno: 'ENOMEM' });
  });
});

describe.each([
  ['inline', 'legacy'],
  ['inline', 'offset'],
  ['threads', 'legacy'],
  ['threads', 'offset'],
] as const)('programs of a device (%s, %s)', (executor, addressing) => {
  const contents = () => new Uint8Array(new Uint32Array(16 * WORDS).fill(40).buffer);
  const increment = { lanes: 64, args: { target: 0, count: 16 * WORDS, stride: 4, by: 2 } };
  const at = (target: number) => ({ ...increment, args: { ...increment.args, target } });
  const sums = (bytes: Uint8Array) => new Set(new Uint32Array(bytes.slice().buffer));

  it('work on a shared mapping: the file has it, once it is synced the disk too', async () => {
    const machine = await bootSmall(executor, addressing);
    const process = await machine.process();
    const file = await machine.file(contents());
    const range = await process.mmap({ length: 16 * PAGE, file, shared: true });
    const mirror = await process.mirror(0);
    for (const value of [42, 44]) {
      await mirror.launch('increment', at(range.start));
      expect(sums(await file.read(0, file.size))).toEqual(new Set([value]));
      await file.sync();
      expect(sums(await file.stored(0, file.size))).toEqual(new Set([value]));
    }
    // Such pages cannot be the device's alone, which atomics need.
    const launch = mirror.launch('atomic-increment', at(range.start));
    await expect(launch).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT', errno: 'EOPNOTSUPP' });
    expect((await machine.stats()).devices[0]!.usedPages).toBe(0);
    expect(await machine.check()).toEqual([]);
  });

  it('work on a file while it is written back again and again: nothing is lost', async () => {
    const machine = await bootSmall(executor, addressing);
    const process = await machine.process();
    const file = await machine.file(contents());
    const range = await process.mmap({ length: 16 * PAGE, file, shared: true });
    const mirror = await process.mirror(0);
    let working = true;
    const work = async () => {
      for (let round = 0; round < 8; round++) await mirror.launch('increment', at(range.start));
      working = false;
    };
    let syncs = 0;
    const sync = async () => {
      for (; working; syncs++) await (syncs % 2 === 0 ? file.sync() : process.msync(range));
    };
    await Promise.all([work(), sync()]);
    await file.sync();
    expect(syncs).toBeGreaterThan(0);
    expect(sums(await file.stored(0, file.size))).toEqual(new Set([56]));
    expect(await machine.check()).toEqual([]);
  });

  it('work on a private mapping: copies, which move to the device, by atomics too', async () => {
    const machine = await bootSmall(executor, addressing);
    const process = await machine.process();
    const file = await machine.file(contents());
    const mirror = await process.mirror(0);
    for (const program of ['increment', 'atomic-increment']) {
      const range = await process.mmap({ length: 16 * PAGE, file });
      await mirror.launch(program, at(range.start));
      expect(sums(await process.read(range.start, range.length))).toEqual(new Set([42]));
    }
    expect(sums(await file.read(0, file.size))).toEqual(new Set([40]));
    expect(await machine.check()).toEqual([]);
  });

  it("atomics on shared anonymous memory and on a driver's pages end, too", async () => {
    const machine = await bootSmall(executor, addressing);
    const process = await machine.process();
    const mirror = await process.mirror(0);
    for (const options of [{ shared: true }, { file: mirror }, { file: mirror, shared: true }]) {
      const range = await process.mmap({ length: 16 * PAGE, ...options });
      const launch = mirror.launch('atomic-increment', at(range.start));
      await expect(launch).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT', errno: 'EOPNOTSUPP' });
      await mirror.launch('increment', at(range.start));
      expect(sums(await process.read(range.start, range.length))).toEqual(new Set([2]));
    }
    expect(await machine.check()).toEqual([]);
  });
});
