/** One device's view of one process, as users hold it: arguments checked, kernel answers turned into results and errors. */
import { type LaunchFailure, NO_LANE } from '../abi/control.js';
import { errnoName } from '../abi/errno.js';
import type { VirtAddr } from '../base/brand.js';
import { formatAddress } from '../base/bytes.js';
import { PfnlessError, shortened } from '../base/errors.js';
import type { AccessOutcome, DriverMirror } from '../drivers/driver.js';
import type { VmFile } from '../mm/vma.js';
import type { Sleeps } from '../sync/task.js';
import {
  requireAccess,
  requireBytes,
  requireDestination,
  requireLaunch,
  requireLook,
  requirePageRange,
  requireWords,
} from './arguments.js';
import { FaultError } from './errors.js';
import { Lifetime } from './lifetime.js';
import type { OpenMirror } from './open-mirror.js';
import type { MachineDevice, MachineState } from './state.js';
import type { DeviceAccess, LaunchOptions, LaunchResult, MigrateResult, Mirror, VirtRange } from './types.js';

export interface MirrorParts {
  readonly machine: MachineState;
  readonly device: MachineDevice;
  readonly open: OpenMirror;
  readonly pid: number;
  readonly process: Lifetime;
  /** Called when the mirror is closed. */
  onClosed(mirror: DeviceMirror): void;
}

/** Characters of a program's name or URL in messages: a `data:` URL holds a whole module. */
const PROGRAM_TEXT_MAX = 60;

export class DeviceMirror implements Mirror {
  readonly device: number;
  readonly #parts: MirrorParts;
  readonly #mirror: DriverMirror;
  readonly #life: Lifetime;

  constructor(parts: MirrorParts) {
    const { device, pid, process } = parts;
    this.device = device.index;
    this.#parts = parts;
    this.#mirror = parts.open.mirror;
    this.#life = new Lifetime(`the mirror of process ${pid} on ${device.spec.name} is closed`, process);
  }

  migrate(range: VirtRange, to: 'device' | 'system'): Promise<MigrateResult> {
    return this.#life.call(async () => {
      const { start, end } = requirePageRange(range);
      requireDestination(to);
      const mirror = this.#mirror;
      const { errno, requested, collected, migrated, folios } = await this.#run(`migrate to ${to}`, () =>
        to === 'device' ? mirror.migrateToDevice(start, end) : mirror.migrateToSystem(start, end),
      );
      return { requested, collected, migrated, folios, errno };
    });
  }

  launch(program: string | URL, options: LaunchOptions): Promise<LaunchResult> {
    return this.#life.call(async () => {
      const request = requireLaunch(program, options);
      const report = await this.#run(`launch ${request.program}`, () => this.#mirror.launch(request));
      if (report.failure) throw this.#launchError(request.program, report.failure);
      const { lanes, faults, operations } = report;
      return { program: request.program, lanes, faults, operations };
    });
  }

  read(start: number, length: number): Promise<Uint8Array> {
    return this.#life.call(async () => {
      requireAccess(start, length);
      const out = new Uint8Array(length);
      const errno = await this.#run('device read', () => this.#mirror.read(start, out));
      if (errno !== 0) throw this.#errnoError(`cannot read ${length} bytes at 0x${formatAddress(start)}`, errno);
      return out;
    });
  }

  write(start: number, bytes: Uint8Array): Promise<void> {
    return this.#life.call(async () => {
      requireBytes(bytes);
      requireAccess(start, bytes.length);
      const errno = await this.#run('device write', () => this.#mirror.write(start, bytes));
      if (errno !== 0) throw this.#errnoError(`cannot write ${bytes.length} bytes at 0x${formatAddress(start)}`, errno);
    });
  }

  readPages(range: VirtRange): Promise<DeviceAccess> {
    return this.#access('read pages', range, (start, pages) => this.#mirror.deviceRead(start, pages));
  }

  writePages(range: VirtRange, words: ArrayLike<bigint>): Promise<DeviceAccess> {
    return this.#access('write pages', range, (start, pages) =>
      this.#mirror.deviceWrite(start, pages, requireWords(words, pages)),
    );
  }

  peekPages(range: VirtRange): Promise<DeviceAccess> {
    const mirror = this.#mirror;
    // biome-ignore lint/correctness/useYield: a task that has no reason to wait
    return this.#access('peek at pages', range, function* (start, pages) {
      return mirror.peek(start, pages);
    });
  }

  exclusive(range: VirtRange): Promise<DeviceAccess> {
    return this.#access('take pages for atomics', range, (start, pages) => this.#mirror.exclusive(start, pages));
  }

  isExclusive(range: VirtRange): Promise<boolean> {
    return this.#life.call(async () => {
      const { start, pages } = requireLook(range);
      return this.#mirror.checkExclusive(start, pages) !== 0;
    });
  }

  failNextAllocation(): Promise<void> {
    return this.#life.call(async () => this.#mirror.failAlloc());
  }

  releaseChunks(): Promise<void> {
    return this.#life.call(async () => {
      const errno = await this.#run('release chunks', () => this.#mirror.releaseChunks());
      if (errno !== 0) throw this.#errnoError('cannot give up its memory', errno);
    });
  }

  /** One of the driver's accesses to whole pages. */
  #access(
    name: string,
    range: VirtRange,
    task: (start: VirtAddr, pages: number) => Sleeps<AccessOutcome>,
  ): Promise<DeviceAccess> {
    return this.#life.call(async () => {
      const { start, pages } = requireLook(range);
      const { cpages, ...outcome } = await this.#run(name, () => task(start, pages));
      return { ...outcome, pages: cpages };
    });
  }

  snapshot(range: VirtRange): Promise<Uint8Array> {
    return this.#life.call(async () => {
      const { start, end, pages } = requireLook(range);
      const codes = await this.#run('snapshot', () => this.#mirror.snapshot(start, end));
      if (typeof codes === 'string') throw this.#errnoError(`cannot take a snapshot of ${pages} pages`, codes);
      return codes;
    });
  }

  /** The same open file in another process: what `fork` does. */
  inherit(heir: Pick<MirrorParts, 'pid' | 'process' | 'onClosed'>): DeviceMirror {
    const { open } = this.#parts;
    return new DeviceMirror({ ...this.#parts, ...heir, open: open.get() });
  }

  /** Is it closed, or being closed? */
  get ended(): boolean {
    return this.#life.ended;
  }

  get machine(): MachineState {
    return this.#parts.machine;
  }

  /** For `mmap`: the device's file; `null` when its driver has none. @throws PfnlessError ERR_PFNLESS_DISPOSED */
  vmFile(): VmFile | null {
    this.#life.assertAlive();
    return this.#parts.device.driver.file ?? null;
  }

  /** The calls that are in flight have come back. */
  idle(): Promise<void> {
    return this.#life.idle();
  }

  close(): Promise<void> {
    return this.#life.end(async () => {
      await this.idle();
      const { machine, open, device, onClosed } = this.#parts;
      await machine.executor.run(`close mirror on ${device.spec.name}`, open.put());
      onClosed(this);
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Run the driver's task, unless or until the device is lost. @throws PfnlessError ERR_PFNLESS_DEVICE_LOST */
  async #run<T>(name: string, task: () => Sleeps<T>): Promise<T> {
    const { machine, device } = this.#parts;
    const { link, spec } = device;
    if (link.lost) throw link.lost;
    const result = await machine.executor.run(`${name} on ${spec.name}`, task());
    if (link.lost) throw link.lost;
    return result;
  }

  #errnoError(what: string, errno: string): PfnlessError {
    const { device, pid } = this.#parts;
    return new PfnlessError('ERR_PFNLESS_ERRNO', `${device.spec.name} ${what} of process ${pid}: ${errno}.`, { errno });
  }

  #launchError(program: string, { kind, errno, address, lane, message, stack }: LaunchFailure): PfnlessError {
    const where = `${shortened(program, PROGRAM_TEXT_MAX)} on ${this.#parts.device.spec.name}${lane === NO_LANE ? '' : `, lane ${lane}`}`;
    if (kind === 'program') {
      const cause = stack === undefined ? undefined : Object.assign(new Error(message), { stack });
      return new PfnlessError('ERR_PFNLESS_PROGRAM', `${where}: ${message}`, { cause });
    }
    const name = errnoName(errno);
    const place = Number.isInteger(address) && address >= 0 ? `0x${formatAddress(address)}` : `address ${address}`;
    return new FaultError(`${where}: no access to ${place}: ${name}.`, {
      signal: name === 'EFAULT' ? 'SIGSEGV' : 'SIGBUS',
      address: address as VirtAddr,
      errno: name,
    });
  }
}
