/**
 * Holds: the kernel had nothing to warn of. Each warning is reported once, by the check that comes after it.
 *
 * Does not see: what a broken rule throws at once (`InvariantViolation`). Never suspended.
 */
import type { Checker } from '../machine/state.js';

export const kernelLog: Checker = {
  invariant: 'kernel-log',
  statement: 'the kernel log has no warnings',
  look: ({ log }) => log.splice(0),
};
