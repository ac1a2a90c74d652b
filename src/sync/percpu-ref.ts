/**
 * A reference count with an owner who can end it: `get` and `put` as the users please, `kill` once, then wait for the last.
 *
 * Linux: include/linux/percpu-refcount.h. Not modelled: the per-CPU counters themselves, and switching back to live. Lives on the
 * kernel's thread only, so a plain number counts.
 */
import { assert, InvariantViolation } from '../base/errors.js';
import { type Sleeps, waitUntil } from './task.js';

export class PercpuRef {
  readonly name: string;
  /** The initial reference is the owner's; `kill` drops it. */
  #count = 1;
  #dying = false;

  constructor(name = 'percpu_ref') {
    this.name = name;
  }

  /** Precondition: somebody holds a reference. */
  get(n = 1): void {
    // Once a page of device memory: a message in a closure would be made each time.
    if (this.#count <= 0)
      throw new InvariantViolation(`${this.name}: ${n} references taken after the last was dropped`);
    this.#count += n;
  }

  put(n = 1): void {
    if (this.#count < n) throw new InvariantViolation(`${this.name}: ${n} references dropped but ${this.#count} held`);
    if (!this.#dying && this.#count === n) {
      throw new InvariantViolation(`${this.name}: the initial reference was dropped without kill()`);
    }
    this.#count -= n;
  }

  /** Drop the initial reference: whoever holds another may still share it, and the last one of all lets the owner go on. */
  kill(): void {
    assert(!this.#dying, () => `${this.name}: killed twice`);
    this.#dying = true;
    this.put();
  }

  /** References held, the initial one included. */
  get count(): number {
    return this.#count;
  }

  /** Killed. */
  get dying(): boolean {
    return this.#dying;
  }

  /** Killed, and no reference is left. */
  get released(): boolean {
    return this.#count === 0;
  }

  /** Sleep until the last reference is dropped. */
  *waitReleased(): Sleeps<void> {
    yield* waitUntil(`last reference of ${this.name}`, () => this.released);
  }
}
