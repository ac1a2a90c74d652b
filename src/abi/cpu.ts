/**
 * The block of shared memory between the kernel and one host CPU that runs on a thread of its own: what it shall do, the request
 * to forget translations, its TLB, and the list of loads and stores. One SharedArrayBuffer a CPU.
 *
 * `phase` says whose turn it is: a running CPU owns `at` and the list, otherwise the kernel does.
 */
import { defineRecord, field } from './layout.js';
import { WORD_OP } from './word-op.js';

export const CPU_BLOCK = defineRecord('host CPU block', 256, {
  doorbell: field(0, 'i32', 'rung (incremented) by the kernel; the CPU sleeps on it'),
  sleeping: field(4, 'i32', '1 while the CPU sleeps'),
  stop: field(8, 'i32', '1: leave the loop'),
  mode: field(12, 'i32', 'CPU_USER while translations are in use, otherwise CPU_AWAY'),
  flushRequested: field(16, 'i32', 'shootdowns that the kernel has asked for'),
  flushDone: field(20, 'i32', 'shootdowns that the CPU has obeyed'),
  flushStart: field(24, 'f64', 'first virtual address of the newest shootdown'),
  flushEnd: field(32, 'f64', 'end virtual address of it, not included'),
  flushLate: field(40, 'i32', 'fault injection: operations that the CPU performs before it looks at the shootdown'),
  phase: field(64, 'i32', 'PHASE_*'),
  count: field(68, 'i32', 'operations in the list'),
  at: field(72, 'i32', 'the next of them'),
  space: field(76, 'i32', 'which address space it is: another one than before empties the TLB'),
  root: field(80, 'f64', 'index of the first entry of its top level table in RAM, in 64-bit words (CR3)'),
  faultAddress: field(88, 'f64', 'CR2: what could not be accessed'),
  hits: field(128, 'u32', 'translations found in the TLB'),
  walks: field(132, 'u32', 'walks of the page tables'),
  faults: field(136, 'u32', 'faults'),
  shootdowns: field(140, 'u32', 'shootdowns that came while translations were in use'),
});

/** Nobody wants anything of the CPU, or the list has come to its end. */
export const PHASE_IDLE = 0;
export const PHASE_RUNNING = 1;
/** The kernel is asked for a page. */
export const PHASE_FAULT = 2;

/** The CPU looks at `flushRequested` before it uses a translation again: nobody has to wait for it. */
export const CPU_AWAY = 0;
export const CPU_USER = 1;

/** Translations that a CPU holds: as many pages, directly mapped. As many as the first level of x86 CPUs has. */
export const CPU_TLB_SLOTS = 64;
/** Operations that fit into the list. */
export const CPU_OPS_MAX = 1024;

/** Bytes of the block at which its arrays begin. */
export const CPU_TLB_AT = CPU_BLOCK.bytes;
export const CPU_TLB_BYTES = CPU_TLB_SLOTS * (8 + 8 + 1);
export const CPU_OPS_AT = CPU_TLB_AT + Math.ceil(CPU_TLB_BYTES / 64) * 64;
export const CPU_BLOCK_BYTES = CPU_OPS_AT + CPU_OPS_MAX * WORD_OP.bytes;

/** Memory that answers physical addresses: RAM, or a coherent device's. */
export interface PhysicalRange {
  readonly firstPfn: number;
  readonly pages: number;
  readonly memory: SharedArrayBuffer;
  /** Frame of the memory where the range begins. */
  readonly firstFrame: number;
}

/** What a CPU is born with, as data: it goes to another thread. */
export interface CpuConfig {
  readonly cpu: number;
  readonly block: SharedArrayBuffer;
  readonly hostDoorbell: SharedArrayBuffer;
  /** RAM comes first: page tables are in its memory alone. */
  readonly ranges: readonly PhysicalRange[];
}
