/**
 * A device on the kernel's own thread whose control calls answer at once, within the call or the step that ends them, so that
 * a run needs no promise and no turn of the event loop: for exploration, where an execution takes microseconds.
 *
 * The answers look like promises to whoever calls `then` or `catch`, but call back directly. They must not be awaited.
 */
import type { DeviceConfig, DeviceControl, DeviceMemories, LaunchReport, LaunchRequest } from '../abi/control.js';
import { PfnlessError } from '../base/errors.js';
import type { DeviceLink } from './device-link.js';

/** What the link wants of an engine; `device/prompt-control.ts` has it. */
export interface PromptDevice {
  readonly runnable: boolean;
  step(): boolean;
  bindContext(context: number, root: number): void;
  unbindContext(context: number): void;
  /** `onReport` is called once, now or from within a later step. */
  launch(request: LaunchRequest, onReport: (report: LaunchReport) => void): void;
}

export interface PromptLinkOptions {
  readonly config: DeviceConfig;
  readonly memories: DeviceMemories;
  readonly device: PromptDevice;
  /** The kernel sends something to the device, or looks at one of its fences. */
  touched(): void;
}

/** What will be known, and who waits for it. */
class Answer<T> {
  #known: { readonly value: T } | null = null;
  readonly #waiters: ((value: T) => void)[] = [];

  settle(value: T): void {
    this.#known = { value };
    for (const waiter of this.#waiters.splice(0)) waiter(value);
  }

  // biome-ignore lint/suspicious/noThenProperty: it plays a promise, and says so.
  then(onValue: (value: T) => void): Answer<T> {
    if (this.#known === null) this.#waiters.push(onValue);
    else onValue(this.#known.value);
    return this;
  }

  /** No call fails: the device lives as long as its machine. */
  catch(): Answer<T> {
    return this;
  }

  asPromise(): Promise<T> {
    return this as unknown as Promise<T>;
  }
}

function answered<T>(value: T): Promise<T> {
  const answer = new Answer<T>();
  answer.settle(value);
  return answer.asPromise();
}

export function createPromptLink({ config, memories, device, touched }: PromptLinkOptions): DeviceLink {
  const { index, name } = config;
  const refuse = (): never => {
    throw new PfnlessError('ERR_PFNLESS_UNSUPPORTED', `device ${index} (${name}) is being explored: it cannot do that`);
  };
  const control: DeviceControl = {
    boot: refuse,
    bindContext: (context, root) => answered(device.bindContext(context, root)),
    unbindContext: (context) => answered(device.unbindContext(context)),
    launch(request) {
      const answer = new Answer<LaunchReport>();
      device.launch(request, (report) => answer.settle(report));
      return answer.asPromise();
    },
    stats: refuse,
    reset: refuse,
  };
  return {
    index,
    name,
    control,
    memories,
    lost: null,
    ring: touched,
    looked: touched,
    step: () => device.step(),
    get runnable() {
      return device.runnable;
    },
    close: async () => {},
    terminate: refuse,
  };
}
