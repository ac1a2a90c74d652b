/**
 * How the kernel's side holds a device: one interface, two carriers (inline: the engine on the kernel's own thread; worker:
 * a thread of its own). Data goes through the rings of abi/queue.ts, which the carrier does not touch but for `step`.
 */
import type { DeviceControl, DeviceMemories } from '../abi/control.js';

export interface DeviceLink {
  readonly index: number;
  readonly name: string;
  readonly control: DeviceControl;
  readonly memories: DeviceMemories;
  /** Why the device is gone, or `null` while it lives. Everything in flight has been rejected when this is set. */
  readonly lost: Error | null;
  /** Ring the device's doorbell: wakes a sleeping worker; nothing in the inline carrier. */
  ring(): void;
  /** The kernel looks at a fence of the device: for explorations, which want to know which steps touch which device. */
  looked?(): void;
  /**
   * Worker: how often to look at a fence before the task that waits for it is put aside, and that much of the time of everybody
   * else: a device that is awake answers sooner than a task is put aside and resumed. Inline: nothing would come of it.
   */
  readonly patience?: number;
  /** Inline: let the engine do one step; did it make progress? Worker: always false, it runs by itself. */
  step(): boolean;
  /** Inline: is there something that `step` could do now? */
  readonly runnable: boolean;
  /** End the device, kill it if it does not obey within `timeoutMs`. Never rejects. */
  close(timeoutMs: number): Promise<void>;
  /** End the device now, as a crash would (failure tests, Ctrl-C). */
  terminate(): Promise<void>;
}
