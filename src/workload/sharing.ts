/** How a workload's items are shared out over its devices, and how devices are set to work at the same time. */
import { PfnlessError } from '../base/errors.js';
import type { Mirror } from '../machine/types.js';
import type { WorkloadEnv } from './workload.js';

/** Items that a lane should get: enough to outweigh the lane's own cost, few enough to stay on a page or two. */
export const ITEMS_PER_LANE = 1024;

/** Lanes for `count` items. */
export const lanesFor = (count: number, itemsPerLane = ITEMS_PER_LANE): number =>
  Math.max(1, Math.ceil(count / itemsPerLane));

/** One device's contiguous share of the items. Never empty. */
export interface Share {
  readonly mirror: Mirror;
  readonly first: number;
  readonly count: number;
}

/**
 * Deal `count` items to the devices. Shares end at multiples of `grain` where there is enough for everyone: with a grain of
 * one page, devices do not pull the same page from each other.
 */
export function shareOut(env: WorkloadEnv, count: number, grain = 1): Share[] {
  const unit = count >= env.devices * grain ? grain : 1;
  const size = Math.ceil(count / env.devices / unit) * unit;
  return env.mirrors
    .map((mirror, device) => {
      const first = Math.min(device * size, count);
      return { mirror, first, count: Math.min(size, count - first) };
    })
    .filter((share) => share.count > 0);
}

/**
 * Wait for work that goes on at the same time. When a part fails in a way that a user can act on (a device died), the
 * others are waited for, so that nothing still runs when the caller learns of it. Anything else is thrown at once.
 */
export async function together(parts: readonly Promise<unknown>[]): Promise<void> {
  const failures = await Promise.all(
    parts.map(async (part) => {
      try {
        await part;
        return null;
      } catch (error) {
        if (error instanceof PfnlessError) return error;
        throw error;
      }
    }),
  );
  const failure = failures.find((error) => error !== null);
  if (failure) throw failure;
}
