/** The sanitizer, on a machine whose memory was tampered with. */
import { expect, test } from 'vitest';
import { halvesPfn } from '#src/abi/pte-halves';
import type { Page, Pfn } from '#src/base/brand';
import { sanitizer } from '#src/check/sanitizer';
import { bootWithState } from '#src/machine/boot';
import type { Kernel } from '#src/mm/kernel';
import { leafTable, pteIndex } from '#src/mm/pgtable';
import { pageRefAdd } from '#src/sync/page-ref';

/** One page of a process is in RAM; then `tamper`, and `mend` before the machine is taken down. Returns what the sanitizer says. */
async function look(tamper: (kernel: Kernel, page: Page) => void, mend: (kernel: Kernel, page: Page) => void) {
  const spec = { executor: 'inline', memory: { ram: '64MiB' }, devices: [] } as const;
  const { machine, state } = await bootWithState(spec, [sanitizer]);
  await using _ = machine;
  const process = await machine.process();
  const { start } = await process.mmap({ length: 4096 });
  await process.writeArray('u32', start, new Uint32Array(1).fill(1));
  const { kernel } = state;
  const [mm] = kernel.mms;
  const at = leafTable(kernel, mm!, start) + pteIndex(start);
  const page = kernel.memmap.pfnToPage(halvesPfn(kernel.ram.halves[2 * at]!, kernel.ram.halves[2 * at + 1]!) as Pfn);
  expect(await machine.check()).toEqual([]);
  tamper(kernel, page);
  const found = (await machine.check()).map(({ message }) => message);
  mend(kernel, page);
  return found;
}

test('a page that is mapped, but free', async () => {
  const found = await look(
    ({ memmap }, page) => void pageRefAdd(memmap.words, page, -1),
    ({ memmap }, page) => void pageRefAdd(memmap.words, page, 1),
  );
  expect(found).toEqual([expect.stringMatching(/page \d+ \(present\) is mapped here, but free/)]);
});
