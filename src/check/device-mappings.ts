/**
 * Holds: each valid entry of a device's page tables is a subset of what the CPU's page tables allow. It names the same page
 * (in RAM, in this device's own memory, or in that of a coherent device), and is writable only where a CPU entry of a writable
 * mapping is; so no device mapping has outlived its invalidation.
 *
 * Does not see: stale entries in a device's TLB; drivers without `inspect`. Suspended for devices that are lost, and where devices
 * are threads while anything is in flight.
 */
import { TASK_SIZE } from '../abi/address.js';
import { DEVICE_PTE_WRITE, devicePteMemory, MEMORY_RAM, memoryOfDevice } from '../abi/device-pte.js';
import type { Page } from '../base/brand.js';
import type { DriverInspection } from '../drivers/driver.js';
import type { Checker, MachineDevice, SharedFindings } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import {
  type CpuEntry,
  cpuEntries,
  type DeviceEntry,
  type DeviceTables,
  deviceEntries,
  placeText,
} from './page-tables.js';

/** What the CPU's entry lets the device map: memory, frame, and whether for writing. */
interface Allowed {
  readonly memory: number;
  readonly frame: number;
  readonly write: boolean;
}

/** A device and what its driver says of it. */
interface Inspected {
  readonly device: MachineDevice;
  readonly inspection: DriverInspection;
}

/** The device whose memory a page is in, if any, and the frame there. */
function holderOf(all: readonly Inspected[], page: Page): (Inspected & { readonly frame: number }) | null {
  for (const each of all) {
    const frame = each.inspection.frameOf(page);
    if (frame !== null) return { device: each.device, inspection: each.inspection, frame };
  }
  return null;
}

function allowed(
  kernel: Kernel,
  { inspection }: Inspected,
  all: readonly Inspected[],
  entry: CpuEntry,
): Allowed | null {
  const { kind, writable, content: page } = entry;
  const holder = holderOf(all, page);
  const memory = holder === null ? MEMORY_RAM : memoryOfDevice(holder.device.index);
  const frame = holder === null ? kernel.memmap.ramFrame(page) : holder.frame;
  // Whoever follows a physical address reaches the memory of a coherent device; private memory, only its device and the peers.
  const peer = holder?.inspection.owner === inspection.owner;
  switch (kind) {
    case 'present':
      return holder?.device.spec.type === 'private' ? null : { memory, frame, write: writable };
    case 'device-private-write':
      return peer ? { memory, frame, write: true } : null;
    case 'device-private-read':
      return peer ? { memory, frame, write: false } : null;
    case 'device-exclusive':
      return holder?.device.spec.type === 'private' ? null : { memory, frame, write: true };
    default:
      return null;
  }
}

function wrong(entry: DeviceEntry, cpu: Allowed | null): string | null {
  if (cpu === null) return 'is mapped on the device, but the CPU has nothing there that it could map';
  const memory = devicePteMemory(entry.word);
  if (memory !== cpu.memory || entry.frame !== cpu.frame) {
    return `is frame ${entry.frame} of memory ${memory} on the device, frame ${cpu.frame} of memory ${cpu.memory} to the CPU`;
  }
  if (entry.word & DEVICE_PTE_WRITE && !cpu.write) return 'is writable on the device, but not to the CPU';
  return null;
}

/** Views of tables: making one takes longer than a walk. */
const views = new WeakMap<SharedArrayBuffer, DeviceTables>();

function tablesOf({ link }: MachineDevice): DeviceTables {
  const { pageTables } = link.memories;
  const known = views.get(pageTables);
  if (known !== undefined) return known;
  const view = { words: new Int32Array(pageTables), floats: new Float64Array(pageTables) };
  views.set(pageTables, view);
  return view;
}

/** Where an address space has ever had mappings, as one range: there its devices may still have some. */
const reaches = new WeakMap<MmStruct, { start: number; end: number }>();

function reachOf(mm: MmStruct): { readonly start: number; readonly end: number } {
  let reach = reaches.get(mm);
  if (reach === undefined) reaches.set(mm, (reach = { start: TASK_SIZE, end: 0 }));
  for (const { start, end } of mm.vmas) {
    if (start < reach.start) reach.start = start;
    if (end > reach.end) reach.end = end;
  }
  return reach;
}

function lookAt(
  problems: string[],
  kernel: Kernel,
  inspected: Inspected,
  all: readonly Inspected[],
  mm: MmStruct,
  root: number,
  shared?: SharedFindings,
): void {
  const { device } = inspected;
  // Both walks go by address. A mirror may outlive its process, in a child that inherited it: its tables are gone.
  const ofCpu = kernel.mms.has(mm) ? cpuEntries(kernel, mm, shared) : [];
  let at = 0;
  const { start, end } = reachOf(mm);
  const tables = tablesOf(device);
  const ofDevice = shared?.betweenSteps ? deviceEntries(tables, root, start, end) : deviceEntries(tables, root);
  for (const entry of ofDevice) {
    while (at < ofCpu.length && ofCpu[at]!.address < entry.address) at++;
    const cpu = ofCpu[at];
    const isThere = cpu?.address === entry.address;
    const problem = wrong(entry, isThere ? allowed(kernel, inspected, all, cpu!) : null);
    if (problem) problems.push(`${device.spec.name}, ${placeText(mm, entry.address)}: ${problem}`);
  }
}

export const deviceMappings: Checker = {
  invariant: 'device-mappings',
  statement: 'each device mapping is a subset of what the CPU page table allows',
  always: true,
  look({ kernel, devices }, shared) {
    const problems: string[] = [];
    const all: Inspected[] = [];
    for (const device of devices) {
      const inspection = device.driver.inspect?.();
      if (inspection !== undefined) all.push({ device, inspection });
    }
    for (const inspected of all) {
      if (inspected.device.link.lost) continue;
      for (const { mm, root } of inspected.inspection.contexts) {
        lookAt(problems, kernel, inspected, all, mm, root, shared);
      }
    }
    return problems;
  },
};
