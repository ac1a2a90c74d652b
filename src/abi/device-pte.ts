/**
 * A device's page table entry: two 32-bit words in shared memory, written by the driver on the kernel's thread and
 * walked by the device's MMU.
 *
 * The writer stores the frame first and the flags (with `valid`) last; it clears only the flags, and never changes a
 * valid entry into another valid entry that names another frame without an invalidation in between. So a walker which
 * reads flags, then frame, never sees a mixture (it is the walker's own thread that acknowledges the invalidation).
 */
import { bit, bits, defineBits } from './layout.js';

export const DEVICE_PTE = defineBits('device pte, word 0', 32, {
  valid: bit(0, 'entry (or table) present'),
  write: bit(1, 'stores allowed'),
  atomic: bit(2, 'atomics allowed: never on system memory that the CPU can reach at the same time'),
  exclusive: bit(3, 'software: a page of RAM that this mirror took exclusively (make_device_exclusive)'),
  parked: bit(4, 'software, with `valid` clear: the page may be about to move; valid again if it does not'),
  memory: bits(8, 15, 'which memory the frame belongs to: 0 RAM, 1 + k memory of device k'),
});

export const DEVICE_PTE_VALID = 1 << DEVICE_PTE.valid.low;
export const DEVICE_PTE_WRITE = 1 << DEVICE_PTE.write.low;
export const DEVICE_PTE_ATOMIC = 1 << DEVICE_PTE.atomic.low;
export const DEVICE_PTE_EXCLUSIVE = 1 << DEVICE_PTE.exclusive.low;
export const DEVICE_PTE_PARKED = 1 << DEVICE_PTE.parked.low;
export const DEVICE_PTE_MEMORY_SHIFT = DEVICE_PTE.memory.low;

/** Entries of a device page table: 512 of 8 bytes, four levels, like the CPU's. Word index of an entry is 2 * index. */
export const DEVICE_TABLE_WORDS = 1024;

/** Number of a memory in device PTEs and copy packets. */
export type MemoryId = number;
export const MEMORY_RAM: MemoryId = 0;
export const memoryOfDevice = (device: number): MemoryId => 1 + device;
/** For people: whose memory it is. */
export const memoryName = (memory: MemoryId): string =>
  memory === MEMORY_RAM ? 'RAM' : `memory of device ${memory - 1}`;

export const devicePteWord = (memory: MemoryId, flags: number): number => (memory << DEVICE_PTE_MEMORY_SHIFT) | flags;
/** Bits of the memory's number. */
export const DEVICE_PTE_MEMORY_MASK = 0xff << DEVICE_PTE_MEMORY_SHIFT;
export const devicePteMemory = (word: number): MemoryId => (word >>> DEVICE_PTE_MEMORY_SHIFT) & 0xff;
