/**
 * A device on the kernel's own thread: whoever drives the kernel's tasks steps it. The engine is handed in, so that transport
 * does not import the device.
 */
import type { DeviceConfig, DeviceControl, DeviceMemories } from '../abi/control.js';
import { PfnlessError } from '../base/errors.js';
import type { DeviceLink } from './device-link.js';
import { Lifeline } from './lifeline.js';

/** What the link wants of an engine; `device/control.ts` has it. */
export interface InlineDevice extends DeviceControl {
  readonly runnable: boolean;
  /** @throws InvariantViolation when the driver or the engine broke the rules */
  step(): boolean;
}

export interface InlineLinkOptions {
  readonly config: DeviceConfig;
  readonly memories: DeviceMemories;
  /** An engine that has not been booted. */
  readonly device: InlineDevice;
}

/** Boot a device on this thread. */
export async function createInlineLink({ config, memories, device }: InlineLinkOptions): Promise<DeviceLink> {
  const { index, name } = config;
  const life = new Lifeline();
  const control = life.guardControl(device, () => {});
  await control.boot(config, memories);
  return {
    index,
    name,
    control,
    memories,
    get lost() {
      return life.ended;
    },
    ring() {},
    step: () => life.ended === null && device.step(),
    get runnable() {
      return life.ended === null && device.runnable;
    },
    async close() {
      life.end(new PfnlessError('ERR_PFNLESS_DISPOSED', `device ${index} (${name}) is closed`));
    },
    async terminate() {
      life.end(new PfnlessError('ERR_PFNLESS_DEVICE_LOST', `device ${index} (${name}) is lost: it was terminated`));
    },
  };
}
