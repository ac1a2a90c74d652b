/** A host CPU in a worker thread. It needs no control plane: what it is to do stands in its block, and it ends when told there. */
// Not the global ones, which tests of our users may have stand still.
import { clearTimeout, setTimeout } from 'node:timers';
import { Worker } from 'node:worker_threads';
import type { CpuConfig } from '../abi/cpu.js';
import type { CpuPort } from './cpu-port.js';
import { execArgvOfThreads } from './exec-argv.js';

const DOOR = new URL('../../workers/cpu.js', import.meta.url);

/** A thread that steps a CPU. */
export interface CpuThread {
  /** End it, kill it if it does not obey within `timeoutMs`. Never rejects. */
  close(timeoutMs: number): Promise<void>;
}

/** @param onLost called when the thread ends without having been told to */
export function startCpuThread(port: CpuPort, config: CpuConfig, onLost: (why: string) => void): CpuThread {
  const worker = new Worker(DOOR, { name: `cpu${config.cpu}`, workerData: config, execArgv: execArgvOfThreads() });
  let closing = false;
  const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  worker.on('error', (error) => onLost(`its thread threw ${error.name}: ${error.message}`));
  worker.on('exit', (code) => {
    if (!closing) onLost(`its thread ended with exit code ${code}`);
  });
  return {
    async close(timeoutMs) {
      closing = true;
      port.stop();
      const late = setTimeout(() => void worker.terminate(), timeoutMs);
      await exited;
      clearTimeout(late);
    },
  };
}
