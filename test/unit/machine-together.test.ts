/** Calls that meet: checks at the same time, stores of lanes after a fork, arguments that change, programs that throw anything. */
import { boot, type Machine, type VirtRange } from 'pfnless';
import { afterEach, describe, expect, test } from 'vitest';

const PAGE = 4096;
const machines: Machine[] = [];

async function scene(executor: 'inline' | 'threads', onFault: 'migrate' | 'mirror' = 'migrate') {
  const machine = await boot({ executor, memory: { ram: '32MiB' }, devices: [{ memory: '4MiB', chunk: '4MiB' }] });
  machines.push(machine);
  const process = await machine.process();
  const range = await process.mmap({ length: 4 * PAGE });
  await process.writeArray('u32', range.start, new Uint32Array(PAGE).fill(41));
  return { machine, process, range, mirror: await process.mirror(0, { onFault }) };
}

afterEach(async () => {
  for (const machine of machines.splice(0)) {
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  }
});

/** One lane that stores 1 to the first word of each page, atomically or not. */
const STORE = new URL(
  'data:text/javascript,export default (ctx, { at, pages, atomic }) => { for (let i = 0; i < pages; i++) { if (atomic) ctx.atomicExchange(at + i * 4096, 1); else ctx.storeI32(at + i * 4096, 1); } }',
);
const storeTo = ({ start, length }: VirtRange, atomic: number) => ({
  lanes: 1,
  args: { at: start, pages: length / PAGE, atomic },
});

describe.each(['inline', 'threads'] as const)('%s', (executor) => {
  test('checks at the same time see no task of each other', async () => {
    const { machine, process } = await scene(executor);
    for (let round = 0; round < 5; round++) {
      const both = await Promise.all([machine.check(), machine.settle(), machine.check(), process.status()]);
      expect([both[0], both[2]]).toEqual([[], []]);
    }
  });

  test.each([
    ['migrate', 'RAM', 0],
    ['migrate', 'RAM', 1],
    ['migrate', 'the device', 0],
    ['migrate', 'the device', 1],
    ['mirror', 'RAM', 0],
    ['mirror', 'the device', 0],
  ] as const)('a lane writes to what fork has made shared (%s, in %s, atomic %i)', async (onFault, place, atomic) => {
    const { machine, process, range, mirror } = await scene(executor, onFault);
    if (place === 'the device') await mirror.migrate(range, 'device');
    const child = await process.fork();
    await mirror.launch(STORE, storeTo(range, atomic));
    const first = async (of: typeof process) =>
      (await of.readArray('u32', range.start, PAGE)).filter((_, i) => i % 1024 === 0);
    expect([...(await first(process)), ...(await first(child))]).toEqual([1, 1, 1, 1, 41, 41, 41, 41]);
    await child.exit();
    await mirror.launch(STORE, storeTo(range, atomic));
    expect(await machine.check()).toEqual([]);
  });

  test.each([0, 1])('and to what is watched for stores, which is seen (atomic %i)', async (atomic) => {
    const { process, range, mirror } = await scene(executor);
    await process.clearRefs('soft-dirty');
    await mirror.launch(STORE, storeTo({ start: range.start, length: PAGE }, atomic));
    const dirty = Array.from(await process.pagemap(range), (word) => Number((word >> 55n) & 1n));
    expect(dirty).toEqual([1, 0, 0, 0]);
  });

  test('words are written as they were when the call was made', async () => {
    const { process, range, mirror } = await scene(executor);
    const words: unknown[] = [1n, 2n, 3n, 4n];
    const writing = mirror.writePages(range, words as bigint[]);
    words.fill('x');
    expect(await writing).toMatchObject({ errno: 0, pages: 4 });
    expect((await process.readArray('u32', range.start, PAGE))[1024]).toBe(2);
  });

  test.each([
    ['an object without text', 'throw Object.create(null)', /throw.* no text/],
    ['an error whose text throws', 'throw { toString() { throw 1 } }', /throw.* no text/],
    ['very much', "throw 'x'.repeat(1e6)", /: x{1000}\.\.\.$/],
  ])('a program that throws %s has failed, and no more', async (_what, body, message) => {
    const { mirror, range } = await scene(executor);
    const program = new URL(`data:text/javascript,export default () => { ${body} }`);
    await expect(mirror.launch(program, { lanes: 1 })).rejects.toMatchObject({
      code: 'ERR_PFNLESS_PROGRAM',
      message: expect.stringMatching(message),
    });
    await mirror.launch(STORE, storeTo(range, 0));
  });

  test('an error of a program is the cause of what the launch says, and a fault names its address', async () => {
    const { mirror } = await scene(executor);
    const thrower = new URL('data:text/javascript,export default () => { undefined.x }');
    const error = await mirror.launch(thrower, { lanes: 1 }).catch((reason: Error) => reason);
    expect(error).toMatchObject({
      code: 'ERR_PFNLESS_PROGRAM',
      cause: { message: expect.stringMatching(/^TypeError/) },
    });
    expect((error as { cause: Error }).cause.stack).toMatch(/data:text\/javascript/);
    const loader = new URL('data:text/javascript,export default (ctx) => { ctx.loadI32(0x11048) }');
    await expect(mirror.launch(loader, { lanes: 1 })).rejects.toMatchObject({ signal: 'SIGSEGV', address: 0x11048 });
  });
});
