/**
 * A machine without a kernel: one flat memory, device programs run where they are called, and a page only remembers who
 * touched it last. It proves workloads, their references and the device programs without anything below them.
 */
import type { VirtAddr } from '#src/base/brand';
import { type ComputeProgram, type LaneContext, LOCAL_WORDS } from '#src/device/program';
import { builtinPrograms } from '#src/device/programs/index';
import type { ElementArrays, ElementType, Machine, Mirror, Process, VirtRange } from '#src/machine/types';

const FIRST_ADDRESS = 0x10000;
const CPU = -1;
const ARRAYS = { u8: Uint8Array, i32: Int32Array, u32: Uint32Array, f32: Float32Array, f64: Float64Array };

/** Memory that counts whose page goes where. */
export class FakeMemory {
  readonly view: DataView<ArrayBuffer>;
  readonly counts = { cpuFaults: 0, deviceFaults: 0, migratedToDevice: 0, migratedToRam: 0 };
  readonly #owner: Int8Array;

  constructor(bytes: number) {
    this.view = new DataView(new ArrayBuffer(bytes));
    this.#owner = new Int8Array(bytes / 4096).fill(CPU);
  }

  /** The place of an access by a device or the CPU, whose page comes to it. */
  place(addr: number, size: number, who: number): number {
    if (!(addr >= FIRST_ADDRESS) || addr % size !== 0) throw new Error(`bad address ${addr} for ${size} bytes`);
    const page = Math.floor(addr / 4096);
    if (this.#owner[page] !== who) {
      this.counts[who === CPU ? 'cpuFaults' : 'deviceFaults']++;
      this.move(page, who);
    }
    return addr;
  }

  move(page: number, who: number): void {
    if (this.#owner[page] === who) return;
    this.counts[who === CPU ? 'migratedToRam' : 'migratedToDevice']++;
    this.#owner[page] = who;
  }
}

/** Thrown at a barrier that a lane meets for the first time. */
const AT_BARRIER = Symbol('barrier');

/** One lane. As the real one it keeps a log: run again from its start, it gets the same answers up to where it stopped. */
function createLane(memory: FakeMemory, device: number, local: Float64Array, numbers: Pick<LaneContext, Numbers>) {
  const { view } = memory;
  const log: number[] = [];
  let next = 0;
  const once = (operation: () => unknown): number => {
    if (next === log.length) log.push(Number(operation() ?? 0));
    return log[next++]!;
  };
  const at = (addr: number, size: number) => memory.place(addr, size, device);
  const atomic = (addr: number, change: (value: number) => number) =>
    once(() => {
      const before = view.getInt32(at(addr, 4), true);
      view.setInt32(addr, change(before), true);
      return before;
    });
  const context: LaneContext = {
    ...numbers,
    loadU8: (addr) => once(() => view.getUint8(at(addr, 1))),
    loadI32: (addr) => once(() => view.getInt32(at(addr, 4), true)),
    loadU32: (addr) => once(() => view.getUint32(at(addr, 4), true)),
    loadF32: (addr) => once(() => view.getFloat32(at(addr, 4), true)),
    loadF64: (addr) => once(() => view.getFloat64(at(addr, 8), true)),
    storeU8: (addr, value) => void once(() => view.setUint8(at(addr, 1), value)),
    storeI32: (addr, value) => void once(() => view.setInt32(at(addr, 4), value, true)),
    storeU32: (addr, value) => void once(() => view.setUint32(at(addr, 4), value, true)),
    storeF32: (addr, value) => void once(() => view.setFloat32(at(addr, 4), value, true)),
    storeF64: (addr, value) => void once(() => view.setFloat64(at(addr, 8), value, true)),
    atomicAdd: (addr, value) => atomic(addr, (before) => before + value),
    atomicMin: (addr, value) => atomic(addr, (before) => Math.min(before, value)),
    atomicMax: (addr, value) => atomic(addr, (before) => Math.max(before, value)),
    atomicExchange: (addr, value) => atomic(addr, () => value),
    atomicCompareExchange: (addr, expected, value) => atomic(addr, (before) => (before === expected ? value : before)),
    loadLocal: (index) => once(() => local[index]!),
    storeLocal: (index, value) => void once(() => (local[index] = value)),
    barrier() {
      if (next++ < log.length) return;
      log.push(0);
      throw AT_BARRIER;
    },
  };
  /** Run up to the next barrier or the end. @returns whether it has ended */
  return (program: ComputeProgram, args: Readonly<Record<string, number>>): boolean => {
    next = 0;
    try {
      program(context, args);
      return true;
    } catch (stopped) {
      if (stopped === AT_BARRIER) return false;
      throw stopped;
    }
  };
}
type Numbers = 'lane' | 'lanes' | 'group' | 'groupSize' | 'localLane';

export interface FakeLaunch {
  readonly lanes: number;
  readonly groupSize?: number;
  readonly args?: Readonly<Record<string, number>>;
}

/** Run a built-in program: group after group, all lanes of a group from barrier to barrier. */
export function launch(memory: FakeMemory, device: number, program: string, options: FakeLaunch): void {
  const { lanes, groupSize = 64, args = {} } = options;
  for (let first = 0; first < lanes; first += groupSize) {
    const local = new Float64Array(LOCAL_WORDS);
    let running = Array.from({ length: Math.min(groupSize, lanes - first) }, (_, localLane) =>
      createLane(memory, device, local, {
        lane: first + localLane,
        lanes,
        group: first / groupSize,
        groupSize,
        localLane,
      }),
    );
    while (running.length > 0) running = running.filter((run) => !run(builtinPrograms[program]!, args));
  }
}

/** Only what workloads and their runner use. */
export function createFakeMachine(options: { devices: number; deviceMemory: number; ram: number }): Machine {
  const memory = new FakeMemory(FIRST_ADDRESS + options.ram);
  let end = FIRST_ADDRESS;
  const elements = <T extends ElementType>(type: T, start: VirtAddr, count: number) => {
    const size = ARRAYS[type].BYTES_PER_ELEMENT;
    for (let i = 0; i < count; i++) memory.place(start + i * size, size, CPU);
    return new ARRAYS[type](memory.view.buffer, start, count) as ElementArrays[T];
  };
  const mirror = (device: number): Partial<Mirror> => ({
    device,
    async launch(program, launchOptions) {
      await null;
      launch(memory, device, String(program), launchOptions);
      return { program: String(program), lanes: launchOptions.lanes, faults: 0, operations: 0 };
    },
    async migrate({ start, length }, to) {
      for (let addr: number = start; addr < start + length; addr += 4096) {
        memory.move(addr / 4096, to === 'device' ? device : CPU);
      }
      return { requested: length / 4096, collected: 0, migrated: 0, folios: 0, errno: 0 };
    },
  });
  const process: Partial<Process> = {
    async mmap({ length }): Promise<VirtRange> {
      const start = end as VirtAddr;
      end += Math.ceil(length / 4096) * 4096;
      return { start, length: end - start };
    },
    readArray: async (type, start, count) =>
      elements(type, start as VirtAddr, count).slice() as ElementArrays[typeof type],
    writeArray: async (type, start, values) => elements(type, start as VirtAddr, values.length).set(values),
    mirror: async (device) => mirror(device as number) as Mirror,
    exit: async () => {},
  };
  const devices = Array.from({ length: options.devices }, () => ({ memory: options.deviceMemory }));
  const machine = {
    spec: { devices },
    deviceCount: options.devices,
    process: async () => process,
    settle: async () => {},
    stats: async () => ({ ...memory.counts, evicted: 0, freeRamPages: options.ram / 4096 }),
    check: async () => [],
  };
  return machine as unknown as Machine;
}
