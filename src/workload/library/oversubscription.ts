/**
 * Oversubscription: each device works on several times as much data as it has memory, so its driver must push pages out to
 * let others in, all the time. The data is worked on in pieces; the pages of one come by faults, those of the next are moved
 * over by the host ahead of the work, and so on, so that either way has to evict.
 *
 * Devices change some words of every page; the CPU then looks at all words. What a word started with is a function of its
 * index, so that nothing as large as the working set has to be remembered.
 */
import { PAGE_SIZE } from '../../abi/address.js';
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
/** Pieces that a device's memory is worth: one is worked on at a time. */
const PIECES_PER_MEMORY = 4;

export const oversubscriptionWorkload: Workload = {
  name: 'oversubscription',
  summary: 'each device works on more data than it has memory',
  defaultSize: 2,
  sizes: { min: 2, max: 16, meaning: "times each device's memory" },
  footprint: ({ size, deviceMemory }) => deviceMemory.reduce((sum, memory) => sum + size * memory, 0),
  run,
};

/** What the words of a piece hold before the devices come; `first` is the index of its first word. */
function oversubscriptionPattern(values: Int32Array, salt: number, first: number): void {
  for (let i = 0; i < values.length; i++) values[i] = Math.imul(first + i, 0x9e3779b1) ^ salt;
}

/** What they hold in the end, if the device adds `by`. */
export function oversubscriptionReference(values: Int32Array, salt: number, first: number, by: number): void {
  oversubscriptionPattern(values, salt, first);
  for (let i = 0; i < values.length; i += SPACING) values[i]! += by;
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

  await together(
    sets.map(async (set) => {
      for (const piece of piecesOf(set)) {
        if (!piece.isFaulted) await set.mirror.migrate(rangeOf(set, piece), 'device');
        await addAll(set, piece);
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
  /** Its pages come to the device by faults; else the host moves them. */
  readonly isFaulted: boolean;
}

function* piecesOf({ pages, pagesPerPiece }: WorkingSet): Generator<Piece> {
  for (let piece = 0; piece * pagesPerPiece < pages; piece++) {
    const firstPage = piece * pagesPerPiece;
    yield { firstPage, pages: Math.min(pagesPerPiece, pages - firstPage), isFaulted: piece % 2 === 0 };
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
    const part = values.subarray(0, piece.pages * WORDS_PER_PAGE);
    oversubscriptionPattern(part, set.salt, first);
    await words.write(part, first);
  }
  return set;
}

const addedTo = ({ isFaulted }: Piece): number => (isFaulted ? FAULTED_ADDS : MIGRATED_ADDS);

async function addAll(set: WorkingSet, piece: Piece): Promise<void> {
  const target = set.words.at(piece.firstPage * WORDS_PER_PAGE);
  const args = { target, count: piece.pages * CHANGES_PER_PAGE, stride: SPACING * 4, by: addedTo(piece) };
  await set.mirror.launch('increment', { lanes: lanesFor(piece.pages, PAGES_PER_LANE), args });
}

/** Bring the pages home in bulk, piece by piece, and look at every word. */
async function verify(set: WorkingSet): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  const values = new Int32Array(set.pagesPerPiece * WORDS_PER_PAGE);
  for (const piece of piecesOf(set)) {
    await set.mirror.migrate(rangeOf(set, piece), 'system');
    const first = piece.firstPage * WORDS_PER_PAGE;
    const expected = values.subarray(0, piece.pages * WORDS_PER_PAGE);
    oversubscriptionReference(expected, set.salt, first, addedTo(piece));
    const actual = await set.words.read(first, expected.length);
    comparisons.push(compare(`device ${set.mirror.device}, word`, expected, actual, first));
  }
  return comparisons;
}
