/** One turn of the host's event loop, in whatever host this is (the core knows no platform: ARCHITECTURE decision 31). */

// The host's own: tests of our users may put others in their place, which stand still.
const { clearTimeout, performance, setImmediate, setTimeout } = globalThis;
const now = performance.now.bind(performance);

/** Let the event loop take one turn: messages, deaths of workers, signals and the promises behind them are seen. */
export type Turn = () => Promise<void>;

/** `setImmediate` where there is one, else a timer (1 ms, in browsers up to 4 ms). The process lives while it is awaited. */
export const takeTurn: Turn =
  typeof setImmediate === 'function'
    ? () => new Promise((resolve) => setImmediate(resolve))
    : () => new Promise((resolve) => setTimeout(resolve, 0));

/** Milliseconds since some moment: for pauses and for wall times, never for what a run computes. */
export const clockMs = (): number => now();

/** Beyond that a timer comes at once: 24 days. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/**
 * Does some work take longer than so many milliseconds? Then it is left to itself, whatever comes of it.
 * @throws what the work throws in time
 */
export async function lateAfter(ms: number, work: Promise<unknown>): Promise<boolean> {
  const bounded = Math.min(ms, TIMER_MAX_MS);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(true), bounded);
  });
  try {
    return await Promise.race([work.then(() => false), late]);
  } finally {
    clearTimeout(timer);
  }
}
