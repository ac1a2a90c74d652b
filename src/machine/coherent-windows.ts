/**
 * Where the memory of coherent devices stands in the physical address map. Firmware puts it there, beside RAM and in every
 * addressing alike, and calls it "Soft Reserved": memory that the kernel leaves to a driver. (lib/test_hmm.c is told with
 * `spm_addr_dev0` and `spm_addr_dev1`; amdkfd asks the hardware.)
 *
 * Struct pages come by whole sections, so a window starts at one, and no RAM and no other window is in any that it touches.
 * Not modelled: windows below 4 GiB, memory that appears after boot.
 */
import { SECTION_SIZE } from '../abi/address.js';
import { formatAddress, formatBytes } from '../base/bytes.js';
import { type LayoutEntry, type MemorySpec, mapEntries } from './layout.js';

const SOFT_RESERVED = 'Soft Reserved';
/** First address that is tried where the spec says none. */
const CHOSEN_FROM = 2 ** 32;

/** What matters of a device here. */
export interface WindowedDevice {
  /** Bytes. */
  readonly memory: number;
  readonly type: 'private' | 'coherent';
  /** First physical address; `null` where none is given, or none is had. */
  readonly address: number | null;
}

/** Refuse a device's field, in a predicate. */
type Refuse = (index: number, field: 'address' | 'memory', message: string) => never;

const sectionUp = (address: number): number => Math.ceil(address / SECTION_SIZE) * SECTION_SIZE;
const overlap = (a: { start: number; end: number }, b: { start: number; end: number }): boolean =>
  a.start <= b.end && b.start <= a.end;

const windowOf = (start: number, bytes: number): LayoutEntry => ({
  start,
  end: start + bytes - 1,
  name: SOFT_RESERVED,
  kind: 'reserved',
  children: [],
});

/** First physical address that no memory can have: neither the CPU nor the direct map gets there. */
const limitOf = ({ physicalBits, fiveLevelPaging }: MemorySpec): number =>
  2 ** Math.min(physicalBits, fiveLevelPaging ? 52 : 46);

/** Is the window inside a range that the map already has for this purpose? */
const isInside = (window: LayoutEntry, entry: LayoutEntry): boolean =>
  entry.name === SOFT_RESERVED && entry.start <= window.start && window.end <= entry.end;

/** What of the map is in the way. */
function inTheWay(window: LayoutEntry, entries: readonly LayoutEntry[], windows: readonly LayoutEntry[]) {
  const sections = { start: window.start, end: sectionUp(window.end + 1) - 1 };
  return (
    windows.find((other) => overlap(sections, other)) ??
    entries.find((entry) => overlap(entry.kind === 'ram' ? sections : window, entry) && !isInside(window, entry))
  );
}

/** The address of each device's memory, `null` for a private device. Those that are given come first. */
export function placeWindows(
  memory: MemorySpec,
  devices: readonly WindowedDevice[],
  refuse: Refuse,
): (number | null)[] {
  const entries = mapEntries(memory);
  const limit = limitOf(memory);
  const windows: LayoutEntry[] = [];
  const addresses = devices.map((device, index) => {
    const { type, address, memory: bytes } = device;
    if (address === null) return null;
    if (type === 'private') return refuse(index, 'address', 'must be left out: private memory has no physical address');
    const window = windowOf(address, bytes);
    const text = `${formatBytes(bytes)} at ${formatAddress(address)}`;
    if (address % SECTION_SIZE !== 0) {
      return refuse(
        index,
        'address',
        `must be a multiple of ${formatBytes(SECTION_SIZE)}, not ${formatAddress(address)}`,
      );
    }
    if (window.end >= limit) {
      return refuse(index, 'address', `must leave room below ${formatAddress(limit)}, where memory ends, for ${text}`);
    }
    const other = inTheWay(window, entries, windows);
    if (other !== undefined) {
      const range = `${other.name} (${formatAddress(other.start)}-${formatAddress(other.end)})`;
      return refuse(index, 'address', `must not lead to ${range}, which is in the way of ${text}`);
    }
    windows.push(window);
    return address;
  });
  return devices.map(({ type, memory: bytes }, index) => {
    if (type === 'private' || addresses[index] !== null) return addresses[index]!;
    for (let start = CHOSEN_FROM; start + bytes <= limit; ) {
      const window = windowOf(start, bytes);
      const other = inTheWay(window, entries, windows);
      if (other === undefined) {
        windows.push(window);
        return start;
      }
      start = sectionUp(other.end + 1);
    }
    const range = `between ${formatAddress(CHOSEN_FROM)} and ${formatAddress(limit)}`;
    return refuse(index, 'memory', `must fit into the physical address map: ${range} no gap has ${formatBytes(bytes)}`);
  });
}

/** What the windows of the devices add to the map. Precondition: `placeWindows` has placed them. */
export const windowEntries = (memory: MemorySpec, devices: readonly WindowedDevice[]): LayoutEntry[] =>
  devices
    .filter(({ address }) => address !== null)
    .map(({ address, memory: bytes }) => windowOf(address!, bytes))
    .filter((window) => !mapEntries(memory).some((entry) => isInside(window, entry)));
