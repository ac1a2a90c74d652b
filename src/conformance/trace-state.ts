/** The state that a trace records after each operation, as the emulator has it: /proc views and snapshots through observers. */
import { PAGE_SIZE } from '../abi/address.js';
import type { VirtAddr } from '../base/brand.js';
import type { DriverMirror } from '../drivers/driver.js';
import type { MachineState } from '../machine/state.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { mincoreRange, pagemapRange } from '../mm/proc-pagemap.js';
import { smapsRange } from '../mm/proc-smaps.js';
import type { Sleeps } from '../sync/task.js';
import type { ObservedState } from './compare.js';

/** One process under observation: its address space, and a mirror of it on each device which only takes snapshots. */
export interface Observed {
  readonly mm: MmStruct;
  readonly observers: readonly DriverMirror[];
}

export interface Arena {
  readonly base: VirtAddr;
  readonly pages: number;
}

/** Look at the whole arena without changing anything. */
export function* observeState(
  { kernel }: MachineState,
  { mm, observers }: Observed,
  arena: Arena,
): Sleeps<ObservedState> {
  const end = (arena.base + arena.pages * PAGE_SIZE) as VirtAddr;
  const snapshots: (Uint8Array | string)[] = [];
  for (const observer of observers.slice(0, 2)) snapshots.push(yield* observer.snapshot(arena.base, end));
  const [s0 = 'ENODEV', s1 = 'ENODEV'] = snapshots;
  const pm = new Int32Array(arena.pages);
  const mc = new Int32Array(arena.pages);
  pagemapRange(kernel, mm, arena.base, pm);
  mincoreRange(kernel, mm, arena.base, mc);
  const sums = smapsRange(kernel, mm, arena.base, arena.pages);
  return { pm, mc, s0, s1, sums };
}
