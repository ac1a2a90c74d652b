/**
 * Words of shared memory: the only file that says Atomics on data. Thin on purpose: each function is one instruction when
 * optimised. `Int32Array` for counters, flags and device PTEs, `BigUint64Array` for the CPU's page tables.
 */
import type { Pte } from '../base/brand.js';

export const load32 = (words: Int32Array, at: number): number => Atomics.load(words, at);
/**
 * A plain load: 0.7 ns instead of the 5 ns of `Atomics.load`, which V8 calls. For words that only this thread changes, but for
 * bits which do not matter to the reader (accessed and dirty, which hardware sets): 32 bits are never torn.
 */
export const peek32 = (words: Int32Array, at: number): number => words[at];
export const store32 = (words: Int32Array, at: number, value: number): void => {
  Atomics.store(words, at, value);
};
/** Returns the old value. */
export const add32 = (words: Int32Array, at: number, delta: number): number => Atomics.add(words, at, delta);
export const or32 = (words: Int32Array, at: number, mask: number): number => Atomics.or(words, at, mask);
export const and32 = (words: Int32Array, at: number, mask: number): number => Atomics.and(words, at, mask);
export const exchange32 = (words: Int32Array, at: number, value: number): number => Atomics.exchange(words, at, value);
/** Returns the old value: the exchange happened if that is `expected`. */
export const compareExchange32 = (words: Int32Array, at: number, expected: number, value: number): number =>
  Atomics.compareExchange(words, at, expected, value);

/** `READ_ONCE(*ptep)`. */
export const readPte = (table: BigUint64Array, at: number): Pte => Atomics.load(table, at) as Pte;
/** `set_pte()`. */
export const setPte = (table: BigUint64Array, at: number, pte: Pte): void => {
  Atomics.store(table, at, pte);
};
/** `ptep_get_and_clear()`: the hardware may set accessed and dirty until the very moment of the exchange. */
export const getAndClearPte = (table: BigUint64Array, at: number): Pte => Atomics.exchange(table, at, 0n) as Pte;
/** `try_cmpxchg()` on an entry: did it happen? */
export const compareExchangePte = (table: BigUint64Array, at: number, expected: Pte, value: Pte): boolean =>
  Atomics.compareExchange(table, at, expected, value) === expected;

/** One entry, whole and as its halves (low half first, as x86 has it). Used by one statement at a time. */
const entry = new BigUint64Array(1);
const entryHalves = new Int32Array(entry.buffer);

/** `set_pte()` of an entry given by its halves: one atomic store. */
export const setPteHalves = (table: BigUint64Array, at: number, low: number, high: number): void => {
  entryHalves[0] = low;
  entryHalves[1] = high;
  Atomics.store(table, at, entry[0]!);
};
/** `ptep_get_and_clear()`; returns the low half, which is the one that hardware may have changed. */
export const getAndClearPteLow = (table: BigUint64Array, at: number): number => {
  entry[0] = Atomics.exchange(table, at, 0n);
  return entryHalves[0]!;
};

/** Sleep while `words[at]` is `expected`, at most `timeoutMs`. Blocks the thread. */
export const waitWord = (
  words: Int32Array,
  at: number,
  expected: number,
  timeoutMs: number,
): 'ok' | 'not-equal' | 'timed-out' => Atomics.wait(words, at, expected, timeoutMs);
/** The same without blocking the thread. */
export const waitWordAsync = (words: Int32Array, at: number, expected: number, timeoutMs: number): Promise<unknown> => {
  const outcome = Atomics.waitAsync(words, at, expected, timeoutMs);
  return outcome.async ? outcome.value : Promise.resolve(outcome.value);
};
export const wakeWord = (words: Int32Array, at: number): void => {
  Atomics.notify(words, at);
};
