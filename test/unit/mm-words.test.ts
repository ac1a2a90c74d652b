/** Numbers as they stand in memory: swap types, page table words, MIGRATE_PFN and HMM words, bit for bit. */
import { describe, expect, it } from 'vitest';
import {
  HMM,
  HMM_PFN_DEVICE_PRIVATE,
  HMM_PFN_DMA_MAPPED,
  HMM_PFN_ERROR,
  HMM_PFN_VALID,
  hmmPfnFlags,
  hmmPfnMapOrder,
  hmmPfnNumber,
  hmmPfnOrderFlags,
  makeHmmPfns,
  setHmmPfn,
} from '#src/abi/hmm-pfn';
import { migrateOffset, migratePfn, mpfnClear, mpfnNumber, mpfnSet } from '#src/abi/mpfn';
import { makePte, PTE_DIRTY, PTE_PRESENT, PTE_USER, PTE_WRITE, ptePfn } from '#src/abi/pte';
import {
  LEGACY_SWAP_TYPES,
  makeNumberEntry,
  SERIES_SWAP_TYPES,
  SWP_MIG_DIRTY,
  SWP_MIG_YOUNG,
  SWP_SOFT_DIRTY,
  softleafNumber,
  swpType,
} from '#src/abi/softleaf';
import type { DevicePrivateOffset, Pfn } from '#src/base/brand';
import { Bench, describeEach, PAGE, run } from './mm-fixture';

describe('swap types', () => {
  it('without the series', () => {
    expect(LEGACY_SWAP_TYPES.typeOf).toMatchObject({
      hwpoison: 24n,
      'migration-read': 25n,
      'migration-read-exclusive': 26n,
      'migration-write': 27n,
      'device-private-write': 28n,
      'device-private-read': 29n,
      'device-exclusive': 30n,
      marker: 31n,
    });
    expect(LEGACY_SWAP_TYPES.maxSwapfiles).toBe(24);
  });

  it('with the series', () => {
    expect(SERIES_SWAP_TYPES.typeOf).toMatchObject({
      hwpoison: 21n,
      'migration-read': 22n,
      'migration-read-exclusive': 23n,
      'migration-write': 24n,
      'device-private-write': 25n,
      'device-private-read': 26n,
      'device-exclusive': 27n,
      'migration-device-private-read': 28n,
      'migration-device-private-read-exclusive': 29n,
      'migration-device-private-write': 30n,
      marker: 31n,
    });
    expect(SERIES_SWAP_TYPES.maxSwapfiles).toBe(21);
    expect(SERIES_SWAP_TYPES.kindOf).toHaveLength(32);
  });
});

describe('words', () => {
  it('a present entry is x86-64', () => {
    const pte = makePte(0x12345 as Pfn, PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_DIRTY);
    expect(pte).toBe(0x12345047n);
    expect(ptePfn(pte)).toBe(0x12345);
  });

  it('a softleaf has type and inverted offset', () => {
    const entry = makeNumberEntry(28n, 0x12345 as Pfn, 0n);
    // type 28 << 59 | ~0x12345 in bits 9..58
    expect(entry).toBe((28n << 59n) | ((~0x12345n & ((1n << 50n) - 1n)) << 9n));
    expect(entry & 0x1ffn).toBe(0n);
    expect(swpType(entry)).toBe(28);
    expect(softleafNumber(entry)).toBe(0x12345);
  });

  it('young and dirty of a migration stand above the number and do not leak into it', () => {
    const entry = makeNumberEntry(27n, (2 ** 40 - 1) as Pfn, SWP_MIG_YOUNG | SWP_MIG_DIRTY);
    expect(softleafNumber(entry)).toBe(2 ** 40 - 1);
    expect(swpType(entry)).toBe(27);
  });

  it('MIGRATE_PFN', () => {
    expect(migratePfn(0x12345 as Pfn)).toBe((0x12345 << 6) | 1);
    expect(migrateOffset(0 as DevicePrivateOffset)).toBe(0x21);
    const word = migratePfn((2 ** 40 - 1) as Pfn);
    const marked = mpfnSet(word, 0b1010);
    expect(marked).toBe((2 ** 40 - 1) * 64 + 0b1011);
    expect(mpfnSet(marked, 0b1010)).toBe(marked);
    expect(mpfnNumber(marked)).toBe(2 ** 40 - 1);
    expect(mpfnClear(marked, 0b10)).toBe((2 ** 40 - 1) * 64 + 0b1001);
    expect(mpfnClear(mpfnClear(marked, 0b10), 0b10)).toBe((2 ** 40 - 1) * 64 + 0b1001);
  });

  it('HMM_PFN', () => {
    const high = (bit: number): bigint => 1n << BigInt(bit);
    expect([HMM.valid.mask, HMM.write.mask, HMM.error.mask]).toEqual([high(63), high(62), high(61)]);
    expect([HMM.dmaMapped.mask, HMM.p2pdma.mask, HMM.p2pdmaBus.mask]).toEqual([high(60), high(59), high(58)]);
    expect(HMM.order.low).toBe(52);
    const pfns = makeHmmPfns(2);
    const words = new BigUint64Array(pfns.buffer);
    for (const number of [5, 2 ** 31 + 5, 2 ** 40 - 1, 2 ** 52 - 1]) {
      words[1] = high(60) | high(61) | high(63) | 0xffffn;
      setHmmPfn(pfns, 1, number, HMM_PFN_VALID | HMM_PFN_DEVICE_PRIVATE | hmmPfnOrderFlags(9));
      // Of the input only what is sticky stays.
      expect(words[1]).toBe(high(63) | high(60) | high(57) | (9n << 52n) | BigInt(number));
      expect(hmmPfnNumber(pfns, 1)).toBe(number);
      expect(hmmPfnMapOrder(pfns, 1)).toBe(9);
      expect(hmmPfnFlags(pfns, 1) & HMM_PFN_DMA_MAPPED).not.toBe(0);
      expect(hmmPfnFlags(pfns, 1) & HMM_PFN_ERROR).toBe(0);
    }
    expect(words[0]).toBe(0n);
  });
});

describeEach('entries of device private pages', (addressing) => {
  it('writable and read-only pages, by raw word', () => {
    const bench = new Bench(addressing);
    const mm = bench.mm();
    const [rw, ro] = [bench.mmap(mm, 1), bench.mmap(mm, 1, 'r')];
    const driver = bench.driver();
    bench.store(mm, rw, 1);
    bench.load(mm, ro);
    run(driver.toDevice(mm, rw, 1));
    run(driver.toDevice(mm, ro, 1));
    const types = addressing === 'legacy' ? [28n, 29n] : [25n, 26n];
    const first = addressing === 'legacy' ? BigInt((driver.pgmap.range!.start as number) / PAGE) : 0n;
    const word = (type: bigint, number: bigint): bigint => (type << 59n) | ((~number & ((1n << 50n) - 1n)) << 9n);
    expect(bench.pte(mm, rw)).toBe(word(types[0]!, first) | SWP_SOFT_DIRTY);
    expect(bench.pte(mm, ro)).toBe(word(types[1]!, first + 1n));
    bench.finish();
  });
});
