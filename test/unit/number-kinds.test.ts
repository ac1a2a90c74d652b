/** The checker of kinds of numbers, on machines whose page tables were tampered with, and on kernels that forget. */
import { describe, expect, test } from 'vitest';
import {
  halvesNumber,
  highType,
  LOW_ACCESSED,
  LOW_PRESENT,
  leafHigh,
  leafLow,
  presentHigh,
  presentLow,
} from '#src/abi/pte-halves';
import type { SoftLeafKind } from '#src/abi/softleaf';
import type { Page, VirtAddr } from '#src/base/brand';
import { numberKinds } from '#src/check/number-kinds';
import { explore } from '#src/explore/explore';
import { bootWithState } from '#src/machine/boot';
import type { Kernel } from '#src/mm/kernel';
import { leafTable, pteIndex } from '#src/mm/pgtable';
import { setPteHalves } from '#src/sync/word';
import { parseProgram } from '#src/workload/program/parse';

interface Entry {
  readonly kernel: Kernel;
  readonly number: number;
  set(low: number, high: number): void;
  /** Number of a swap type. */
  type(kind: SoftLeafKind): number;
}

/** One page of a process is on the device; then `tamper` with its entry. Returns what the checker says. */
async function look(addressing: 'legacy' | 'offset', tamper: (entry: Entry) => void): Promise<string[]> {
  const spec = {
    addressing,
    executor: 'inline',
    memory: { ram: '64MiB' },
    devices: [{ memory: '8MiB', chunk: '4MiB' }],
  } as const;
  const { machine, state } = await bootWithState(spec, [numberKinds]);
  await using _ = machine;
  const process = await machine.process();
  const { start } = await process.mmap({ length: 4096 });
  await process.writeArray('u32', start, new Uint32Array(1).fill(1));
  const mirror = await process.mirror(0, { onFault: 'mirror' });
  await mirror.migrate({ start, length: 4096 }, 'device');
  const { kernel } = state;
  const [mm] = kernel.mms;
  const at = leafTable(kernel, mm!, start as VirtAddr) + pteIndex(start);
  const low = kernel.ram.halves[2 * at]!;
  const high = kernel.ram.halves[2 * at + 1]!;
  expect(kernel.addressing.swapTypes.kindOf[highType(high)]).toBe('device-private-write');
  expect(await machine.check()).toEqual([]);
  tamper({
    kernel,
    number: halvesNumber(low, high),
    set: (newLow, newHigh) => setPteHalves(kernel.ram.words, at, newLow, newHigh),
    type: (kind) => Number(kernel.addressing.swapTypes.typeOf[kind]),
  });
  const found = (await machine.check()).map(({ message }) => message);
  // Or the process could not be taken down.
  setPteHalves(kernel.ram.words, at, low, high);
  return found;
}

const set = ({ set: write, type }: Entry, kind: SoftLeafKind, number: number): void =>
  write(leafLow(number, 0), leafHigh(type(kind), number, 0));

describe.each(['legacy', 'offset'] as const)('%s', (addressing) => {
  test('what is right is not reported', async () => {
    expect(await look(addressing, () => {})).toEqual([]);
    expect(await look(addressing, (entry) => set(entry, 'device-private-read', entry.number))).toEqual([]);
  });

  test('a number that nothing has', async () => {
    const [message] = await look(addressing, (entry) => set(entry, 'device-private-read', 2 ** 30));
    expect(message).toMatch(/a device-private-read entry has (offset|PFN) 0x40000000, which names no page/);
  });

  test('an exclusive entry names no device private page', async () => {
    const found = await look(addressing, (entry) => set(entry, 'device-exclusive', entry.number + 0x100));
    // The offset of a device's page is the PFN of a page of RAM: that is what makes such mistakes hard to see.
    expect(found).toEqual(addressing === 'offset' ? [] : [expect.stringMatching(/it is device private/)]);
  });

  test('a device private entry of a page of RAM', async () => {
    const found = await look(addressing, (entry) => {
      const page = (entry.kernel.memmap.ramPage + 300) as Page;
      set(entry, 'device-private-write', entry.kernel.memmap.pageToPfn(page));
    });
    expect(found).toEqual(addressing === 'legacy' ? [expect.stringMatching(/it is not device private/)] : []);
  });
});

test('a device private page that is present (legacy)', async () => {
  const found = await look('legacy', ({ number, set: write }) =>
    write(presentLow(number, LOW_PRESENT | LOW_ACCESSED), presentHigh(number)),
  );
  expect(found).toEqual([expect.stringMatching(/is present, but device private/)]);
});

describe('kernels that forget', () => {
  const MOVED = parseProgram('pages 1; init: store 0 1; A: todevice 0 on 0', 'test');

  test.each([
    ['remove-migration-pte-number', /device-private-write entry has offset 0x\w+, which names no page/],
    ['entry-to-page', /has offset 0x0, page \d+, but the kernel makes page 0 of it/],
  ])('%s', (id, message) => {
    const { failure } = explore(MOVED, { strategy: 'round-robin', sites: { forget: [id] } });
    expect(failure).toMatchObject({ invariant: 'number-kinds', message: expect.stringMatching(message) });
  });
});
