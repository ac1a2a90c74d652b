/** Where the memory of coherent devices goes in the physical map, and what their specs become. */
import { describe, expect, it } from 'vitest';
import { boot } from '#src/check/boot';
import { machineSpecJsonSchema, overrideMachineSpec, parseMachineSpec } from '#src/machine/spec';

const GiB = 2 ** 30;
const SECTION = 2 ** 27;
const coherent = { type: 'coherent', memory: '64MiB' } as const;

const addressesOf = (spec: object): (number | null)[] =>
  parseMachineSpec({ memory: { ram: '2GiB' }, ...spec }).devices.map(({ address }) => address);

describe('windows of coherent memory', () => {
  it('are chosen from 4 GiB up, each in sections of its own; private devices have none', () => {
    expect(addressesOf({ devices: [coherent, {}, coherent, { ...coherent, memory: '256MiB' }, coherent] })).toEqual([
      4 * GiB,
      null,
      4 * GiB + SECTION,
      4 * GiB + 2 * SECTION,
      4 * GiB + 4 * SECTION,
    ]);
  });

  it('keep clear of RAM, of other ranges, and of what is given', () => {
    // 8 GiB of RAM end in the middle of a section.
    const ram = 8 * GiB + 2 ** 20;
    expect(addressesOf({ memory: { ram }, devices: [coherent] })).toEqual([9 * GiB + SECTION]);
    const windows = [{ name: 'PCI Bus 0000:00', start: 4 * GiB, size: GiB + 1 }];
    expect(addressesOf({ memory: { ram: '2GiB', windows }, devices: [coherent] })).toEqual([5 * GiB + SECTION]);
    const given = { ...coherent, address: 4 * GiB };
    expect(addressesOf({ devices: [coherent, given] })).toEqual([4 * GiB + SECTION, 4 * GiB]);
  });

  it('may lie in what the firmware has reserved for them, which the map then shows once', async () => {
    const map = [
      { name: 'System RAM', kind: 'ram' as const, start: 0, size: '64MiB' },
      { name: 'Soft Reserved', start: GiB, size: GiB },
    ];
    const spec = {
      executor: 'inline' as const,
      memory: { map },
      devices: [
        { ...coherent, name: 'hbm', address: GiB + SECTION },
        { ...coherent, name: 'far' },
      ],
    };
    expect(addressesOf(spec)).toEqual([GiB + SECTION, 4 * GiB]);
    await using machine = await boot(spec);
    expect(machine.iomem()).toBe(
      [
        '00000000-03ffffff : System RAM',
        '40000000-7fffffff : Soft Reserved',
        '  48000000-4bffffff : hbm',
        '100000000-103ffffff : Soft Reserved',
        '  100000000-103ffffff : far',
        '',
      ].join('\n'),
    );
  });

  it('do not share a section with RAM that follows', () => {
    const map = [
      { name: 'System RAM', kind: 'ram', start: 0, size: '64MiB' },
      { name: 'System RAM', kind: 'ram', start: SECTION + 2 ** 26, size: '64MiB' },
    ];
    const at = (address: number) => () => addressesOf({ memory: { map }, devices: [{ ...coherent, address }] });
    expect(at(SECTION)).toThrow(/must not lead to System RAM/);
    expect(at(2 * SECTION)()).toEqual([2 * SECTION]);
  });

  it('a spec says where they are, and is itself a spec', () => {
    const spec = parseMachineSpec({ memory: { ram: '2GiB' }, devices: [coherent, { memory: '32MiB' }] });
    expect(spec.devices[0]).toMatchObject({ type: 'coherent', address: 4 * GiB, chunk: 2 ** 26 });
    expect(spec.devices[1]).toMatchObject({ type: 'private', address: null });
    expect(parseMachineSpec(spec)).toEqual(spec);
    // A copy of a device is not in the place of the first.
    const more = overrideMachineSpec(spec, { devices: 3 });
    expect(more.devices.map(({ address }) => address)).toEqual([4 * GiB, null, 4 * GiB + SECTION]);
  });

  it('end where the direct map ends', () => {
    const memory = { ram: '2GiB', physicalBits: 52 };
    const last = { ...coherent, address: 2 ** 46 - SECTION };
    expect(addressesOf({ memory, devices: [last] })).toEqual([2 ** 46 - SECTION]);
    const beyond = { ...coherent, address: 2 ** 46 };
    expect(() => addressesOf({ memory, devices: [beyond] })).toThrow(/must leave room below 400000000000/);
    expect(addressesOf({ memory: { ...memory, fiveLevelPaging: true }, devices: [beyond] })).toEqual([2 ** 46]);
  });

  it('the schema of spec files knows the field', () => {
    expect(JSON.stringify(machineSpecJsonSchema())).toContain('"address"');
  });
});

describe.each(['legacy', 'offset'] as const)('a window at the top of 46 bits (%s)', (addressing) => {
  it('is reached by the CPU and by devices', async () => {
    await using machine = await boot({
      addressing,
      executor: 'inline',
      memory: { ram: '32MiB', physicalBits: 46 },
      devices: [{ type: 'coherent', memory: '2MiB', address: 2 ** 46 - SECTION }],
    });
    const process = await machine.process();
    const mirror = await process.mirror(0);
    const range = await process.mmap({ length: 4096 });
    await process.write(range.start, Uint8Array.of(1, 2, 3));
    expect(await mirror.migrate(range, 'device')).toMatchObject({ migrated: 1 });
    expect((await process.pagemap(range))[0]! & (2n ** 55n - 1n)).toBe((2n ** 46n - 2n ** 27n) >> 12n);
    expect(await process.read(range.start, 3)).toEqual(Uint8Array.of(1, 2, 3));
    expect(await mirror.exclusive(range)).toMatchObject({ errno: 0 });
    expect(await process.read(range.start, 3)).toEqual(Uint8Array.of(1, 2, 3));
    expect(await mirror.migrate(range, 'system')).toMatchObject({ migrated: 1 });
    expect(await process.read(range.start, 3)).toEqual(Uint8Array.of(1, 2, 3));
    expect(await machine.check()).toEqual([]);
  });
});
