/** Machines that come with pfnless, as specs that a user could have written. */
import type * as z from 'zod';
import { deepFreeze } from '../base/freeze.js';
import type { machineSchema } from './schema.js';

export interface MachinePreset {
  /** One line for `pfnless list`. */
  readonly summary: string;
  readonly spec: z.input<typeof machineSchema>;
}

const devices = (count: number, memory: string, chunk: string) =>
  Array.from({ length: count }, (_, index) => ({ name: `gpu${index}`, memory, chunk }));

export const MACHINE_PRESETS = deepFreeze({
  laptop: {
    summary: '2 devices of 32 MiB, 2 GiB RAM, 46-bit addresses (default)',
    spec: {
      memory: { ram: '2GiB', physicalBits: 46 },
      devices: devices(2, '32MiB', '16MiB'),
    },
  },
  workstation: {
    summary: '4 devices of 128 MiB, 8 GiB RAM, a 64-bit PCI window',
    spec: {
      memory: {
        ram: '8GiB',
        physicalBits: 46,
        windows: [{ name: 'PCI Bus 0000:00', start: 0x240000000, size: '2GiB', kind: 'pci' }],
      },
      devices: devices(4, '128MiB', '64MiB'),
    },
  },
  // Memory encryption takes five of an AMD server's 48 address bits. HyperTransport's range splits what is left, and the
  // firmware gives both parts to PCI root buses, but for less than one section (128 MiB) at the very top.
  'constrained-43bit': {
    summary: 'PCI windows on all but 96 MiB of 43 bits: no room for legacy',
    spec: {
      memory: {
        ram: '2GiB',
        physicalBits: 43,
        windows: [
          { name: 'PCI Bus 0000:00', start: 0x100000000, end: 0xfcffffffff, kind: 'pci' },
          { name: 'Reserved', start: 0xfd00000000, end: 0xffffffffff, kind: 'reserved' },
          { name: 'PCI Bus 0000:40', start: 0x10000000000, end: 0x7fff9ffffff, kind: 'pci' },
        ],
      },
      devices: devices(2, '64MiB', '32MiB'),
    },
  },
  // QEMU: -machine pc -m 2G -cpu max,phys-bits=40 -global i440FX-pcihost.pci-hole64-size=1020G
  'pci-window': {
    summary: 'a VM whose PCI window fills 40 bits: no room for legacy',
    spec: {
      memory: {
        ram: '2GiB',
        physicalBits: 40,
        windows: [{ name: 'PCI Bus 0000:00', start: 0x100000000, end: 0xffffffffff, kind: 'pci' }],
      },
      devices: devices(2, '64MiB', '32MiB'),
    },
  },
  big: {
    summary: '1 device of 4 GiB, 8 GiB RAM',
    spec: {
      memory: { ram: '8GiB', physicalBits: 46 },
      devices: devices(1, '4GiB', '256MiB'),
    },
  },
  stress: {
    summary: 'everything small: 4 devices (two of them peers, one coherent), 2 CPUs, swap',
    spec: {
      memory: { ram: '48MiB', physicalBits: 46 },
      cpus: 2,
      swap: ['16MiB'],
      devices: [
        { name: 'gpu0', memory: '8MiB', chunk: '4MiB', tlbSets: 16 },
        { name: 'gpu1', memory: '4MiB', chunk: '2MiB', tlbSets: 16, peers: 'link' },
        { name: 'gpu2', memory: '4MiB', type: 'coherent', tlbSets: 16 },
        { name: 'gpu3', memory: '4MiB', chunk: '2MiB', tlbSets: 16, peers: 'link' },
      ],
    },
  },
} as const satisfies Record<string, MachinePreset>);

export type PresetName = keyof typeof MACHINE_PRESETS;
export const PRESET_NAMES = Object.keys(MACHINE_PRESETS) as readonly PresetName[];
export const DEFAULT_PRESET: PresetName = 'laptop';

export const isPresetName = (name: string): name is PresetName => Object.hasOwn(MACHINE_PRESETS, name);
