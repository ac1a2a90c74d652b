/** `boot()` as users know it: a machine that can be checked for everything that there is a checker for. */
import { bootMachine } from '../machine/boot.js';
import type { MachineInput } from '../machine/spec.js';
import type { Checker } from '../machine/state.js';
import type { Machine } from '../machine/types.js';
import { cpuTlb } from './cpu-tlb.js';
import { deviceMappings } from './device-mappings.js';
import { framesConserved } from './frames-conserved.js';
import { hugetlbPool } from './hugetlb-pool.js';
import { kernelLog } from './kernel-log.js';
import { noLeftovers } from './no-leftovers.js';
import { numberKinds } from './number-kinds.js';
import { pageAccounting } from './page-accounting.js';
import { pageCache } from './page-cache.js';
import { rmap } from './rmap.js';
import { sanitizer } from './sanitizer.js';
import { swap } from './swap.js';

export const ALL_CHECKERS: readonly Checker[] = Object.freeze([
  framesConserved,
  hugetlbPool,
  numberKinds,
  sanitizer,
  pageAccounting,
  pageCache,
  rmap,
  swap,
  deviceMappings,
  cpuTlb,
  noLeftovers,
  kernelLog,
]);

/**
 * Boot a machine: `await using machine = await boot('laptop')`.
 * @param input a spec, or the name of a preset; default: the preset `laptop`
 * @throws PfnlessError ERR_PFNLESS_SPEC on a spec that cannot be built; BootError (ERR_PFNLESS_BOOT) when a device's driver
 * gets no memory, e.g. because legacy addressing finds no free physical address space
 */
export const boot = (input?: MachineInput): Promise<Machine> => bootMachine(input, ALL_CHECKERS);
