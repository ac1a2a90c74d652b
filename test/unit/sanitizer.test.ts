/** The sanitizer, on machines whose memory was tampered with. */
import { expect, test } from 'vitest';
import { halvesPfn } from '#src/abi/pte-halves';
import type { Page, Pfn, VirtAddr } from '#src/base/brand';
import { sanitizer } from '#src/check/sanitizer';
import { bootWithState } from '#src/machine/boot';
import type { Kernel } from '#src/mm/kernel';
import { leafTable, pteIndex } from '#src/mm/pgtable';
import { pageRefAdd } from '#src/sync/page-ref';

/** One page of a process is in RAM; then `tamper`, and `mend` before the machine is taken down. Returns what the sanitizer says. */
async function look(
  tamper: (kernel: Kernel, page: Page) => void,
  mend: (kernel: Kernel, page: Page) => void,
  checks = true,
) {
  const spec = { executor: 'inline', checks, memory: { ram: '64MiB' }, devices: [] } as const;
  const { machine, state } = await bootWithState(spec, [sanitizer]);
  await using _ = machine;
  const process = await machine.process();
  const { start } = await process.mmap({ length: 4096 });
  await process.writeArray('u32', start, new Uint32Array(1).fill(1));
  const { kernel } = state;
  const [mm] = kernel.mms;
  const at = leafTable(kernel, mm!, start as VirtAddr) + pteIndex(start);
  const page = kernel.memmap.pfnToPage(halvesPfn(kernel.ram.halves[2 * at]!, kernel.ram.halves[2 * at + 1]!) as Pfn);
  expect(await machine.check()).toEqual([]);
  tamper(kernel, page);
  const found = (await machine.check()).map(({ message }) => message);
  mend(kernel, page);
  return found;
}

const poison = ({ ram, memmap }: Kernel, page: Page): void => ram.poisonFrame(memmap.ramFrame(page));

test('a page that is mapped, but free', async () => {
  const found = await look(
    ({ memmap }, page) => void pageRefAdd(memmap.words, page, -1),
    ({ memmap }, page) => void pageRefAdd(memmap.words, page, 1),
  );
  expect(found).toEqual([expect.stringMatching(/page \d+ \(present\) is mapped here, but free/)]);
});

test('a frame that nobody initialised, where frames are poisoned', async () => {
  const found = await look(poison, () => {});
  expect(found).toEqual([expect.stringMatching(/was mapped before anything was written to it/)]);
  expect(await look(poison, () => {}, false)).toEqual([]);
});

test('a frame that was written in part is nobody’s mistake', async () => {
  const found = await look(
    (kernel, page) => {
      poison(kernel, page);
      kernel.ram.bytes(kernel.memmap.ramFrame(page), 4092).fill(0);
    },
    () => {},
  );
  expect(found).toEqual([]);
});
