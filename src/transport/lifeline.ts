/**
 * The life of a device as its link sees it: alive, lost, or closed. Every control call runs under it, so that none is left
 * pending when the device dies (comlink would leave it), and none begins afterwards.
 */
import type { DeviceControl } from '../abi/control.js';

export class Lifeline {
  /** Why the device is gone, `null` while it lives. */
  ended: Error | null = null;
  readonly #pending = new Set<(reason: Error) => void>();

  /** The device died, or ended in good order: calls still pending reject with the reason. Only the first end counts. */
  end(reason: Error): void {
    this.ended ??= reason;
    for (const reject of this.#pending) reject(this.ended);
    this.#pending.clear();
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
