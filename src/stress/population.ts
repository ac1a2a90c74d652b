/** Between episodes: processes come and go, fork, map memory and open devices. With what is injected these may fail. */
import { HPAGE_PMD_NR, PAGE_SIZE } from '../abi/address.js';
import type { Process } from '../machine/types.js';
import { Region, type RegionKind, type Subject } from './region.js';
import type { World } from './world.js';

export const SUBJECTS_MAX = 4;
const REGIONS_MAX = 5;
const HUGE_BYTES = HPAGE_PMD_NR * PAGE_SIZE;
const SMALL_PAGES_MAX = 24;
/** Pages of a huge region that are used: at its edges, and some inside. */
const USED_OF_HUGE = [0, 1, 7, 255, 256, 511] as const;
/** Kinds of new memory, by how often they are chosen. */
const KINDS: readonly RegionKind[] = ['anonymous', 'anonymous', 'huge', 'shared'];

/** Make the population a bit different. */
export async function changePopulation(world: World): Promise<void> {
  const { random, subjects } = world;
  if (subjects.length === 0 || (subjects.length < SUBJECTS_MAX && random.below(4) === 0)) await createSubject(world);
  for (const subject of [...subjects]) {
    if (subject.regions.length === 0 || (subject.regions.length < REGIONS_MAX && random.below(2) === 0)) {
      await mapRegion(world, subject);
    }
    if (random.below(2) === 0) await openMirror(world, subject);
    if (random.below(24) === 0) await closeMirror(world, subject);
    if (subjects.length < SUBJECTS_MAX && random.below(3) === 0) await forkSubject(world, subject);
    if (subjects.length > 1 && random.below(5) === 0) await exitSubject(world, subject);
  }
}

async function createSubject(world: World): Promise<void> {
  let process: Process | undefined;
  await world.attempt(
    world.machine.process().then((created) => {
      process = created;
    }),
  );
  if (process !== undefined) world.subjects.push({ process, regions: [], mirrors: new Map() });
}

async function mapRegion(world: World, { process, regions }: Subject): Promise<void> {
  const { random } = world;
  const kind = world.pick(KINDS);
  // Shared memory becomes huge by MADV_COLLAPSE.
  const isHuge = kind === 'huge' || (kind === 'shared' && random.below(3) === 0);
  const count = isHuge ? HPAGE_PMD_NR : 1 + random.below(SMALL_PAGES_MAX);
  const bytes = isHuge ? HUGE_BYTES : count * PAGE_SIZE;
  const start = world.freshAddress(bytes);
  const pages = isHuge ? USED_OF_HUGE : Array.from({ length: count }, (_, page) => page);
  if (!(await world.attempt(process.mmap({ length: bytes, at: start, shared: kind === 'shared' })))) return;
  const region = new Region({ kind, start, bytes, pages });
  if (isHuge) await world.attempt(process.madvise(region.range, 'HUGEPAGE'));
  regions.push(region);
}

async function openMirror(world: World, { process, mirrors }: Subject): Promise<void> {
  const closed = world.living.filter((device) => !mirrors.has(device));
  if (closed.length === 0) return;
  const device = world.pick(closed);
  const onFault = world.random.below(4) === 0 ? 'mirror' : 'migrate';
  await world.attempt(process.mirror(device, { onFault }).then((mirror) => mirrors.set(device, mirror)));
}

async function closeMirror(world: World, { mirrors }: Subject): Promise<void> {
  if (mirrors.size === 0) return;
  const [device, mirror] = world.pick([...mirrors]);
  mirrors.delete(device);
  await world.attempt(mirror.close());
}

async function forkSubject(world: World, { process, regions }: Subject): Promise<void> {
  let child: Process | undefined;
  await world.attempt(
    process.fork().then((forked) => {
      child = forked;
    }),
  );
  if (child !== undefined) await adopt(world, child, regions);
}

/** A child of fork joins the others. @param regions of its parent, with what they may have held when it forked */
export async function adopt(world: World, child: Process, regions: readonly Region[]): Promise<void> {
  world.subjects.push({ process: child, regions: regions.map((region) => region.inherited()), mirrors: new Map() });
  // Its copies of the mirrors act on the parent's memory.
  for (const mirror of child.mirrors) await world.attempt(mirror.close());
}

export async function exitSubject({ subjects }: World, subject: Subject): Promise<void> {
  subjects.splice(subjects.indexOf(subject), 1);
  await subject.process.exit();
}
