/** The checker of CPU TLBs, on machines whose page tables were changed without a flush. */
import { expect, test } from 'vitest';
import { PTE_DIRTY, PTE_PRESENT, PTE_WRITE } from '#src/abi/pte';
import type { VirtAddr } from '#src/base/brand';
import { cpuTlb } from '#src/check/cpu-tlb';
import { bootWithState } from '#src/machine/boot';
import { leafTable, pteIndex } from '#src/mm/pgtable';

const PAGE = 4096;

/**
 * A process has stored to two pages, the second on a coherent device, and loaded from a third. Then entry `page` is changed
 * behind everybody's back. Returns what the checker says.
 */
async function look(page: number, change: (pte: bigint, entries: bigint[]) => bigint): Promise<string[]> {
  const { machine, state } = await bootWithState(
    { executor: 'inline', memory: { ram: '32MiB' }, devices: [{ type: 'coherent', memory: '2MiB' }] },
    [cpuTlb],
  );
  await using _ = machine;
  const process = await machine.process();
  const range = await process.mmap({ length: 3 * PAGE });
  const mirror = await process.mirror(0);
  const at = (index: number): VirtAddr => (range.start + index * PAGE) as VirtAddr;
  await mirror.migrate({ start: at(1), length: PAGE }, 'device');
  for (const index of [0, 1]) await process.write(at(index), Uint8Array.of(1));
  await process.read(at(2), 1);
  expect(await machine.check()).toEqual([]);
  const { kernel } = state;
  const first = leafTable(kernel, [...kernel.mms][0]!, range.start as VirtAddr) + pteIndex(range.start);
  const entries = [0, 1, 2].map((index) => kernel.ram.words[first + index]!);
  kernel.ram.words[first + page] = change(entries[page]!, entries);
  const messages = (await machine.check()).map(({ message }) => message);
  kernel.ram.words[first + page] = entries[page]!;
  return messages;
}

test('an entry that is gone', async () => {
  for (const page of [0, 1, 2]) {
    const message = expect.stringMatching(
      /^CPU 0, process 1, 0x[0-9a-f]+: page \d+ is in the TLB, but nothing is mapp/,
    );
    expect(await look(page, () => 0n)).toEqual([message]);
    expect(await look(page, (pte) => pte & ~PTE_PRESENT)).toEqual([message]);
  }
});

test('an entry that names another page: RAM for the device, the device for RAM', async () => {
  const message = expect.stringMatching(/page (\d+) is in the TLB, but page (?!\1)\d+ is mapped$/);
  expect(await look(0, (_, entries) => entries[1]!)).toEqual([message]);
  expect(await look(1, (_, entries) => entries[0]!)).toEqual([message]);
  expect(await look(2, (_, entries) => entries[1]!)).toEqual([message]);
});

test('an entry that was made read-only or clean under a CPU that may store', async () => {
  const message = expect.stringMatching(/the TLB lets the CPU store, but the page table says read-only or clean$/);
  for (const page of [0, 1]) {
    expect(await look(page, (pte) => pte & ~PTE_WRITE)).toEqual([message]);
    expect(await look(page, (pte) => pte & ~PTE_DIRTY)).toEqual([message]);
  }
});

test('more rights than the TLB knows of are no matter', async () => {
  expect(await look(2, (pte) => pte | PTE_DIRTY)).toEqual([]);
});
