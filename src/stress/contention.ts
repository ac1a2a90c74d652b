/**
 * Many CPUs fault the same device page (H5 of the history of bugs). Linux: mm/memory.c do_swap_page(), fix 1afaeb8293c9.
 *
 * Under the old rule each CPU that finds the entry takes a reference and waits for the page's lock. Whoever has the lock finds the
 * references of the others, which forbid the migration, gives up, and faults again; if an attempt takes longer than a fault, as
 * with a device that has other faults to serve, it is back among the waiters before the next one has looked. Nobody ever gets
 * the page. Under the fixed rule the lock is tried, and who does not get it waits without a reference.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { bootWithState } from '../machine/boot.js';
import { parseMachineSpec } from '../machine/spec.js';
import type { Addressing } from '../machine/types.js';
import { takeTurn } from '../sched/turn.js';

export interface ContentionOptions {
  /** `reference`: hold the page and wait for its lock, as before the fix. */
  readonly rule: 'reference' | 'trylock';
  readonly cpus: number;
  readonly addressing: Addressing;
}

export interface ContentionResult extends ContentionOptions {
  /** Pages that came home. */
  readonly successes: number;
  /** CPU faults on the way. */
  readonly faults: number;
  /** Faults for each page that came home; where none did, all of them. */
  readonly faultsPerSuccess: number;
  /** A page did not come home in FAULTS_MAX faults. */
  readonly livelock: boolean;
}

/** The site whose forgetting is the old rule. */
const FAULT_TRYLOCK = 'fault-trylock';
const PAGES = 16;
/** Pages that keep the device's driver busy meanwhile. */
const BUSY_PAGES = 2048;
const BUSY_LANES = 256;
/** Faults on one page after which nobody waits for it any more. */
const FAULTS_MAX = 20_000;

/** Measure one rule with some CPUs: inline, round robin, a pure function of the options. */
export async function measureContention(options: ContentionOptions): Promise<ContentionResult> {
  const { rule, cpus, addressing } = options;
  const { machine, state } = await bootWithState(
    parseMachineSpec({
      ...{ executor: 'inline', schedule: 'round-robin', addressing, cpus },
      ...{ memory: { ram: '64MiB' }, devices: [{ memory: '16MiB' }] },
      forget: rule === 'reference' ? [FAULT_TRYLOCK] : [],
    }),
    [],
  );
  const process = await machine.process();
  const range = await process.mmap({ length: PAGES * PAGE_SIZE });
  const busy = await process.mmap({ length: BUSY_PAGES * PAGE_SIZE });
  await process.write(range.start, new Uint8Array(range.length).fill(1));
  const mirror = await process.mirror(0);
  await mirror.migrate(range, 'device');
  const args = { target: busy.start, count: BUSY_PAGES, stride: PAGE_SIZE };
  // It ends with the machine at the latest.
  const launch = mirror.launch('touch', { lanes: BUSY_LANES, args }).catch(() => {});
  const faultsOf = (): number => state.cpus.reduce((sum, cpu) => sum + cpu.counters().faults, 0);
  let successes = 0;
  let livelock = false;
  while (successes < PAGES && !livelock) {
    const address = range.start + successes * PAGE_SIZE;
    const before = faultsOf();
    let isHome = false;
    const loads = Promise.all(
      Array.from({ length: cpus }, (_, cpu) => process.execute(cpu + 1, [{ kind: 'load', address }])),
    ).then(
      () => {
        isHome = true;
      },
      () => {},
    );
    while (!isHome && !livelock) {
      await takeTurn();
      livelock = !isHome && faultsOf() - before > FAULTS_MAX;
    }
    if (isHome) await loads;
    if (isHome) successes++;
  }
  const faults = faultsOf();
  // Whoever is still at it is given up with the machine.
  await machine.dispose();
  await launch;
  return { ...options, successes, faults, faultsPerSuccess: faults / Math.max(1, successes), livelock };
}
