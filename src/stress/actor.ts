/**
 * Actors: who loads and stores in an episode. Each has a list of operations that is planned before anything runs, so that all
 * contents that a word may come to hold are known by then; whatever it found is judged afterwards.
 *
 * A word has one writer in an episode. What the writer finds there is known exactly. Anybody else may come before or after, but
 * never sees time run backwards: stored values only grow.
 */
import { formatAddress } from '../base/bytes.js';
import type { Random } from '../base/random.js';
import type { WordOperation, WordResult } from '../machine/types.js';
import { type Content, contentText } from './last-writer.js';
import { NO_WRITER, type Region, type Subject } from './region.js';

/** One load or store of an actor. */
interface PlannedOp extends WordOperation {
  readonly region: Region;
  readonly word: number;
  /** What a load finds, where only its own stores can have changed it; `null`: whatever the table allows. */
  readonly expected: Content | null;
}

/** What came of an operation. */
export interface Answer {
  readonly outcome: WordResult['outcome'] | 'unknown';
  readonly found: number;
}

export interface Actor {
  readonly name: string;
  readonly id: number;
  readonly subject: Subject;
  readonly ops: readonly PlannedOp[];
}

/** Words that something beside stores changes in an episode. */
export class Unsteady {
  readonly #zeroed = new Map<Region, Set<number>>();
  readonly #unmapped = new Map<Region, Set<number>>();

  /** They may become zero. */
  zero(region: Region, words: readonly number[]): void {
    for (const word of words) {
      region.last.may(word, 0);
      put(this.#zeroed, region, word);
    }
  }

  /** They may not be there: SIGSEGV. */
  unmap(region: Region, words: readonly number[]): void {
    for (const word of words) put(this.#unmapped, region, word);
  }

  /** May anything of the region not be there? */
  mayLack(region: Region): boolean {
    return this.#unmapped.has(region);
  }

  mayFault(region: Region, word: number): boolean {
    return this.#unmapped.get(region)?.has(word) === true;
  }

  mayChange(region: Region, word: number): boolean {
    return this.#zeroed.get(region)?.has(word) === true;
  }
}

function put(sets: Map<Region, Set<number>>, region: Region, word: number): void {
  const words = sets.get(region) ?? new Set<number>();
  sets.set(region, words);
  words.add(word);
}

/** One in so many words of a list is stored to. */
const STORE_ODDS = 2;
/** Operations that follow each other near a word, at the most. */
const RUN_MAX = 8;

/** What a list leaves out: nothing; words that may end in a signal, for one that a single signal ends; stores. */
export type Caution = 'none' | 'no faults' | 'loads';

export interface PlanOptions {
  readonly random: Random;
  readonly ops: number;
  readonly unsteady: Unsteady;
  readonly caution: Caution;
  /** Grows from call to call. */
  readonly nextValue: () => number;
}

/** Plan a list, and tell the table what it may change. */
export function planActor(name: string, id: number, subject: Subject, options: PlanOptions): Actor {
  const { random, ops, unsteady, caution, nextValue } = options;
  const planned: PlannedOp[] = [];
  /** What the actor knows of the words that it writes. */
  const mine = new Map<Region, Map<number, Content | null>>();
  for (let tries = 0; planned.length < ops && tries < 4 * ops && subject.regions.length > 0; tries++) {
    const region = subject.regions[random.below(subject.regions.length)]!;
    const known = mine.get(region) ?? new Map<number, Content | null>();
    mine.set(region, known);
    const first = random.below(region.words);
    for (let run = 1 + random.below(RUN_MAX); run > 0 && planned.length < ops; run--) {
      const word = (first + random.below(RUN_MAX)) % region.words;
      if (caution === 'no faults' && unsteady.mayFault(region, word)) continue;
      const isChanging = unsteady.mayChange(region, word);
      const isWriter = region.writers[word] === id || region.writers[word] === NO_WRITER;
      const address = region.addressOf(word);
      if (caution === 'loads' || !isWriter || random.below(STORE_ODDS) !== 0) {
        planned.push({ kind: 'load', region, word, address, expected: known.get(word) ?? null });
        continue;
      }
      region.writers[word] = id;
      const value = nextValue();
      region.last.may(word, value);
      planned.push({ kind: 'store', region, word, address, value, expected: null });
      known.set(word, isChanging ? null : value);
    }
  }
  return { name, id, subject, ops: planned };
}

export interface Judgement {
  /** Sentences about what must not have been found. */
  readonly wrong: readonly string[];
  /** Operations that were done. */
  readonly done: number;
  /** Tell the table what is certain now. Once everybody has been judged: until then it allows all that was planned. */
  commit(): void;
}

/**
 * Did each operation find what it may? Precondition: nobody runs any more.
 * @param hostile whether a page may be out of reach for a moment
 */
export function judgeActor(
  actor: Actor,
  answers: readonly Answer[],
  { unsteady, hostile }: { readonly unsteady: Unsteady; readonly hostile: boolean },
): Judgement {
  const wrong: string[] = [];
  const written = new Map<Region, Map<number, Content | null>>();
  const seen = new Map<Region, Map<number, Content>>();
  let done = 0;
  for (const [at, op] of actor.ops.entries()) {
    const { outcome, found } = answers[at]!;
    const { region, word, expected } = op;
    const own = mapOf(written, region);
    const before = mapOf(seen, region);
    if (outcome === 'SIGSEGV' && !unsteady.mayFault(region, word)) {
      wrong.push(`${placeOf(actor, op)}: SIGSEGV, though it is mapped`);
    }
    if (outcome === 'SIGBUS' && !hostile) wrong.push(`${placeOf(actor, op)}: SIGBUS, though nothing has failed`);
    if (outcome === 'done') done++;
    if (op.kind === 'store') {
      // A store that ended in a signal has not happened; of one without an answer nobody knows.
      if (outcome === 'done') own.set(word, op.value!);
      else if (outcome === 'unknown') own.set(word, null);
      continue;
    }
    if (outcome !== 'done') continue;
    const isExact = expected !== null && own.get(word) === expected;
    if (isExact ? found !== expected : !region.last.allows(word, found)) {
      const should = isExact ? contentText(expected) : region.last.describe(word);
      wrong.push(`${placeOf(actor, op)}: found ${found}, and it must be ${should}`);
    } else if (found < (before.get(word) ?? 0) && !unsteady.mayChange(region, word)) {
      wrong.push(`${placeOf(actor, op)}: found ${found}, after ${before.get(word)} had been there`);
    }
    before.set(word, found);
  }
  const commit = (): void => {
    for (const [region, own] of written) {
      for (const [word, content] of own) {
        if (content !== null && !unsteady.mayChange(region, word)) region.last.set(word, content);
      }
    }
  };
  return { wrong, done, commit };
}

function mapOf<V>(maps: Map<Region, Map<number, V>>, region: Region): Map<number, V> {
  let map = maps.get(region);
  if (map === undefined) {
    map = new Map();
    maps.set(region, map);
  }
  return map;
}

const placeOf = (actor: Actor, { region, word, address, kind }: PlannedOp): string =>
  `${actor.name}, process ${actor.subject.process.pid}: ${kind} of word ${word} of ${region.kind} memory at 0x${formatAddress(address)}`;

/** Nobody knows what became of a list. */
export const unknownAnswers = (ops: readonly unknown[]): Answer[] => ops.map(() => ({ outcome: 'unknown', found: 0 }));
