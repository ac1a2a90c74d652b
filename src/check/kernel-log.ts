/**
 * Holds: the kernel had nothing to warn of. Each warning is reported once, by a check that comes after it; what one has no room for, by the next.
 *
 * Does not see: what a broken rule throws at once (`InvariantViolation`). Never suspended.
 */
import type { Checker } from '../machine/state.js';

export const kernelLog: Checker = {
  invariant: 'kernel-log',
  statement: 'the kernel log has no warnings',
  *look({ log }) {
    while (log.length > 0) yield log.shift()!;
  },
};
