/**
 * A round: a fresh machine, episodes on it, and a settle phase after which nothing may be left over. A round is a function of its
 * seed, up to what threads do; inline it is one without exception.
 */
import { type InjectionId, SeededInjector, usualRates } from '../base/injection.js';
import { createRandom } from '../base/random.js';
import { ALL_CHECKERS } from '../check/boot.js';
import { bootWithState } from '../machine/boot.js';
import type { MachineSpec } from '../machine/spec.js';
import type { MachineState } from '../machine/state.js';
import type { Violation } from '../machine/types.js';
import type { KernelOptions } from '../mm/kernel.js';
import { discardLosses, runEpisode, sweep } from './episode.js';
import { failMemoryQuietly, killQuietly } from './hostility.js';
import { changePopulation, exitSubject } from './population.js';
import { Found, foundBy, World } from './world.js';

export interface RoundOptions {
  /** The machine; its seed is the round's. */
  readonly spec: MachineSpec;
  /** What is injected. */
  readonly inject: readonly InjectionId[];
  /** Hooks of the kernel beside its spec, which has everything that flags say of a machine. */
  readonly kernel?: Partial<KernelOptions>;
  /** Asked between episodes, with what has been done so far. */
  isOver(operations: number, episodes: number): boolean;
}

export interface RoundResult {
  readonly seed: number;
  /** Episodes that were begun: as many make the round again. */
  readonly episodes: number;
  /** Loads and stores that were done and compared. */
  readonly operations: number;
  readonly calls: number;
  /** Words that were lost with a device, and reported so. */
  readonly lost: number;
  readonly violations: readonly Violation[];
  /** Frames of RAM that are not back when every process has gone. */
  readonly framesLeaked: number;
  /** How often each point fired. */
  readonly injected: Readonly<Partial<Record<InjectionId, number>>>;
  /** What has happened to pages, and to the CPUs' TLBs. */
  readonly traffic: {
    readonly cpuFaults: number;
    readonly deviceFaults: number;
    readonly migrated: number;
    readonly shootdowns: number;
  };
}

/** Then the machine is old: every device may have died. */
const EPISODES_MAX = 60;
/** Every so many episodes all words are looked at, and all invariants. */
const EPISODES_PER_CHECK = 6;
/** One in so many checks discards what is lost. */
const DISCARD_ODDS = 2;

/** Run a round. What it finds is in its result; wrong use of the machine throws. */
export async function runRound({ spec, inject, kernel, isOver }: RoundOptions): Promise<RoundResult> {
  const injector = new SeededInjector(spec.seed, usualRates(inject));
  const booted = await bootWithState(spec, ALL_CHECKERS, { ...kernel, inject: injector });
  const world = new World(booted, createRandom(spec.seed), injector);
  const { machine } = booted;
  const framesAtStart = (await machine.stats()).freeRamPages;
  const violations: Violation[] = [];
  let episodes = 0;
  let framesLeaked = 0;
  try {
    while (episodes < EPISODES_MAX && !isOver(world.operations, episodes) && isAlive(world)) {
      episodes++;
      injector.armed = true;
      await changePopulation(world);
      injector.armed = false;
      await runEpisode(world);
      if (episodes % EPISODES_PER_CHECK === 0) await checkAll(world);
    }
    framesLeaked = await settle(world, framesAtStart);
  } catch (error) {
    violations.push(foundBy(error).violation);
    // A task that was thrown out of the middle of things holds its locks for ever: nobody shall wait for them.
    booted.state.executor.stop(foundBy(error));
  }
  try {
    await machine.dispose();
  } catch (error) {
    // A machine in which something was found cannot be put away in order.
    if (violations.length === 0) violations.push(foundBy(error).violation);
  }
  return {
    seed: spec.seed,
    episodes,
    operations: world.operations,
    calls: world.calls,
    lost: world.lost,
    violations,
    framesLeaked,
    injected: injector.fired,
    traffic: trafficOf(booted.state),
  };
}

/** Counters that the kernel's side keeps: a device that hangs would not answer. */
function trafficOf({ kernel, devices, cpus }: MachineState): RoundResult['traffic'] {
  const { cpuFaults, migratedToDevice, migratedToRam } = kernel.stats;
  return {
    cpuFaults,
    deviceFaults: devices.reduce((sum, { driver }) => sum + driver.stats().deviceFaults, 0),
    migrated: migratedToDevice + migratedToRam,
    shootdowns: cpus.reduce((sum, cpu) => sum + cpu.counters().shootdowns, 0),
  };
}

/** Without a device nothing moves any more. */
const isAlive = ({ living, state }: World): boolean => living.length > 0 || state.devices.length === 0;

/** A quiet moment: all words, all invariants; devices die, and what was lost is given up. */
async function checkAll(world: World): Promise<void> {
  const { injector, random } = world;
  injector.armed = true;
  const dies = injector.fires('device-crash');
  const fails = injector.fires('memory-failure');
  injector.armed = false;
  // Before anybody looks at all words, which brings them home.
  if (dies) await killQuietly(world);
  if (fails) await failMemoryQuietly(world);
  await sweep(world);
  await requireSound(world);
  if (random.below(DISCARD_ODDS) === 0) await discardLosses(world);
}

async function requireSound({ machine }: World): Promise<void> {
  const [violation] = await machine.check();
  if (violation !== undefined) throw new Found(violation);
}

/** Everybody goes, and nothing may be left. @returns frames that are not back */
async function settle(world: World, framesAtStart: number): Promise<number> {
  const { machine, subjects } = world;
  await sweep(world);
  await requireSound(world);
  for (const subject of [...subjects]) await exitSubject(world, subject);
  await requireSound(world);
  const { freeRamPages, devices } = await machine.stats();
  const { SwapFree, SwapTotal } = machine.meminfo();
  if (SwapFree !== SwapTotal) leftOver(`${SwapTotal - SwapFree} KiB of swap are in use`);
  for (const { name, usedPages } of devices) if (usedPages > 0) leftOver(`${usedPages} pages of ${name} are in use`);
  const leaked = framesAtStart - freeRamPages - world.state.kernel.memoryFailures.poisoned;
  if (leaked !== 0) leftOver(`${leaked} frames of RAM are not back`);
  return leaked;
}

const leftOver = (what: string): never => {
  throw new Found({ invariant: 'settled', message: `${what} after all processes have gone` });
};
