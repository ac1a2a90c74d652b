/**
 * Doorbells: how one thread tells another that there is something in a ring. No wake-up is lost, because both sides store
 * first and load after: the sleeper announces itself, looks at its rings again, and sleeps only while the counter is what it
 * was before that look; the ringer changes the counter, then looks for a sleeper.
 */
import { add32, load32, store32, waitWord, wakeWord } from './word.js';

export interface Doorbell {
  readonly words: Int32Array;
  /** Counter of rings. */
  readonly at: number;
  /** 1 while the other side sleeps. */
  readonly sleepingAt: number;
}

export function ringDoorbell({ words, at, sleepingAt }: Doorbell): void {
  add32(words, at, 1);
  if (load32(words, sleepingAt) !== 0) wakeWord(words, at);
}

/**
 * Looks at a doorbell before a thread sleeps: some 20 microseconds, less than a wake-up costs, while who serves a fault answers in
 * a few. More would only hurt where threads outnumber cores, because there the spinning thread stands in the way of the one
 * that it waits for.
 */
const SPINS = 4_000;
/** Where they do not: 200 microseconds, in which the kernel serves a batch of faults, and a caller makes his next call. */
const SPINS_ON_OWN_CORE = 40_000;

/**
 * Wait until the doorbell is no longer at `rung`, which was read before the last look at what it rings for. Blocks the thread.
 * @param ownCore nobody else waits for the core
 */
export function waitForRing(
  { words, at, sleepingAt }: Doorbell,
  rung: number,
  timeoutMs: number,
  ownCore = false,
): void {
  const spins = ownCore ? SPINS_ON_OWN_CORE : SPINS;
  for (let spin = 0; spin < spins; spin++) if (load32(words, at) !== rung) return;
  store32(words, sleepingAt, 1);
  waitWord(words, at, rung, timeoutMs);
  store32(words, sleepingAt, 0);
}
