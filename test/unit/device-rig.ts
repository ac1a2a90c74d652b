/** A device with memories set up by hand, and the driver's side of its rings for tests to play. */
import type { DeviceConfig, DeviceMemories, LaunchReport } from '#src/abi/control';
import { DEVICE_PTE_ATOMIC, DEVICE_PTE_WRITE, devicePteWord } from '#src/abi/device-pte';
import {
  COMMAND_CANCEL,
  COMMAND_PACKET,
  COMMAND_REPLAY,
  COPY_PACKET,
  FAULT_PACKET,
  INVALIDATE_PACKET,
} from '#src/abi/packet';
import { fenceReached, QUEUE_BYTES, QUEUE_HEADER, RINGS } from '#src/abi/queue';
import { Engine, type EngineOptions } from '#src/device/engine';
import { DevicePageTables } from '#src/device/page-table';
import type { ComputeProgram } from '#src/device/program';
import { RingConsumer, RingProducer } from '#src/sync/ring';

export const PAGE = 4096;
/** Where the tests' address space begins. */
export const BASE = 0x7f12_3456_7000;
export const RW = DEVICE_PTE_WRITE;
export const RWA = DEVICE_PTE_WRITE | DEVICE_PTE_ATOMIC;

export interface FaultRecord {
  readonly context: number;
  readonly address: number;
  readonly access: number;
  readonly lanes: number;
}

export class Rig {
  readonly memories: DeviceMemories;
  readonly tables: DevicePageTables;
  readonly header: Int32Array;
  readonly ram: Int32Array;
  readonly bytes: Uint8Array;
  readonly memmap: Int32Array;
  readonly config: DeviceConfig;
  readonly root: number;
  readonly context = 1;
  readonly faults: RingConsumer;
  #lastReplay = 0;
  readonly #commands: RingProducer;
  readonly #invalidations: RingProducer;
  readonly #copies: RingProducer;
  #sequence = 0;
  #lastFault = 0;

  constructor({ pages = 64, waveLanes = 64, tlbSets = 16 } = {}) {
    const ram = new SharedArrayBuffer(pages * PAGE);
    const queue = new SharedArrayBuffer(QUEUE_BYTES);
    this.tables = new DevicePageTables(new SharedArrayBuffer(64 * PAGE));
    this.memories = {
      memories: [ram, undefined, new SharedArrayBuffer(pages * PAGE)],
      memmap: new SharedArrayBuffer((pages + 1) * 64),
      pageTables: this.tables.buffer,
      queue,
      hostDoorbell: new SharedArrayBuffer(64),
    };
    this.config = { index: 0, name: 'gpu0', tlbSets, waveLanes };
    this.root = this.tables.createContext()!;
    this.header = new Int32Array(queue);
    this.ram = new Int32Array(ram);
    this.bytes = new Uint8Array(ram);
    this.memmap = new Int32Array(this.memories.memmap);
    this.faults = new RingConsumer(queue, RINGS.faults);
    this.#commands = new RingProducer(queue, RINGS.commands);
    this.#invalidations = new RingProducer(queue, RINGS.invalidations);
    this.#copies = new RingProducer(queue, RINGS.copies);
  }

  engine(options: EngineOptions = {}): Engine {
    const engine = new Engine(this.config, this.memories, options);
    engine.bindContext(this.context, this.root);
    return engine;
  }

  /** Map page `page` after BASE to frame `page`. */
  map(page: number, flags: number, pages = 1): void {
    this.tables.mapRange(this.root, BASE + page * PAGE, pages, page, devicePteWord(0, flags));
  }

  takeFaults(): FaultRecord[] {
    const records: FaultRecord[] = [];
    const { word } = FAULT_PACKET;
    while (this.faults.pending() > 0) {
      const at = this.faults.peek();
      records.push({
        context: this.faults.words[at + word.context]!,
        address: this.faults.floats[at / 2 + word.address]!,
        access: this.faults.words[at + word.access]!,
        lanes: this.faults.words[at + word.lanes]!,
      });
      this.#lastFault = this.faults.words[at + word.sequence]!;
      this.faults.release();
    }
    return records;
  }

  /** Fault replay of what has been taken. */
  replay(): number {
    return (this.#lastReplay = this.#command(COMMAND_REPLAY, 0, 0, 0));
  }

  /** Has every lane that the last fault replay woke had its turn? */
  replayTurnsOver(): boolean {
    return fenceReached(this.header[QUEUE_HEADER.word.replayFence]!, this.#lastReplay);
  }

  cancel(address: number, errno: number, access = 0): number {
    return this.#command(COMMAND_CANCEL, address, errno, access);
  }

  invalidate(start: number, end: number): number {
    const ring = this.#invalidations;
    const at = ring.reserve();
    const { word } = INVALIDATE_PACKET;
    ring.words[at + word.sequence] = ++this.#sequence;
    ring.words[at + word.context] = this.context;
    ring.floats[at / 2 + word.start] = start;
    ring.floats[at / 2 + word.end] = end;
    ring.publish();
    return this.#sequence;
  }

  copy(packet: Partial<Record<keyof typeof COPY_PACKET.word, number>>): number {
    const ring = this.#copies;
    const at = ring.reserve();
    for (const key of Object.keys(COPY_PACKET.word) as (keyof typeof COPY_PACKET.word)[]) {
      ring.words[at + COPY_PACKET.word[key]] = packet[key] ?? 0;
    }
    ring.words[at + COPY_PACKET.word.sequence] = ++this.#sequence;
    ring.publish();
    return this.#sequence;
  }

  get invalidateFence(): number {
    return this.header[QUEUE_HEADER.word.invalidateFence]!;
  }

  #command(kind: number, address: number, errno: number, access: number): number {
    const ring = this.#commands;
    const at = ring.reserve();
    const { word } = COMMAND_PACKET;
    ring.words[at + word.sequence] = ++this.#sequence;
    ring.words[at + word.kind] = kind;
    ring.words[at + word.context] = this.context;
    ring.words[at + word.errno] = errno;
    ring.words[at + word.access] = access;
    ring.words[at + word.upTo] = this.#lastFault;
    ring.floats[at / 2 + word.address] = address;
    ring.publish();
    return this.#sequence;
  }
}

/** Launch, and step until the report is there. `serve` is called whenever the engine has nothing to do. */
export function runLaunch(
  engine: Engine,
  program: ComputeProgram,
  options: { lanes: number; groupSize?: number; context?: number; args?: Record<string, number> },
  serve: () => void = () => {
    throw new Error('the engine waits for a driver');
  },
): LaunchReport {
  const { lanes, groupSize = 32, context = 1, args = {} } = options;
  let report: LaunchReport | undefined;
  engine.launch(program, { program: 'test', context, lanes, groupSize, args }, (done) => {
    report = done;
  });
  for (let steps = 0; report === undefined; steps++) {
    if (steps > 1e6) throw new Error('the launch does not end');
    if (!engine.step()) serve();
  }
  return report;
}
