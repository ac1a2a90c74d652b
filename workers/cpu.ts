/**
 * The door of a host CPU's thread: a loop around the CPU, which sleeps on its doorbell word while it has nothing to do. The kernel
 * waits for no answer of a CPU that is away, so a sleeping one is in nobody's way.
 */
import { workerData } from 'node:worker_threads';
import { CPU_BLOCK, type CpuConfig } from '../src/abi/cpu.js';
import { HostCpu } from '../src/cpu/host-cpu.js';
import { load32, store32, waitWord } from '../src/sync/word.js';

/** Looks at the doorbell before the thread sleeps: a fault is answered in microseconds, and a wake-up costs some 40. */
const SPINS = 4_000;
/** No wake-up is lost; this bounds what it would cost if one were. */
const SLEEP_MS = 100;

const { word: WORD } = CPU_BLOCK;
const config = workerData as CpuConfig;
const words = new Int32Array(config.block);
const cpu = new HostCpu(config);

/** Wait until the doorbell is no longer at `rung`. */
function idle(rung: number): void {
  for (let spin = 0; spin < SPINS; spin++) if (load32(words, WORD.doorbell) !== rung) return;
  store32(words, WORD.sleeping, 1);
  waitWord(words, WORD.doorbell, rung, SLEEP_MS);
  store32(words, WORD.sleeping, 0);
}

while (load32(words, WORD.stop) === 0) {
  const rung = load32(words, WORD.doorbell);
  if (!cpu.step()) idle(rung);
}
