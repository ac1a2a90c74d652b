/**
 * The life of a device as its link sees it: alive, lost, or closed. Every control call runs under it, so that none is left
 * pending when the device dies (comlink would leave it), and none begins afterwards.
 */
import type { DeviceControl } from '../abi/control.js';

export class Lifeline {
  /** Why the device is gone, `null` while it lives. */
  ended: Error | null = null;
  readonly #listeners: ((reason: Error) => void)[] = [];
  readonly #pending = new Set<(reason: Error) => void>();

  /** Called once, at once, if the device dies; not when it is closed in good order. */
  onLost(listener: (reason: Error) => void): void {
    this.#listeners.push(listener);
  }

  /** The device died: reject what is pending, tell the listeners. Only the first end counts. */
  lose(reason: Error): void {
    if (!this.close(reason)) return;
    for (const listener of this.#listeners.splice(0)) listener(reason);
  }

  /** The device ended in good order: calls still pending reject with `reason`. @returns false when it had ended before */
  close(reason: Error): boolean {
    if (this.ended !== null) return false;
    this.ended = reason;
    for (const reject of this.#pending) reject(reason);
    this.#pending.clear();
    return true;
  }

  /** Make a call whose promise settles when the call does, or when the device is gone. */
  guard<T>(call: () => PromiseLike<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.ended !== null) {
        reject(this.ended);
        return;
      }
      this.#pending.add(reject);
      const settled = (): boolean => this.#pending.delete(reject);
      call().then(
        (value) => settled() && resolve(value),
        (error) => settled() && reject(error),
      );
    });
  }

  /** The same calls, each under this lifeline. `posted` is told after each call went out. */
  guardControl(
    control: { [Call in keyof DeviceControl]: AsyncLike<DeviceControl[Call]> },
    posted: () => void,
  ): DeviceControl {
    const call = <T>(start: () => PromiseLike<T>): Promise<T> =>
      this.guard(() => {
        const answer = start();
        posted();
        return answer;
      });
    return {
      boot: (config, memories) => call(() => control.boot(config, memories)),
      bindContext: (context, root) => call(() => control.bindContext(context, root)),
      unbindContext: (context) => call(() => control.unbindContext(context)),
      launch: (request) => call(() => control.launch(request)),
      stats: () => call(() => control.stats()),
      reset: () => call(() => control.reset()),
    };
  }
}

/** A call of the control plane as it is, or as comlink proxies it. */
type AsyncLike<Call> = Call extends (...args: infer Args) => Promise<infer Value>
  ? (...args: Args) => PromiseLike<Value>
  : never;
