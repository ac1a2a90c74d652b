/**
 * Calls that run beside the actors: everything that moves, shares, holds or takes away pages while somebody uses them. What a call
 * may change of memory is told to the table before the episode begins; what it leaves is put right after it.
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { Random } from '../base/random.js';
import type { Mirror, Pin, VirtRange } from '../machine/types.js';
import type { Unsteady } from './actor.js';
import { NO_WRITER, type Region, type Subject } from './region.js';

/** What an episode's calls need beside their own arguments. */
export interface CallWorld {
  readonly random: Random;
  readonly unsteady: Unsteady;
  /** Regions of which something is taken away: once in an episode is enough. */
  readonly taken: Set<Region>;
  /** Pins that are released when the episode is over. */
  readonly pins: Pin[];
  /** Addresses that were never used before. */
  freshAddress(bytes: number): VirtRange['start'];
}

/** A call that has been drawn. */
export interface DrawnCall {
  readonly name: string;
  run(): Promise<void>;
  /**
   * At a quiet moment after it, with nothing injected: make the region usable again, and the table right.
   * @param succeeded whether `run` has
   */
  after?(succeeded: boolean): Promise<void>;
}

type Drawer = (subject: Subject, region: Region, world: CallWorld) => DrawnCall | null;

/** Pages of a region, as a range: some that follow each other, or all. */
function someRange(region: Region, { random }: CallWorld, pagesMax = 16): VirtRange {
  if (random.below(4) === 0 && pagesMax >= 16) return region.range;
  const first = region.pages[random.below(region.pages.length)]!;
  const pages = 1 + random.below(Math.min(pagesMax, region.bytes / PAGE_SIZE - first));
  return { start: (region.start + first * PAGE_SIZE) as VirtRange['start'], length: pages * PAGE_SIZE };
}

const onMirror =
  (name: string, call: (mirror: Mirror, range: VirtRange) => Promise<unknown>): Drawer =>
  (subject, region, world) => {
    const open = [...subject.mirrors.values()];
    if (open.length === 0) return null;
    const mirror = open[world.random.below(open.length)]!;
    const range = someRange(region, world);
    return { name, run: async () => void (await call(mirror, range)) };
  };

const onRange =
  (name: string, call: (subject: Subject, range: VirtRange) => Promise<unknown>): Drawer =>
  (subject, region, world) => {
    const range = someRange(region, world);
    return { name, run: async () => void (await call(subject, range)) };
  };

/** Calls after which every word holds what it held. */
const HARMLESS: readonly Drawer[] = [
  onMirror('migrate to device', (mirror, range) => mirror.migrate(range, 'device')),
  onMirror('migrate to device', (mirror, range) => mirror.migrate(range, 'device')),
  onMirror('migrate to device', (mirror, range) => mirror.migrate(range, 'device')),
  onMirror('migrate to RAM', (mirror, range) => mirror.migrate(range, 'system')),
  onMirror('take for atomics', (mirror, range) => mirror.exclusive(range)),
  onMirror('read pages', (mirror, range) => mirror.readPages(range)),
  onMirror('snapshot', (mirror, range) => mirror.snapshot(range)),
  onMirror('give up device memory', (mirror) => mirror.releaseChunks()),
  onRange('collapse', ({ process }, range) => process.madvise(range, 'COLLAPSE')),
  onRange('page out', ({ process }, range) => process.madvise(range, 'PAGEOUT')),
  onRange('page in', ({ process }, range) => process.madvise(range, 'WILLNEED')),
  onRange('advise huge pages', ({ process }, range) => process.madvise(range, 'HUGEPAGE')),
  onRange('advise small pages', ({ process }, range) => process.madvise(range, 'NOHUGEPAGE')),
  onRange('lock', ({ process }, range) => process.mlock(range)),
  onRange('unlock', ({ process }, range) => process.munlock(range)),
  onRange('unlock', ({ process }, range) => process.munlock(range)),
  onRange('smaps', ({ process }, range) => process.smaps(range)),
  onRange('pagemap', ({ process }, range) => process.pagemap(range)),
  onRange('clear soft-dirty', ({ process }) => process.clearRefs('soft-dirty')),
  onRange('clear accessed', ({ process }) => process.clearRefs('all')),
  (subject, region, world) => {
    const range = someRange(region, world);
    const kind = world.random.below(2) === 0 ? ('longterm' as const) : ('get' as const);
    const write = world.random.below(2) === 0;
    return {
      name: 'pin',
      run: async () => void world.pins.push(await subject.process.pin(range, { kind, write })),
    };
  },
];

/** Calls that take something away. */
const TAKING: readonly Drawer[] = [
  (subject, region, world) => {
    const { process } = subject;
    const range = someRange(region, world, 4);
    const words = region.wordsIn(range);
    // Of shared memory the contents stay.
    if (region.kind !== 'shared') world.unsteady.zero(region, words);
    return {
      name: 'madvise DONTNEED',
      run: () => process.madvise(range, 'DONTNEED'),
      async after(succeeded) {
        if (!succeeded || region.kind === 'shared') return;
        for (const word of words) if (region.writers[word] === NO_WRITER) region.last.set(word, 0);
      },
    };
  },
  (subject, region, world) => {
    if (region.kind === 'shared') return null;
    const { process } = subject;
    const range = someRange(region, world, 4);
    const words = region.wordsIn(range);
    world.unsteady.unmap(region, words);
    return {
      name: 'munmap',
      run: () => process.munmap(range),
      async after() {
        // Whatever has become of it, there is new memory now.
        await process.mmap({ length: range.length, at: range.start });
        for (const word of words) region.last.set(word, 0);
      },
    };
  },
  (subject, region, world) => {
    const { process } = subject;
    const range = someRange(region, world, 4);
    world.unsteady.unmap(region, region.wordsIn(range));
    const protection = world.random.below(2) === 0 ? 'none' : 'r';
    return {
      name: 'mprotect',
      async run() {
        await process.mprotect(range, protection);
        await process.mprotect(range, 'rw');
      },
      after: () => process.mprotect(range, 'rw'),
    };
  },
  (subject, region, world) => {
    if (region.kind !== 'anonymous') return null;
    const { range } = region;
    world.unsteady.unmap(region, region.wordsIn(range));
    const to = world.freshAddress(region.bytes);
    return {
      name: 'mremap',
      run: async () => void (await subject.process.mremap(range, { to })),
      async after(succeeded) {
        if (succeeded) region.start = to;
      },
    };
  },
];

/** One in so many calls takes something away. */
const TAKING_ODDS = 4;

/** Draw a call on memory of the subject; `null` where there is nothing to call. */
export function drawCall(subject: Subject, world: CallWorld): DrawnCall | null {
  const { random, taken } = world;
  const region = subject.regions[random.below(subject.regions.length)];
  if (region === undefined) return null;
  if (random.below(TAKING_ODDS) !== 0) return HARMLESS[random.below(HARMLESS.length)]!(subject, region, world);
  if (taken.has(region)) return null;
  const call = TAKING[random.below(TAKING.length)]!(subject, region, world);
  if (call !== null) taken.add(region);
  return call;
}
