/**
 * What tasks did to memory, and whether there is an order in which memory could have answered as it did.
 *
 * Every word of memory is an atomic register that each process has a view of: a history is right if each call can be given one moment
 * between its begin and its end, so that every load finds what the store before it left (linearizability: Herlihy and Wing
 * 1990; the search is Wing and Gong's). Calls that change what is mapped (munmap, mprotect, mremap, DONTNEED, fork) are
 * operations on each of their words, each with a moment of its own: they are not atomic over several pages, in Linux neither.
 * So a program without data races has one answer, and racing calls have exactly those that some order gives.
 */

/** What one call did to one word. */
export type Effect =
  | { readonly kind: 'load'; readonly value: number }
  | { readonly kind: 'store' | 'add'; readonly value: number }
  /** An access that was refused. `excused`: there may be another reason than what is mapped. */
  | { readonly kind: 'refused'; readonly write: boolean; readonly excused: boolean }
  | { readonly kind: 'map'; readonly access: number }
  /** `poison`: the memory has failed, and every access is refused until it is discarded. */
  | { readonly kind: 'unmap' | 'discard' | 'lazyfree' | 'poison' }
  | { readonly kind: 'protect'; readonly access: number }
  | { readonly kind: 'move'; readonly to: number; readonly leaves: boolean }
  | { readonly kind: 'clear destination'; readonly to: number }
  | { readonly kind: 'fork'; readonly child: number };

export interface HistoryEvent {
  /** Word, by the view of the process that acts. */
  readonly slot: number;
  readonly effect: Effect;
  /** Failed on the way: it may have had its effect on this word or not. */
  readonly maybe: boolean;
  readonly begin: number;
  readonly end: number;
  /** For people. */
  readonly text: string;
}

/** Access that is allowed to a word. */
export const NO_ACCESS = 0;
export const READ = 1;
export const READ_WRITE = 3;

/** State of a slot: its word, and what may be done with it. */
const FIELDS = 2;
const UNMAPPED = -1;
/** A load may find zero, from now on: MADV_FREE. */
const LAZY = 4;
/** The memory has failed. */
const FAILED = 8;
const ACCESS_MASK = 3;

type State = readonly number[];

/** Words that are mapped for reading and writing and hold zero, then words of processes that do not exist yet. */
export function freshState(mapped: number, absent: number): number[] {
  const state: number[] = [];
  for (let slot = 0; slot < mapped; slot++) state.push(0, READ_WRITE);
  for (let slot = 0; slot < absent; slot++) state.push(UNMAPPED, NO_ACCESS);
  return state;
}

/** Numbers of all slots of a state. */
export const slotsOf = (state: State): number[] => Array.from({ length: state.length / FIELDS }, (_, slot) => slot);

/** Is there an order? */
export function linearizable(events: readonly HistoryEvent[], initial: State): boolean {
  const sorted = [...events].sort((a, b) => a.begin - b.begin);
  const done = new Uint8Array(sorted.length);
  const seen = new Set<string>();

  const search = (state: State, left: number): boolean => {
    if (left === 0) return true;
    let deadline = Number.POSITIVE_INFINITY;
    for (const [at, event] of sorted.entries()) if (done[at] === 0) deadline = Math.min(deadline, event.end);
    for (const [at, event] of sorted.entries()) {
      if (done[at] === 1) continue;
      // Somebody ended before this one began: it is later.
      if (event.begin > deadline) break;
      done[at] = 1;
      for (const next of outcomes(state, event)) if (unseen(next) && search(next, left - 1)) return true;
      done[at] = 0;
    }
    return false;
  };
  const unseen = (state: State): boolean => {
    const key = `${done.join('')}:${state.join()}`;
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  };
  return search(initial, sorted.length);
}

/** States after an event; none where memory could not have answered so. */
function outcomes(state: State, { slot, effect, maybe }: HistoryEvent): State[] {
  const done = apply(state, slot * FIELDS, effect);
  return maybe ? [state, ...done] : done;
}

function apply(state: State, at: number, effect: Effect): State[] {
  const value = state[at]!;
  const flags = state[at + 1]!;
  const rights = flags & ACCESS_MASK;
  const access = value === UNMAPPED || (flags & FAILED) !== 0 ? NO_ACCESS : rights;
  switch (effect.kind) {
    case 'load':
      if ((access & READ) === 0) return [];
      if (value === effect.value) return [state];
      return (flags & LAZY) !== 0 && effect.value === 0 ? [changed(state, at, 0, access)] : [];
    case 'store':
      return access === READ_WRITE ? [changed(state, at, effect.value, access)] : [];
    case 'add': {
      if (access !== READ_WRITE) return [];
      const sums = [changed(state, at, (value + effect.value) >>> 0, access)];
      return (flags & LAZY) !== 0 ? [...sums, changed(state, at, effect.value, access)] : sums;
    }
    case 'refused': {
      const needed = effect.write ? READ_WRITE : READ;
      return effect.excused || (access & needed) !== needed ? [state] : [];
    }
    case 'map':
      return [changed(state, at, 0, effect.access)];
    case 'unmap':
      return [changed(state, at, UNMAPPED, NO_ACCESS)];
    case 'discard':
      return [value === UNMAPPED ? state : changed(state, at, 0, rights)];
    case 'poison':
      return [value === UNMAPPED ? state : changed(state, at, value, flags | FAILED)];
    case 'lazyfree':
      if (value === UNMAPPED) return [state];
      // What has failed is given up at once.
      return [(flags & FAILED) === 0 ? changed(state, at, value, rights | LAZY) : changed(state, at, 0, rights)];
    case 'protect':
      return [value === UNMAPPED ? state : changed(state, at, value, effect.access | (flags & (LAZY | FAILED)))];
    case 'move': {
      if (value === UNMAPPED) return [];
      const moved = changed(state, effect.to * FIELDS, value, flags);
      return [effect.leaves ? changed(moved, at, 0, rights) : changed(moved, at, UNMAPPED, NO_ACCESS)];
    }
    case 'clear destination':
      return [changed(state, effect.to * FIELDS, UNMAPPED, NO_ACCESS)];
    case 'fork':
      return [changed(state, effect.child * FIELDS, value, flags)];
  }
}

function changed(state: State, at: number, value: number, flags: number): State {
  if (state[at] === value && state[at + 1] === flags) return state;
  const next = [...state];
  next[at] = value;
  next[at + 1] = flags;
  return next;
}
