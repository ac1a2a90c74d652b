/**
 * A device in a worker thread: comlink carries the control calls, the rings carry the data, and the thread's end is noticed
 * whichever way it comes (its engine throws, a program calls process.exit(), somebody terminates it).
 *
 * The worker sleeps outside of its event loop, so each control call also counts up `controlRequested` and rings the doorbell.
 */
import { availableParallelism } from 'node:os';
// Not the global ones, which tests of our users may have stand still.
import { clearTimeout, setTimeout } from 'node:timers';
import { isMainThread, Worker } from 'node:worker_threads';
import { wrap } from 'comlink';
import type { DeviceConfig, DeviceControl, DeviceMemories } from '../abi/control.js';
import { QUEUE_HEADER } from '../abi/queue.js';
import { PfnlessError } from '../base/errors.js';
import { ringDoorbell } from '../sync/doorbell.js';
import { add32, store32 } from '../sync/word.js';
import type { DeviceLink } from './device-link.js';
import { nodeEndpoint } from './endpoint.js';
import { execArgvOfThreads } from './exec-argv.js';
import { Lifeline } from './lifeline.js';

const DOOR = new URL('../../workers/device.js', import.meta.url);

/** Some 3 microseconds: a page is copied in less. */
const PATIENCE = 600;

/**
 * Can so many threads run at the same time? Where a machine is itself in a thread of a campaign there are others beside it, and spinning
 * would take their cores: `run --all --jobs 2` takes a sixth less time so.
 */
export const haveCores = (threads: number): boolean => isMainThread && threads <= availableParallelism();

export interface WorkerLinkOptions {
  readonly config: DeviceConfig;
  readonly memories: DeviceMemories;
  /** Each thread of the machine has a core of its own. */
  readonly ownCores: boolean;
}

/** What the door of a device's thread (workers/device.ts) is opened with. */
export interface DeviceDoor {
  readonly queue: SharedArrayBuffer;
  readonly hostDoorbell: SharedArrayBuffer;
  readonly ownCore: boolean;
}

/** Start a device's thread and boot it. @throws PfnlessError ERR_PFNLESS_DEVICE_LOST when the thread dies before it is up */
export async function createWorkerLink({ config, memories, ownCores }: WorkerLinkOptions): Promise<DeviceLink> {
  const link = new WorkerLink(config, memories, ownCores);
  await link.control.boot(config, memories).catch(async (error) => {
    await link.terminate();
    throw error;
  });
  return link;
}

class WorkerLink implements DeviceLink {
  readonly index: number;
  readonly name: string;
  readonly control: DeviceControl;
  readonly memories: DeviceMemories;
  readonly runnable = false;
  readonly patience = PATIENCE;
  readonly #worker: Worker;
  readonly #life = new Lifeline();
  readonly #queue: Int32Array;
  readonly #exited: Promise<void>;
  #terminated = false;

  constructor({ index, name }: DeviceConfig, memories: DeviceMemories, ownCore: boolean) {
    this.index = index;
    this.name = name;
    this.memories = memories;
    this.#queue = new Int32Array(memories.queue);
    const door: DeviceDoor = { queue: memories.queue, hostDoorbell: memories.hostDoorbell, ownCore };
    this.#worker = new Worker(DOOR, { name, workerData: door, execArgv: execArgvOfThreads() });
    this.#exited = new Promise((resolve) => this.#worker.once('exit', () => resolve()));
    this.#worker.on('error', (error) => this.#lose(`its thread threw ${error.name}: ${error.message}`, error));
    this.#worker.on('messageerror', (error) =>
      this.#lose(`a message from its thread could not be read: ${error.message}`),
    );
    this.#worker.on('exit', (code) => this.#onExit(code));
    const remote = wrap<DeviceControl>(nodeEndpoint(this.#worker));
    this.control = this.#life.guardControl(remote, () => {
      add32(this.#queue, QUEUE_HEADER.word.controlRequested, 1);
      this.ring();
    });
  }

  get lost(): Error | null {
    return this.#life.ended;
  }

  ring(): void {
    const { doorbell, sleeping } = QUEUE_HEADER.word;
    ringDoorbell({ words: this.#queue, at: doorbell, sleepingAt: sleeping });
  }

  step(): boolean {
    return false;
  }

  async close(timeoutMs: number): Promise<void> {
    this.#life.end(this.#closed());
    store32(this.#queue, QUEUE_HEADER.word.stop, 1);
    this.ring();
    const late = setTimeout(() => void this.#worker.terminate(), timeoutMs);
    await this.#exited;
    clearTimeout(late);
  }

  /** Lost is the device only when its thread has ended: until then it may still be copying, and hold references on pages. */
  async terminate(): Promise<void> {
    this.#terminated = true;
    await this.#worker.terminate();
    this.#lose('it was terminated');
  }

  #onExit(code: number): void {
    const stopped = this.#queue[QUEUE_HEADER.word.stop] !== 0;
    if (stopped && code === 0) this.#life.end(this.#closed());
    else this.#lose(this.#terminated ? 'it was terminated' : `its thread ended with exit code ${code}`);
  }

  #closed(): Error {
    return new PfnlessError('ERR_PFNLESS_DISPOSED', `device ${this.index} (${this.name}) is closed`);
  }

  #lose(why: string, cause?: Error): void {
    const message = `device ${this.index} (${this.name}) is lost: ${why}`;
    this.#life.end(new PfnlessError('ERR_PFNLESS_DEVICE_LOST', message, cause === undefined ? {} : { cause }));
  }
}
