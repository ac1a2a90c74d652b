/**
 * Fault injection: what a hostile environment may do, each point named once, and the injector that says when it happens. Linux:
 * lib/fault-inject.c should_fail(), /sys/kernel/debug/fail_page_alloc and its like.
 *
 * A point is asked for where the kernel or a driver would meet the event, so whatever follows is the real path. Nothing here is a
 * bug: a machine survives all of it. Off, a point costs one comparison with `null`.
 */
import { createRandom, type Random } from './random.js';

export interface InjectionPoint {
  /** What happens. */
  readonly summary: string;
  /** Who meets it. */
  readonly where: string;
  /** One in so many opportunities, in a run that injects everything. */
  readonly odds: number;
}

export const INJECTION_POINTS = Object.freeze({
  'alloc-page': { summary: 'a page of RAM cannot be had', where: 'mm/page-alloc', odds: 150 },
  'alloc-block': { summary: 'a block of RAM (a huge page) cannot be had', where: 'mm/page-alloc', odds: 4 },
  'alloc-bulk': { summary: 'no RAM for pages that come home from a device', where: 'mm/page-alloc', odds: 60 },
  'alloc-table': { summary: 'no RAM for a page table', where: 'mm/pgtable', odds: 30 },
  'swap-full': { summary: 'no slot is free in any swap area', where: 'mm/swap-state', odds: 20 },
  'fork-fails': { summary: 'fork runs out of memory half-way', where: 'mm/fork', odds: 12 },
  'trylock-lost': { summary: 'somebody else has the lock of a folio', where: 'mm/migrate-device, mm/memory', odds: 40 },
  'migration-refused': { summary: 'a page that was unmapped cannot move', where: 'mm/migrate-device', odds: 60 },
  'notifier-retry': { summary: 'an invalidation comes between lookup and use', where: 'drivers/fault-range', odds: 20 },
  'memory-pressure': { summary: 'pages are reclaimed although there is room', where: 'mm/alloc', odds: 30 },
  'device-page': { summary: 'a page of device memory cannot be had', where: 'drivers/device-memory', odds: 200 },
  'device-block': { summary: 'a huge page of device memory cannot be had', where: 'drivers/device-memory', odds: 4 },
  'pagemap-setup': { summary: 'no struct pages for device memory', where: 'mm/memremap', odds: 3 },
  'device-table': { summary: "no memory for a device's page tables", where: 'drivers/dmirror', odds: 150 },
  'eviction-fails': { summary: 'nothing can be evicted from a device', where: 'drivers/eviction', odds: 5 },
  'copy-error': { summary: 'the copy engine fails a copy', where: 'device/copy-engine', odds: 60 },
  'copy-late': { summary: 'a copy waits while its device does other work', where: 'device/copy-engine', odds: 20 },
  'invalidation-late': {
    summary: 'a device goes on with old translations for a while',
    where: 'device/command-processor',
    odds: 20,
  },
  'shootdown-late': {
    summary: 'a CPU goes on with old translations for a while',
    where: 'machine/machine-cpu',
    odds: 10,
  },
  'fault-ring-full': { summary: 'the fault ring holds one record', where: 'device/fault-buffer', odds: 10 },
  'fault-service-late': {
    summary: 'the driver comes late for a batch of faults',
    where: 'drivers/fault-service',
    odds: 10,
  },
  'doorbell-lost': { summary: 'a doorbell is rung in vain', where: 'drivers/device-queue', odds: 400 },
  'doorbell-twice': { summary: 'a doorbell rings twice', where: 'drivers/device-queue', odds: 20 },
  'link-error': { summary: 'a launch is lost on its way to the device', where: 'drivers/test-hmm', odds: 25 },
  'device-reset': {
    summary: 'a device forgets its launches, copies and translations',
    where: 'device/engine',
    odds: 12,
  },
  'device-unplug': {
    summary: "a driver lets go of its device while processes' pages are there",
    where: 'drivers/test-hmm',
    odds: 50,
  },
  'memory-failure': {
    summary: 'a page of RAM fails, and what it holds is lost',
    where: 'mm/memory-failure',
    odds: 3,
  },
  'device-crash': {
    summary: 'the thread of a device dies, and its memory with it',
    where: 'transport/worker-link',
    odds: 30,
  },
} as const satisfies Readonly<Record<string, InjectionPoint>>);

export type InjectionId = keyof typeof INJECTION_POINTS;
export const INJECTION_IDS = Object.freeze(Object.keys(INJECTION_POINTS)) as readonly InjectionId[];

/** Who is asked at each point. */
export interface FaultInjector {
  /** Does it happen, this time? */
  fires(point: InjectionId): boolean;
  /** A number below `n`, for how long or how much. */
  below(n: number): number;
}

/** `should_fail()`: does it happen here? `inject` is null where nothing is injected, as in almost every machine. */
export const injects = (host: { readonly inject: FaultInjector | null }, point: InjectionId): boolean =>
  host.inject?.fires(point) === true;

/** How often a point fires: one in so many times, or exactly the nth time. */
export type InjectionRate = { readonly oneIn: number } | { readonly nth: number };

/**
 * Fires at random, from a seed. Each point draws from a sequence of its own, so that how often one is asked changes nothing
 * for the others. It sleeps until it is armed.
 */
export class SeededInjector implements FaultInjector {
  readonly #rates = new Map<InjectionId, InjectionRate>();
  readonly #random = new Map<InjectionId, Random>();
  readonly #asked = new Map<InjectionId, number>();
  readonly #fired = new Map<InjectionId, number>();
  readonly #amounts: Random;
  armed = false;

  constructor(seed: number, rates: Iterable<readonly [InjectionId, InjectionRate]>) {
    this.#amounts = createRandom(seed);
    for (const [point, rate] of rates) {
      this.#rates.set(point, rate);
      this.#random.set(point, createRandom(seed + 1 + INJECTION_IDS.indexOf(point)));
    }
  }

  fires(point: InjectionId): boolean {
    if (!this.armed) return false;
    const rate = this.#rates.get(point);
    if (rate === undefined) return false;
    const asked = (this.#asked.get(point) ?? 0) + 1;
    this.#asked.set(point, asked);
    const fires = 'nth' in rate ? asked === rate.nth : this.#random.get(point)!.below(rate.oneIn) === 0;
    if (fires) this.#fired.set(point, (this.#fired.get(point) ?? 0) + 1);
    return fires;
  }

  below(n: number): number {
    return this.#amounts.below(n);
  }

  /** Points that are enabled. */
  get enabled(): number {
    return this.#rates.size;
  }

  /** Is the point enabled? */
  has(point: InjectionId): boolean {
    return this.#rates.has(point);
  }

  /** How often a point was asked, armed. */
  asked(point: InjectionId): number {
    return this.#asked.get(point) ?? 0;
  }

  /** How often each point has fired, of those that have. */
  get fired(): Readonly<Partial<Record<InjectionId, number>>> {
    return Object.fromEntries(this.#fired);
  }
}

/** Every point of a list, at its usual odds. */
export const usualRates = (points: readonly InjectionId[]): [InjectionId, InjectionRate][] =>
  points.map((point) => [point, { oneIn: INJECTION_POINTS[point].odds }]);
