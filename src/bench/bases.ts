/** The bases: the least that the computer must do for a unit of work, each as plain as JavaScript can have it. */
import { Worker } from 'node:worker_threads';
import { PAGE_SIZE, PMD_SIZE } from '../abi/address.js';
import type { Pte } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { compareExchangePte, load32, readPte, setPte, store32 } from '../sync/word.js';
import type { Base } from './benchmark.js';
import { nsPer, nsPerAsync } from './clock.js';

const MEMORY = 64 * 2 ** 20;
/** Words of the table that atomics go to: of 64 MiB. */
const PAGES = MEMORY / PAGE_SIZE;
const PARTNER = new URL('../../workers/echo.js', import.meta.url);

/** Copies between two SharedArrayBuffers of 64 MiB; a unit is a page. */
function copyBase(name: string, chunk: number): Base {
  return {
    name,
    start() {
      const from = new Uint8Array(new SharedArrayBuffer(MEMORY)).fill(1);
      const to = new Uint8Array(new SharedArrayBuffer(MEMORY)).fill(2);
      const copyAll = (): void => {
        for (let at = 0; at < MEMORY; at += chunk) to.set(from.subarray(at, at + chunk), at);
      };
      return { sample: () => nsPer(PAGES, copyAll) };
    },
  };
}

export const PAGE_COPY = copyBase('copy of a page', PAGE_SIZE);
export const HUGE_COPY = copyBase('copy of 2 MiB, a page of it', PMD_SIZE);

const ROUND_TRIPS = 500;

/** A word to another thread that spins for it, its answer, and a copy of a page: what a fault that a device serves must cost. */
export const ROUND_TRIP_AND_COPY: Base = {
  name: 'spin round trip and copy of a page',
  async start() {
    const words = new Int32Array(new SharedArrayBuffer(256));
    const pages = new Uint8Array(new SharedArrayBuffer(2 * ROUND_TRIPS * PAGE_SIZE)).fill(1);
    const partner = new Worker(PARTNER, { workerData: words });
    const exited = new Promise((resolve) => partner.once('exit', resolve));
    await new Promise((resolve) => partner.once('message', resolve));
    let sent = 0;
    const roundTrips = (): void => {
      for (let i = 0; i < ROUND_TRIPS; i++) {
        store32(words, 0, ++sent);
        while (load32(words, 32) !== sent);
        pages.copyWithin((ROUND_TRIPS + i) * PAGE_SIZE, i * PAGE_SIZE, (i + 1) * PAGE_SIZE);
      }
    };
    return {
      // The partner sleeps between samples, or it would stand in the way of whoever is measured.
      async sample() {
        partner.postMessage(sent);
        await new Promise((resolve) => partner.once('message', resolve));
        const ns = nsPer(ROUND_TRIPS, roundTrips);
        store32(words, 0, -1);
        return ns;
      },
      async dispose() {
        await partner.terminate();
        await exited;
      },
    };
  },
};

const LOADS = 2 ** 22;

/** Loads of a plain typed array of 32 KiB. */
export const PLAIN_LOAD: Base = {
  name: 'plain load',
  start() {
    const words = Int32Array.from({ length: 8 * 1024 }, (_, i) => i * 7);
    // In a function of its own, whose variables live in registers: the base has to be as fast as it can be.
    const loadAll = (): number => {
      let sum = 0;
      for (let i = 0; i < LOADS; i++) sum = (sum + words[i & 8191]!) | 0;
      return sum;
    };
    const expected = loadAll();
    const check = (): void => assert(loadAll() === expected, 'words that nobody writes have changed');
    return { sample: () => nsPer(LOADS, check) };
  },
};

const WORD_ROUNDS = 16;

/** `count` atomic loads of 64-bit words of a page table, where one page's follow those of another. */
export function atomicLoads(count: number): Base {
  return {
    name: count === 1 ? 'atomic load' : `${count} atomic loads`,
    start() {
      const table = new BigUint64Array(new SharedArrayBuffer(PAGES * 8)).fill(5n);
      const loadAll = (): void => {
        let others = 0;
        for (let i = 0; i < PAGES * WORD_ROUNDS; i++) {
          for (let k = 0; k < count; k++) if (readPte(table, (i + k * 512) % PAGES) !== 5n) others++;
        }
        assert(others === 0, 'a table that nobody writes has changed');
      };
      return { sample: () => nsPer(PAGES * WORD_ROUNDS, loadAll) };
    },
  };
}

/** A compare-exchange and a store of a 64-bit word: what changing a page's entry and its counts must cost. */
export const TWO_ATOMICS: Base = {
  name: '2 atomic operations',
  start() {
    const table = new BigUint64Array(new SharedArrayBuffer(PAGES * 8));
    const change = (): void => {
      for (let i = 0; i < PAGES * WORD_ROUNDS; i++) {
        const at = i % PAGES;
        if (compareExchangePte(table, at, 0n as Pte, 7n as Pte)) setPte(table, at, 0n as Pte);
      }
    };
    return { sample: () => nsPer(PAGES * WORD_ROUNDS, change) };
  },
};

/** Filling as many bytes as the struct pages of 1 GiB take; a unit is a struct page. */
export const MEMSET: Base = {
  name: 'memset of 64 bytes',
  start() {
    const structPages = 2 ** 30 / PAGE_SIZE;
    const bytes = new Uint8Array(new SharedArrayBuffer(structPages * 64)).fill(1);
    return { sample: () => nsPer(structPages, () => bytes.fill(2)) };
  },
};

/** Start and stop of two threads that do nothing. */
export const TWO_THREADS: Base = {
  name: 'start and stop of 2 bare threads',
  start() {
    const bareThread = async (): Promise<void> => {
      const thread = new Worker('', { eval: true });
      await new Promise((resolve) => thread.once('exit', resolve));
    };
    return { sample: () => nsPerAsync(1, () => Promise.all([bareThread(), bareThread()])) };
  },
};
