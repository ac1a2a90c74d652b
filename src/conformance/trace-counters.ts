/**
 * What the kernel has counted since a trace began: the rows of its operation `counters`. Faults count while an operation is done, and
 * those of fork and exit do not: the recorder's own are among them.
 */
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { type Vmstat, vmstat } from '../mm/proc-meminfo.js';
import { smapsText } from '../mm/proc-smaps.js';
import { processStatus } from '../mm/proc-status.js';

const FAULT_ROWS = ['pgfault', 'pgmajfault'] as const;

/** Of /proc/vmstat, but for faults. */
const VMSTAT_ROWS = [
  'pswpin',
  'pswpout',
  'swpin_zero',
  'swpout_zero',
  'pglazyfree',
  'pglazyfreed',
  'nr_anon_pages',
  'nr_mapped',
  'nr_file_pages',
  'nr_shmem',
  'nr_swapcached',
  'nr_anon_transparent_hugepages',
  'nr_shmem_hugepages',
  'nr_shmem_pmdmapped',
] as const;

/** Of /proc/PID/status. */
const STATUS_ROWS = ['VmSize', 'VmLck', 'RssAnon', 'RssFile', 'RssShmem', 'VmData', 'VmPTE', 'VmSwap'] as const;

/** Of /proc/PID/smaps, summed. */
const SMAPS_ROWS = ['Pss_Dirty', 'SwapPss'] as const;

export const COUNTER_ROWS = [...FAULT_ROWS, ...VMSTAT_ROWS, ...STATUS_ROWS, ...SMAPS_ROWS] as const;
type Counters = Readonly<Record<(typeof COUNTER_ROWS)[number], number>>;

export class TraceCounters {
  readonly #kernel: Kernel;
  readonly #first: Vmstat;
  #pgfault = 0;
  #pgmajfault = 0;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#first = vmstat(kernel);
  }

  /** An operation begins; what is returned is to be called when it has ended. */
  operation(): () => void {
    const { stats } = this.#kernel;
    const { cpuFaults, pgmajfault } = stats;
    return () => {
      this.#pgfault += stats.cpuFaults - cpuFaults;
      this.#pgmajfault += stats.pgmajfault - pgmajfault;
    };
  }

  /** All rows. A process has nothing but what is in the arena. */
  rows(mm: MmStruct): Counters {
    const now = vmstat(this.#kernel);
    return {
      pgfault: this.#pgfault,
      pgmajfault: this.#pgmajfault,
      ...pick(VMSTAT_ROWS, (row) => now[row] - this.#first[row]),
      ...pick(STATUS_ROWS, (row) => processStatus(mm)[row]),
      ...sumsOf(smapsText(this.#kernel, mm)),
    };
  }
}

const pick = <Row extends string>(rows: readonly Row[], value: (row: Row) => number): Record<Row, number> =>
  Object.fromEntries(rows.map((row) => [row, value(row)])) as Record<Row, number>;

/** What the paragraphs of smaps have in some rows. */
const sumsOf = (text: string): Record<(typeof SMAPS_ROWS)[number], number> =>
  pick(SMAPS_ROWS, (row) => {
    const lines = text.matchAll(new RegExp(`^${row}: +(\\d+) kB$`, 'gm'));
    return [...lines].reduce((sum, [, kib]) => sum + Number(kib), 0);
  });
