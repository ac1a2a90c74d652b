/**
 * Sleeping reader/writer lock of the kernel model (`mmap_lock`). Fair: a waiting writer stops new readers, so writers do not
 * starve. Lives on the kernel's thread only.
 */
import { assert } from '../base/errors.js';
import { type LockClass, lockDropped, lockTaken, type WatchedLock } from './lock-order.js';
import type { Sleeps, Wait } from './task.js';

export class RwSemaphore implements WatchedLock {
  readonly name: string;
  readonly lockClass: LockClass;
  #readers = 0;
  #writer = false;
  #waitingWriters = 0;

  readonly #readable: Wait;
  readonly #writable: Wait;

  constructor(name: string, lockClass: LockClass) {
    this.name = name;
    this.lockClass = lockClass;
    this.#readable = { what: `${name} (read)`, ready: () => !this.#writer && this.#waitingWriters === 0 };
    this.#writable = { what: `${name} (write)`, ready: () => !this.#writer && this.#readers === 0 };
  }

  *downRead(): Sleeps<void> {
    while (!this.#readable.ready()) yield this.#readable;
    this.#readers++;
    lockTaken(this);
  }

  /** `down_read_trylock()`: for whom the lock is free nearly always, and a generator dear. */
  downReadTrylock(): boolean {
    if (!this.#readable.ready()) return false;
    this.#readers++;
    lockTaken(this);
    return true;
  }

  upRead(): void {
    assert(this.#readers > 0, `${this.name}: released for reading but not held`);
    this.#readers--;
    lockDropped(this);
  }

  *downWrite(): Sleeps<void> {
    if (this.#writable.ready()) {
      this.#writer = true;
      lockTaken(this);
      return;
    }
    this.#waitingWriters++;
    try {
      while (!this.#writable.ready()) yield this.#writable;
    } finally {
      this.#waitingWriters--;
    }
    this.#writer = true;
    lockTaken(this);
  }

  upWrite(): void {
    assert(this.#writer, `${this.name}: released for writing but not held`);
    this.#writer = false;
    lockDropped(this);
  }

  /** Held in either mode: `mmap_assert_locked()`. */
  get locked(): boolean {
    return this.#writer || this.#readers > 0;
  }

  get heldForWrite(): boolean {
    return this.#writer;
  }
}
