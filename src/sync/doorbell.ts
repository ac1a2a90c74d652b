/**
 * Doorbells: how one thread tells another that there is something in a ring. No wake-up is lost, because both sides store
 * first and load after: the sleeper announces itself, looks at its rings again, and sleeps only while the counter is what it
 * was before that look; the ringer changes the counter, then looks for a sleeper.
 */
import { add32, load32, wakeWord } from './word.js';

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
