/** The checker of device mappings, on machines whose device page tables were tampered with. */
import { expect, test } from 'vitest';
import { DEVICE_PTE_VALID, DEVICE_PTE_WRITE, devicePteMemory, MEMORY_RAM } from '#src/abi/device-pte';
import type { VirtAddr } from '#src/base/brand';
import { deviceMappings } from '#src/check/device-mappings';
import { walk } from '#src/device/page-table';
import { bootMachine, bootWithState } from '#src/machine/boot';
import type { Checker, MachineState } from '#src/machine/state';

const PAGE = 4096;
const PAGES = 4;

/** Word index of the first device's entry of an address, in its page tables. */
function entryOf({ devices: [device] }: MachineState, address: VirtAddr): { words: Int32Array; at: number } {
  const words = new Int32Array(device!.link.memories.pageTables);
  const [context] = device!.driver.inspect!().contexts;
  return { words, at: walk(words, context!.root, address) };
}

/**
 * Two pages of a process are on the device, one is mapped there from RAM for reading, one was never touched; then `tamper`.
 * Returns what the checker says before and after.
 */
async function look(
  addressing: 'legacy' | 'offset',
  tamper: (state: MachineState, page: (index: number) => VirtAddr) => void,
): Promise<string[]> {
  let state: MachineState | undefined;
  const spy: Checker = {
    invariant: 'none',
    statement: 'hands out the state',
    look(looked) {
      state = looked;
      return [];
    },
  };
  await using machine = await bootMachine(
    { addressing, executor: 'inline', memory: { ram: '64MiB' }, devices: [{ memory: '8MiB', chunk: '4MiB' }] },
    [spy, deviceMappings],
  );
  const process = await machine.process();
  const range = await process.mmap({ length: PAGES * PAGE });
  const page = (index: number): VirtAddr => (range.start + index * PAGE) as VirtAddr;
  await process.writeArray('u32', range.start, new Uint32Array(3).fill(1));
  await process.writeArray('u32', page(1), new Uint32Array(1).fill(1));
  const mirror = await process.mirror(0, { onFault: 'mirror' });
  await mirror.migrate({ start: range.start, length: 2 * PAGE }, 'device');
  await mirror.read(page(2), 4);
  expect(await machine.check()).toEqual([]);
  tamper(state!, page);
  return (await machine.check()).map(({ message }) => message);
}

test.each(['legacy', 'offset'] as const)('what is right is not reported (%s)', async (addressing) => {
  expect(await look(addressing, () => {})).toEqual([]);
});

test.each(['legacy', 'offset'] as const)('another frame of the device (%s)', async (addressing) => {
  const messages = await look(addressing, (state, page) => {
    const { words, at } = entryOf(state, page(1));
    words[at + 1]! += 1;
  });
  expect(messages).toEqual([
    expect.stringMatching(/^gpu0, process 1, 0x[0-9a-f]+: is frame \d+ of memory 1 on the dev/),
  ]);
});

test.each(['legacy', 'offset'] as const)('RAM where the page is on the device (%s)', async (addressing) => {
  const messages = await look(addressing, (state, page) => {
    const { words, at } = entryOf(state, page(0));
    expect(devicePteMemory(words[at]!)).not.toBe(MEMORY_RAM);
    const { words: other, at: ram } = entryOf(state, page(2));
    words[at] = other[ram]!;
  });
  expect(messages).toEqual([expect.stringMatching(/of memory 0 on the device, frame \d+ of memory 1 to the CPU/)]);
});

test.each(['legacy', 'offset'] as const)('write access that the CPU does not have (%s)', async (addressing) => {
  const messages = await look(addressing, (state, page) => {
    const { words, at } = entryOf(state, page(2));
    expect(words[at]! & DEVICE_PTE_WRITE).toBe(0);
    words[at]! |= DEVICE_PTE_WRITE;
  });
  expect(messages).toEqual([expect.stringMatching(/is writable on the device, but not to the CPU$/)]);
});

test.each(['legacy', 'offset'] as const)('a mapping that the CPU has not (%s)', async (addressing) => {
  const messages = await look(addressing, (state, page) => {
    const { words, at } = entryOf(state, page(3));
    expect(words[at]! & DEVICE_PTE_VALID).toBe(0);
    const { words: other, at: ram } = entryOf(state, page(2));
    words[at + 1] = other[ram + 1]!;
    words[at] = other[ram]!;
  });
  expect(messages).toEqual([expect.stringMatching(/is mapped on the device, but the CPU has nothing there/)]);
});

/** A page of a coherent device that another device has mapped too; then the other's entry is tampered with. */
test.each([
  ['what is right is not reported', (word: number) => word, []],
  [
    'the same frame of the own memory',
    (word: number) => word + 0x100,
    [/frame 0 of memory 2 on the device, frame 0 of memory 1/],
  ],
  ['the same frame of RAM', (word: number) => word - 0x100, [/frame 0 of memory 0 on the device, frame 0 of memory 1/]],
] as const)('a peer of a coherent device: %s', async (_, tamper, expected) => {
  const { machine, state } = await bootWithState(
    { executor: 'inline', memory: { ram: '32MiB' }, devices: [1, 2].map(() => ({ type: 'coherent', memory: '2MiB' })) },
    [deviceMappings],
  );
  await using booted = machine;
  const process = await booted.process();
  const range = await process.mmap({ length: PAGE });
  await process.write(range.start, Uint8Array.of(1));
  const [own, peer] = [await process.mirror(0), await process.mirror(1, { onFault: 'mirror' })];
  await own.migrate(range, 'device');
  expect(await peer.read(range.start, 1)).toEqual(Uint8Array.of(1));
  const { link, driver } = state.devices[1]!;
  const words = new Int32Array(link.memories.pageTables);
  const at = walk(words, driver.inspect!().contexts[0]!.root, range.start);
  words[at] = tamper(words[at]!);
  const messages = (await machine.check()).map(({ message }) => message);
  expect(messages).toEqual(expected.map((pattern) => expect.stringMatching(pattern)));
});
