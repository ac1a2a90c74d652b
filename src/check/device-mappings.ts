/**
 * Holds: each valid entry of a device's page tables is a subset of what the CPU's page tables allow. It names the same page
 * (RAM, or this device's own memory), and is writable only where a CPU entry of a writable mapping is; so no device
 * mapping has outlived its invalidation.
 *
 * Does not see: stale entries in a device's TLB; drivers without `inspect`. Suspended while an invalidation is in flight,
 * and for devices that are lost.
 */
import { DEVICE_PTE_WRITE, devicePteMemory, MEMORY_RAM, memoryOfDevice } from '../abi/device-pte.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import type { DriverInspection } from '../drivers/driver.js';
import type { Checker, MachineDevice } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { type CpuEntry, cpuEntries, type DeviceEntry, deviceEntries, placeText } from './page-tables.js';

/** What the CPU's entry lets the device map: memory, frame, and whether for writing. */
interface Allowed {
  readonly memory: number;
  readonly frame: number;
  readonly write: boolean;
}

function allowed(kernel: Kernel, device: MachineDevice, inspection: DriverInspection, entry: CpuEntry): Allowed | null {
  const { kind, page, writable } = entry;
  const own = page === NULL_PAGE ? null : inspection.frameOf(page);
  const memory = own === null ? MEMORY_RAM : memoryOfDevice(device.index);
  const frame = own ?? kernel.memmap.ramFrame(pageOrZero(kernel, page));
  switch (kind) {
    case 'present':
      return { memory, frame, write: writable };
    case 'device-private-write':
      return own === null ? null : { memory, frame, write: true };
    case 'device-private-read':
      return own === null ? null : { memory, frame, write: false };
    case 'device-exclusive':
      return { memory, frame, write: true };
    default:
      return null;
  }
}

const pageOrZero = (kernel: Kernel, page: Page): Page => (page === NULL_PAGE ? kernel.zeroPage : page);

function wrong(entry: DeviceEntry, cpu: Allowed | null): string | null {
  if (cpu === null) return 'is mapped on the device, but the CPU has nothing there that it could map';
  const memory = devicePteMemory(entry.word);
  if (memory !== cpu.memory || entry.frame !== cpu.frame) {
    return `is frame ${entry.frame} of memory ${memory} on the device, frame ${cpu.frame} of memory ${cpu.memory} to the CPU`;
  }
  if (entry.word & DEVICE_PTE_WRITE && !cpu.write) return 'is writable on the device, but not to the CPU';
  return null;
}

function* lookAt(kernel: Kernel, device: MachineDevice, inspection: DriverInspection, mm: MmStruct, root: number) {
  // Both walks go by address.
  const cpuWalk = cpuEntries(kernel, mm);
  let cpu = cpuWalk.next();
  for (const entry of deviceEntries(new Int32Array(device.link.memories.pageTables), root)) {
    while (!cpu.done && cpu.value.address < entry.address) cpu = cpuWalk.next();
    const isThere = !cpu.done && cpu.value.address === entry.address;
    const problem = wrong(entry, isThere ? allowed(kernel, device, inspection, cpu.value as CpuEntry) : null);
    if (problem) yield `${device.spec.name}, ${placeText(mm, entry.address)}: ${problem}`;
  }
}

export const deviceMappings: Checker = {
  invariant: 'device-mappings',
  statement: 'each device mapping is a subset of what the CPU page table allows',
  *look({ kernel, devices }) {
    for (const device of devices) {
      const inspection = device.link.lost ? undefined : device.driver.inspect?.();
      for (const { mm, root } of inspection?.contexts ?? []) yield* lookAt(kernel, device, inspection!, mm, root);
    }
  },
};
