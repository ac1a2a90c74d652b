/**
 * The door of a host CPU's thread: a loop around the CPU, which sleeps on its doorbell word while it has nothing to do. The kernel
 * waits for no answer of a CPU that is away, so a sleeping one is in nobody's way.
 */
import { workerData } from 'node:worker_threads';
import { CPU_BLOCK, type CpuConfig } from '../src/abi/cpu.js';
import { HostCpu } from '../src/cpu/host-cpu.js';
import { type Doorbell, waitForRing } from '../src/sync/doorbell.js';
import { load32 } from '../src/sync/word.js';

/** No wake-up is lost; this bounds what it would cost if one were. */
const SLEEP_MS = 100;

const { word: WORD } = CPU_BLOCK;
const config = workerData as CpuConfig;
const words = new Int32Array(config.block);
const doorbell: Doorbell = { words, at: WORD.doorbell, sleepingAt: WORD.sleeping };
const cpu = new HostCpu(config);

while (load32(words, WORD.stop) === 0) {
  const rung = load32(words, WORD.doorbell);
  if (!cpu.step()) waitForRing(doorbell, rung, SLEEP_MS);
}
