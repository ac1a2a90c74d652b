/**
 * Processes that fork, write, pin and migrate at random on a machine with two coherent devices and a private one, all at the
 * same time, against a model of what each process has written. Inline, the schedule is drawn from the same seed.
 */
import { expect, test } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { createRandom, type Random } from '#src/base/random';
import { boot } from '#src/check/boot';
import type { Machine, Mirror, Process, VirtRange } from '#src/machine/types';
import { errnoOf, PAGE, part } from './coherent-rig.js';

const PAGES = 24;
const STEPS = 40;
const ROUNDS = 3;
const PROCESSES_MAX = 5;

/** What the first word of each page and all others are. */
interface Model {
  readonly first: Uint32Array;
  readonly rest: Uint32Array;
}

interface Party {
  readonly process: Process;
  readonly model: Model;
  readonly mirrors: readonly Mirror[];
}

interface World {
  readonly machine: Machine;
  readonly random: Random;
  readonly range: VirtRange;
  readonly parties: Set<Party>;
}

async function join(world: World, process: Process, model: Model): Promise<Party> {
  const mirrors: Mirror[] = [];
  for (let device = 0; device < 3; device++) {
    const onFault = world.random.below(2) === 0 ? 'mirror' : 'migrate';
    mirrors.push(await process.mirror(device, { onFault }));
  }
  const party = { process, model, mirrors };
  world.parties.add(party);
  return party;
}

const fill = (value: number): Uint8Array => new Uint8Array(new Uint32Array(PAGE / 4).fill(value).buffer);

function expectPage(bytes: Uint8Array, { first, rest }: Model, page: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, PAGE / 4);
  expect({ page, first: words[0], rest: words[1], last: words.at(-1) }).toEqual({
    page,
    first: first[page],
    rest: rest[page],
    last: rest[page],
  });
}

/** Something at random; afterwards the model says what the process must read. */
async function step(world: World, party: Party): Promise<void> {
  const { random, range } = world;
  const { process, model, mirrors } = party;
  const page = random.below(PAGES);
  const some = part(range, page, 1 + random.below(PAGES - page));
  const one = part(range, page, 1);
  const mirror = mirrors[random.below(3)]!;
  const value = random.next();
  switch (random.below(13)) {
    case 0:
    case 1:
      await process.write(one.start, fill(value));
      model.first[page] = model.rest[page] = value;
      return;
    case 2:
      return expectPage(await process.read(one.start, PAGE), model, page);
    case 3:
    case 4:
      await mirror.migrate(some, 'device');
      return;
    case 5:
      await mirror.migrate(some, 'system');
      return;
    case 6:
      return expectPage(await mirror.read(one.start, PAGE), model, page);
    case 7: {
      // A page that is shared on the private device cannot be written there, nor by others while it is there (fact 17).
      const outcome = await errnoOf(mirror.write(one.start, fill(value)));
      if (outcome === undefined) model.first[page] = model.rest[page] = value;
      else expect([outcome, mirror.device]).toEqual(['EFAULT', 2]);
      return;
    }
    case 8: {
      const pages = some.length / PAGE;
      const work = { target: some.start, count: pages, stride: PAGE, by: 3 };
      await mirrors[random.below(2)]!.launch('atomic-increment', { lanes: 8, args: work });
      for (let at = page; at < page + pages; at++) model.first[at]! += 3;
      return;
    }
    case 9: {
      const kind = random.below(2) === 0 ? 'longterm' : 'get';
      const pin = await process
        .pin(some, { kind, write: random.below(2) === 0 })
        .catch((error) => error.errno as string);
      await process.write(one.start, fill(value));
      model.first[page] = model.rest[page] = value;
      // Somebody may be at work on a page on a device just when it has to leave for good.
      if (typeof pin === 'string') return expect([pin, kind]).toEqual(['EBUSY', 'longterm']);
      if (kind === 'longterm') expectPage((await pin.read()).subarray(0, PAGE), model, page);
      return pin.release();
    }
    case 10:
      // It may have lost the page again by the time it looks.
      expect([0, 'ENOENT']).toContain((await mirror.exclusive(one)).errno);
      return;
    case 11:
      await process.madvise(one, 'DONTNEED');
      model.first[page] = model.rest[page] = 0;
      return;
    default:
      if (world.parties.size >= PROCESSES_MAX) return;
      await join(world, await process.fork(), { first: model.first.slice(), rest: model.rest.slice() });
  }
}

async function steps(world: World, party: Party): Promise<void> {
  for (let i = 0; i < STEPS; i++) await step(world, party);
}

/** Somebody who moves the pages of a process while it works with them, and changes nothing of what they hold. */
async function move({ random, range }: World, { mirrors }: Party): Promise<void> {
  for (let i = 0; i < STEPS / 4; i++) {
    const page = random.below(PAGES);
    const some = part(range, page, 1 + random.below(PAGES - page));
    await mirrors[random.below(3)]!.migrate(some, random.below(2) === 0 ? 'device' : 'system');
  }
}

async function story({ addressing, executor }: (typeof VARIANTS)[number], seed: number): Promise<void> {
  await using machine = await boot({
    addressing,
    executor,
    schedule: 'random',
    seed,
    memory: { ram: '32MiB' },
    devices: [{ type: 'coherent', memory: '2MiB' }, { type: 'coherent', memory: '2MiB' }, { memory: '2MiB' }],
  });
  const before = (await machine.stats()).freeRamPages;
  const process = await machine.process();
  const range = await process.mmap({ length: PAGES * PAGE });
  const world: World = { machine, random: createRandom(seed), range, parties: new Set() };
  await join(world, process, { first: new Uint32Array(PAGES), rest: new Uint32Array(PAGES) });
  for (let round = 0; round < ROUNDS; round++) {
    await Promise.all([...world.parties].flatMap((party) => [steps(world, party), move(world, party)]));
    expect(await machine.check()).toEqual([]);
    const [oldest, ...children] = [...world.parties];
    if (children.length > 1) {
      await oldest!.process.exit();
      world.parties.delete(oldest!);
    }
    for (const { process: each, model } of world.parties) {
      for (let page = 0; page < PAGES; page++) {
        expectPage(await each.read((range.start + page * PAGE) as VirtAddr, PAGE), model, page);
      }
    }
  }
  for (const { process: each } of world.parties) await each.exit();
  expect(await machine.check()).toEqual([]);
  const { devices, freeRamPages } = await machine.stats();
  expect(devices.map(({ usedPages }) => usedPages)).toEqual([0, 0, 0]);
  expect(freeRamPages).toBe(before);
}

const VARIANTS = (['legacy', 'offset'] as const).flatMap((addressing) => [
  { addressing, executor: 'inline' as const, seeds: 8 },
  { addressing, executor: 'threads' as const, seeds: 2 },
]);

test.each(VARIANTS)('random processes on coherent and private devices ($executor, $addressing)', async (variant) => {
  for (let seed = 1; seed <= variant.seeds; seed++) {
    try {
      await story(variant, seed);
    } catch (cause) {
      throw new Error(`seed ${seed}: ${(cause as Error).message}`, { cause });
    }
  }
});
