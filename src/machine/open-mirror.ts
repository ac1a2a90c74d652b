/**
 * An open file of a device node: what mirrors that `fork` copied share. The last one to let go releases the driver's mirror.
 * Linux: struct file, which a child's file descriptors refer to as well.
 */
import { assert } from '../base/errors.js';
import type { DriverMirror } from '../drivers/driver.js';
import type { Sleeps } from '../sync/task.js';

export class OpenMirror {
  readonly mirror: DriverMirror;
  #references = 1;

  constructor(mirror: DriverMirror) {
    this.mirror = mirror;
  }

  /** One more holder. @throws InvariantViolation when there is none any more */
  get(): this {
    assert(this.#references > 0, 'a mirror that nobody holds cannot be shared');
    this.#references++;
    return this;
  }

  /** One holder less; the last one closes the mirror. */
  *put(): Sleeps<void> {
    if (--this.#references === 0) yield* this.mirror.close();
  }
}
