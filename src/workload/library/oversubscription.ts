/**
 * Oversubscription: each device works on several times as much data as it has memory, so its driver must push pages out to
 * let others in, all the time. Once the pages come by faults, once the host moves them over in pieces ahead of the work.
 *
 * Devices change some words of every page; the CPU then looks at all words. What a word started with is a function of its
 * index, so that nothing as large as the working set has to be remembered.
 */
import { PAGE_SIZE } from '../../abi/address.js';
import type { VirtAddr } from '../../base/brand.js';
import type { Mirror, VirtRange } from '../../machine/types.js';
import { allocate, type Comparison, compare, compareAll, type SharedArray } from '../arrays.js';
import { lanesFor, together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

/** Words from one that devices change to the next. */
const SPACING = 64;
const CHANGES_PER_PAGE = PAGE_SIZE / 4 / SPACING;
const PAGES_PER_LANE = 4;
const FAULTED_ADDS = 3;
const MIGRATED_ADDS = 5;
/** Pieces that a device's memory is worth: the host moves and checks one at a time. */
const PIECES_PER_MEMORY = 4;

export const oversubscriptionWorkload: Workload = {
  name: 'oversubscription',
  summary: 'each device works on more data than it has memory, and pages are evicted all the time',
  defaultSize: 2,
  sizes: { min: 2, max: 16, meaning: "times each device's memory" },
  footprint: ({ size, deviceMemory }) => deviceMemory.reduce((sum, memory) => sum + size * memory, 0),
  run,
};

/** What word `index` holds before the devices come. */
export function oversubscriptionPattern(salt: number, index: number): number {
  return Math.imul(index, 0x9e3779b1) ^ salt;
}

/** What word `index` holds in the end. */
export function oversubscriptionReference(salt: number, index: number): number {
  const added = index % SPACING === 0 ? FAULTED_ADDS + MIGRATED_ADDS : 0;
  return (oversubscriptionPattern(salt, index) + added) | 0;
}

/** A device and the data that only it works on. */
interface WorkingSet {
  readonly mirror: Mirror;
  readonly words: SharedArray<'i32'>;
  readonly salt: number;
  readonly pages: number;
  readonly pagesPerPiece: number;
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const sets: WorkingSet[] = [];
  for (const mirror of env.mirrors) sets.push(await prepare(env, mirror));

  await together(sets.map((set) => addAll(set, { firstPage: 0, pages: set.pages }, FAULTED_ADDS)));
  await together(
    sets.map(async (set) => {
      for (const piece of piecesOf(set)) {
        await set.mirror.migrate(rangeOf(set, piece), 'device');
        await addAll(set, piece, MIGRATED_ADDS);
      }
    }),
  );

  const comparisons: Comparison[] = [];
  for (const set of sets) comparisons.push(...(await verify(set)));
  const pages = sets.reduce((sum, set) => sum + set.pages, 0);
  return { ...compareAll(comparisons), expectFaults: 1, expectMigrations: pages };
}

/** Some pages of a working set. */
interface Piece {
  readonly firstPage: number;
  readonly pages: number;
}

function* piecesOf({ pages, pagesPerPiece }: WorkingSet): Generator<Piece> {
  for (let firstPage = 0; firstPage < pages; firstPage += pagesPerPiece) {
    yield { firstPage, pages: Math.min(pagesPerPiece, pages - firstPage) };
  }
}

const WORDS_PER_PAGE = PAGE_SIZE / 4;

function rangeOf({ words }: WorkingSet, { firstPage, pages }: Piece): VirtRange {
  return { start: words.at(firstPage * WORDS_PER_PAGE), length: pages * PAGE_SIZE };
}

async function prepare(env: WorkloadEnv, mirror: Mirror): Promise<WorkingSet> {
  const memoryPages = env.machine.spec.devices[mirror.device]!.memory / PAGE_SIZE;
  const pages = env.size * memoryPages;
  const words = await allocate(env, 'i32', pages * WORDS_PER_PAGE);
  const pagesPerPiece = Math.ceil(memoryPages / PIECES_PER_MEMORY);
  const set: WorkingSet = { mirror, words, salt: env.random.next(), pages, pagesPerPiece };
  const values = new Int32Array(pagesPerPiece * WORDS_PER_PAGE);
  for (const piece of piecesOf(set)) {
    const first = piece.firstPage * WORDS_PER_PAGE;
    const count = piece.pages * WORDS_PER_PAGE;
    for (let i = 0; i < count; i++) values[i] = oversubscriptionPattern(set.salt, first + i);
    await words.write(values.subarray(0, count), first);
  }
  return set;
}

async function addAll(set: WorkingSet, { firstPage, pages }: Piece, by: number): Promise<void> {
  const target: VirtAddr = set.words.at(firstPage * WORDS_PER_PAGE);
  const args = { target, count: pages * CHANGES_PER_PAGE, stride: SPACING * 4, by };
  await set.mirror.launch('increment', { lanes: lanesFor(pages, PAGES_PER_LANE), args });
}

/** Bring the pages home in bulk, piece by piece, and look at every word. */
async function verify(set: WorkingSet): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const piece of piecesOf(set)) {
    await set.mirror.migrate(rangeOf(set, piece), 'system');
    const first = piece.firstPage * WORDS_PER_PAGE;
    const actual = await set.words.read(first, piece.pages * WORDS_PER_PAGE);
    const expected = new Int32Array(actual.length);
    for (let i = 0; i < expected.length; i++) expected[i] = oversubscriptionReference(set.salt, first + i);
    comparisons.push(compare(`device ${set.mirror.device}, word`, expected, actual, first));
  }
  return comparisons;
}
