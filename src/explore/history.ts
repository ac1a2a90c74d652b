/**
 * What tasks did to memory, and whether there is an order in which memory could have answered as it did.
 *
 * Every word of memory is an atomic register that each process has a view of: a history is right if each call can be given one moment
 * between its begin and its end, so that every load finds what the store before it left (linearizability: Herlihy and Wing
 * 1990; the search is Wing and Gong's). Calls that change what is mapped (munmap, mprotect, mremap, DONTNEED, fork) are
 * operations on each of their words, each with a moment of its own: they are not atomic over several pages, in Linux neither.
 * So a program without data races has one answer, and racing calls have exactly those that some order gives.
 *
 * What is shared (memory between relatives, a file) is a word of its own, an object, to which the views of those who map it lead.
 */

/** What one call did to one word. */
export type Effect =
  | { readonly kind: 'load'; readonly value: number }
  | { readonly kind: 'store' | 'add'; readonly value: number }
  /** An access that was refused. `excused`: there may be another reason than what is mapped. */
  | { readonly kind: 'refused'; readonly write: boolean; readonly excused: boolean }
  /** @param object slot of the word that is mapped, -1: a fresh one. `copies`: what is stored there is one's own. */
  | { readonly kind: 'map'; readonly access: number; readonly object: number; readonly copies: boolean }
  /** The page becomes the process's own copy, if it was one of a file. */
  | { readonly kind: 'copy' }
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

/** State of a slot: its word, what may be done with it, and the slot of the object that it was mapped from, or -1. */
const FIELDS = 3;
const UNMAPPED = -1;
const NO_OBJECT = -1;
/** A load may find zero, from now on: MADV_FREE. */
const LAZY = 4;
/** The word is the object's. */
const SHARED = 8;
/** The word is the object's until one is stored. */
const COPIES = 16;
/** The memory has failed. */
const FAILED = 32;
const ACCESS_MASK = 3;

type State = readonly number[];

/** What a slot is at first: a word that is mapped for reading and writing and holds zero, or one that nobody has yet. */
export type SlotKind = 'mapped' | 'absent';

export function freshState(slots: readonly SlotKind[]): number[] {
  return slots.flatMap((slot) => (slot === 'mapped' ? [0, READ_WRITE, NO_OBJECT] : [UNMAPPED, NO_ACCESS, NO_OBJECT]));
}

/** The word of an object: zero. */
export const OBJECT_STATE: readonly number[] = [0, NO_ACCESS, NO_OBJECT];

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
  const object = state[at + 2]!;
  const isMapped = value !== UNMAPPED;
  const access = isMapped && (flags & FAILED) === 0 ? flags & ACCESS_MASK : NO_ACCESS;
  switch (effect.kind) {
    case 'load':
      if ((access & READ) === 0) return [];
      if (wordAt(state, at) === effect.value) return [state];
      return (flags & LAZY) !== 0 && effect.value === 0 ? [changed(state, at, 0, access, object)] : [];
    case 'store':
      return access === READ_WRITE ? [stored(state, at, effect.value)] : [];
    case 'add': {
      if (access !== READ_WRITE) return [];
      const sums = [stored(state, at, (wordAt(state, at) + effect.value) >>> 0)];
      return (flags & LAZY) !== 0 ? [...sums, stored(state, at, effect.value)] : sums;
    }
    case 'refused': {
      const needed = effect.write ? READ_WRITE : READ;
      return effect.excused || (access & needed) !== needed ? [state] : [];
    }
    case 'map': {
      const kind = effect.object === NO_OBJECT ? 0 : effect.copies ? COPIES : SHARED;
      return [changed(state, at, 0, effect.access | kind, effect.object)];
    }
    case 'copy':
      return [isMapped && (flags & COPIES) !== 0 ? stored(state, at, wordAt(state, at)) : state];
    case 'unmap':
      return [changed(state, at, UNMAPPED, NO_ACCESS, NO_OBJECT)];
    case 'discard':
      return [isMapped ? emptied(state, at) : state];
    case 'poison':
      return [isMapped ? changed(state, at, value, flags | FAILED, object) : state];
    case 'lazyfree':
      // What has failed is given up at once.
      if (isMapped && (flags & FAILED) !== 0) return [emptied(state, at)];
      return [isMapped && object === NO_OBJECT ? changed(state, at, value, flags | LAZY, object) : state];
    case 'protect':
      return [isMapped ? changed(state, at, value, effect.access | (flags & ~ACCESS_MASK), object) : state];
    case 'move': {
      if (!isMapped) return [];
      const moved = changed(state, effect.to * FIELDS, value, flags, object);
      return [effect.leaves ? emptied(moved, at) : changed(moved, at, UNMAPPED, NO_ACCESS, NO_OBJECT)];
    }
    case 'clear destination':
      return [changed(state, effect.to * FIELDS, UNMAPPED, NO_ACCESS, NO_OBJECT)];
    case 'fork':
      return [changed(state, effect.child * FIELDS, value, flags, object)];
  }
}

/** The word that a load finds. */
const wordAt = (state: State, at: number): number =>
  (state[at + 1]! & (SHARED | COPIES)) !== 0 ? state[state[at + 2]! * FIELDS]! : state[at]!;

function stored(state: State, at: number, value: number): State {
  const flags = state[at + 1]!;
  const object = state[at + 2]!;
  if ((flags & SHARED) !== 0) return changed(state, object * FIELDS, value, NO_ACCESS, NO_OBJECT);
  return changed(state, at, value, flags & ACCESS_MASK, object);
}

/** After MADV_DONTNEED: what was one's own is gone, and the object, if there is one, is seen again. */
function emptied(state: State, at: number): State {
  const flags = state[at + 1]!;
  const object = state[at + 2]!;
  if ((flags & SHARED) !== 0) return state;
  return changed(state, at, 0, (flags & ACCESS_MASK) | (object === NO_OBJECT ? 0 : COPIES), object);
}

function changed(state: State, at: number, value: number, flags: number, object: number): State {
  if (state[at] === value && state[at + 1] === flags && state[at + 2] === object) return state;
  const next = [...state];
  next[at] = value;
  next[at + 1] = flags;
  next[at + 2] = object;
  return next;
}
