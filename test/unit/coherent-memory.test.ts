/** Memory of coherent devices: what the CPU, fork, pins and core mm do with pages that are on a device and still theirs. */

import { describe, expect, it } from 'vitest';
import { HMM_PFN_VALID, makeHmmPfns, setHmmPfn } from '#src/abi/hmm-pfn';
import { NULL_PAGE, type Page, type Pfn, type VirtAddr } from '#src/base/brand';
import { InvariantViolation } from '#src/base/errors';
import type { VirtRange } from '#src/machine/types';
import type { DevPagemap } from '#src/mm/dev-pagemap';
import { pinUserPages, unpinUserPages } from '#src/mm/gup';
import { kmapLocalPage, pageFrame, pageMemory } from '#src/mm/highmem';
import { memremapDevicePrivatePagemap, memremapPages } from '#src/mm/memremap';
import { putPage } from '#src/mm/put-page';
import { waitUntil } from '#src/sync/task';
import {
  type CoherentRig,
  errnoOf,
  LOCAL,
  PAGE,
  part,
  READ,
  REMOTE,
  upTo,
  WINDOWS,
  WRITE,
  withCoherent,
} from './coherent-rig.js';
import { smallKernel } from './mm-fixture.js';

const PFN = WINDOWS.map((start) => start / PAGE);

describe.each(['legacy', 'offset'] as const)('coherent memory (%s)', (addressing) => {
  it('is in the physical map, and pages in it are named by their place there', () =>
    withCoherent(addressing, async ({ machine, mirrors, filled, pfns }) => {
      const lines = machine.iomem().split('\n');
      const at = lines.indexOf('200000000-2001fffff : Soft Reserved');
      expect(lines[at + 1]).toBe('  200000000-2001fffff : gpu0');
      const range = await filled(4);
      await mirrors[0].migrate(range, 'device');
      expect(await pfns(range)).toEqual(upTo(4, PFN[0]));
      await mirrors[0].migrate(range, 'system');
      await mirrors[1].migrate(range, 'device');
      expect(await pfns(range)).toEqual(upTo(4, PFN[1]));
    }));

  it('is loaded and stored by the CPU without a fault, and what it stores is in the device', () =>
    withCoherent(addressing, async ({ machine, state, process, mirrors, filled, bytes, used }) => {
      const range = await filled(4);
      await mirrors[0].migrate(range, 'device');
      const { cpuFaults } = await machine.stats();
      expect(await bytes(range)).toEqual(upTo(4));
      await process.write(part(range, 2, 1).start, new Uint8Array(PAGE).fill(77));
      expect((await machine.stats()).cpuFaults).toBe(cpuFaults);
      const memory = new Uint8Array(state.devices[0]!.link.memories.memories[1]!);
      expect([0, 1, 2, 3].map((page) => memory[page * PAGE])).toEqual([1, 2, 77, 4]);
      expect(await mirrors[0].readPages(range)).toMatchObject({ errno: 0, faults: 0 });
      expect((await mirrors[0].read(part(range, 2, 1).start, 1))[0]).toBe(77);
      expect(await used()).toEqual([4, 0, 0]);
    }));

  it('fills holes and replaces the zero page: writable, young and zero; the mirror starts read-only', () =>
    withCoherent(addressing, async ({ process, mirrors, bytes, codes, used }) => {
      const range = await process.mmap({ length: 4 * PAGE });
      expect((await process.read(part(range, 1, 1).start, 1))[0]).toBe(0);
      await process.mprotect(part(range, 2, 1), 'r');
      expect(await mirrors[0].migrate(range, 'device')).toMatchObject({ migrated: 4, errno: 0 });
      expect(await codes(range, mirrors[0])).toEqual([WRITE, WRITE, READ, WRITE].map((access) => LOCAL | access));
      expect(await used()).toEqual([4, 0, 0]);
      // Of the holes in writable memory pages come dirty, as in Linux; that of the read-only mapping does not.
      expect(await process.smaps(range)).toMatchObject({ rss: 16, prd: 12, prc: 4 });
      expect(await mirrors[0].writePages(part(range, 0, 1), [5n])).toMatchObject({ errno: 0, faults: 1 });
      expect(await bytes(part(range, 1, 3))).toEqual([0, 0, 0]);
      expect((await process.read(range.start, 1))[0]).toBe(5);
    }));

  it('is shared after fork; whoever writes gets a copy in RAM, and the last one keeps the page on the device', () =>
    withCoherent(addressing, async ({ process, mirrors, filled, bytes, codes, pfns, used }) => {
      const range = await filled(4);
      await mirrors[0].migrate(range, 'device');
      const child = await process.fork();
      expect(await pfns(range, child)).toEqual(await pfns(range));
      expect(await codes(range, mirrors[0])).toEqual(Array(4).fill(LOCAL | READ));
      await process.write(part(range, 0, 2).start, new Uint8Array(2 * PAGE).fill(9));
      expect(await used()).toEqual([4, 0, 0]);
      expect(await codes(range, mirrors[0])).toEqual([WRITE, WRITE, LOCAL | READ, LOCAL | READ]);
      expect(await bytes(range, child)).toEqual([1, 2, 3, 4]);
      // The child is alone with the first two pages now.
      const before = await pfns(part(range, 0, 2), child);
      await child.write(range.start, new Uint8Array(2 * PAGE).fill(8));
      expect(await pfns(part(range, 0, 2), child)).toEqual(before);
      expect(await bytes(range, child)).toEqual([8, 8, 3, 4]);
      await child.exit();
      expect(await bytes(range)).toEqual([9, 9, 3, 4]);
      // The child's mirrors were its parent's, and are still open.
      expect(await used()).toEqual([2, 0, 0]);
    }));

  it('breaks copy-on-write for a device that writes, which a private page on a device does not', () =>
    withCoherent(addressing, async ({ process, mirrors, filled, bytes, codes }) => {
      const range = await filled(2);
      await mirrors[0].migrate(range, 'device');
      const child = await process.fork();
      expect(await mirrors[0].writePages(range, [6n, 6n])).toMatchObject({ errno: 0, faults: 1 });
      expect(await codes(range, mirrors[0])).toEqual([WRITE, WRITE]);
      expect(await bytes(range, child)).toEqual([1, 2]);
      await child.exit();
    }));

  it('is moved by its own driver alone', () =>
    withCoherent(addressing, async ({ mirrors, filled, codes, used }) => {
      const range = await filled(3);
      await mirrors[0].migrate(range, 'device');
      for (const other of [mirrors[1], mirrors[2]]) {
        expect(await other.migrate(range, 'device')).toMatchObject({ collected: 0, errno: 'ENOENT' });
        expect(await other.migrate(range, 'system')).toMatchObject({ collected: 0, errno: 0 });
      }
      expect(await codes(range, mirrors[0])).toEqual(Array(3).fill(LOCAL | WRITE));
      expect(await used()).toEqual([3, 0, 0]);
      expect(await mirrors[0].migrate(range, 'system')).toMatchObject({ collected: 3, migrated: 3, errno: 0 });
      expect(await codes(range, mirrors[0])).toEqual(Array(3).fill(WRITE));
    }));

  it('is mapped by other devices where it is, private ones too, until it moves', () =>
    withCoherent(addressing, async ({ mirrors, filled, bytes, codes, used }) => {
      const range = await filled(2);
      const [own, peer, privatePeer] = mirrors;
      await own.migrate(range, 'device');
      for (const other of [peer, privatePeer]) {
        expect(await codes(range, other)).toEqual([REMOTE | WRITE, REMOTE | WRITE]);
        expect(await other.readPages(range)).toMatchObject({ errno: 0, faults: 1, words: expect.anything() });
        await other.write(range.start, new Uint8Array(PAGE).fill(20 + other.device));
        expect(await bytes(part(range, 0, 1))).toEqual([20 + other.device]);
        expect((await own.read(range.start, 1))[0]).toBe(20 + other.device);
        // Once mapped there it is no error to want it there, as in Linux: nobody asks where it is.
        expect(await other.migrate(range, 'device')).toMatchObject({ collected: 0, errno: 0 });
      }
      expect(await used()).toEqual([2, 0, 0]);
      await own.migrate(part(range, 0, 1), 'system');
      for (const other of [peer, privatePeer]) {
        expect(await other.peekPages(part(range, 0, 1))).toMatchObject({ errno: 'ENOENT' });
        expect((await other.read(range.start, 1))[0]).toBe(22);
      }
    }));

  it('takes atomics of every device and plain accesses of the CPU, and stays', () =>
    withCoherent(addressing, async ({ process, mirrors, used }) => {
      const range = await process.mmap({ length: 2 * PAGE });
      await process.writeArray('u32', range.start, new Uint32Array(2));
      await mirrors[0].migrate(range, 'device');
      const args = { target: range.start, count: 64, stride: PAGE / 32, by: 3 };
      await Promise.all(mirrors.map((mirror) => mirror.launch('atomic-increment', { lanes: 16, args })));
      const words = await process.readArray('u32', range.start, (2 * PAGE) / 4);
      expect(words.filter((word) => word !== 0)).toEqual(new Uint32Array(64).fill(9));
      expect(await used()).toEqual([2, 0, 0]);
    }));

  it('is never tried to be moved by a fault: a device that comes later takes the page from none that has it', () =>
    withCoherent(addressing, async ({ machine, process, mirrors, filled, used }) => {
      const range = await filled(4);
      await mirrors[0].migrate(range, 'device');
      const late = await process.mirror(1, { onFault: 'migrate' });
      await mirrors[2].readPages(range);
      const { migratedToDevice, migratedToRam } = await machine.stats();
      await late.launch('atomic-increment', { lanes: 4, args: { target: range.start, count: 4, stride: PAGE, by: 1 } });
      for (const mirror of [mirrors[0], mirrors[2]]) {
        expect(await mirror.peekPages(range)).toMatchObject({ errno: 0, pages: 4 });
      }
      expect(await machine.stats()).toMatchObject({ migratedToDevice, migratedToRam });
      expect(await used()).toEqual([4, 0, 0]);
    }));

  it('is no candidate of a migration to the device it is on', () =>
    withCoherent(addressing, async ({ mirrors, filled }) => {
      const range = await filled(2);
      await mirrors[0].migrate(part(range, 0, 1), 'device');
      const answer = { requested: 2, collected: 1, migrated: 1, errno: 0 };
      expect(await mirrors[0].migrate(range, 'device')).toMatchObject(answer);
    }));

  it('is evicted for room, the longest filled first', () =>
    withCoherent(addressing, async ({ machine, process, mirrors, bytes, used }) => {
      const range = await process.mmap({ length: 2 ** 21 + 4 * PAGE });
      const all = range.length / PAGE;
      for (let i = 0; i < all; i++) await process.write(part(range, i, 1).start, new Uint8Array(PAGE).fill(i % 251));
      expect(await mirrors[0].migrate(part(range, 0, 512), 'device')).toMatchObject({ migrated: 512, errno: 0 });
      expect(await used()).toEqual([512, 0, 0]);
      expect(await mirrors[0].migrate(part(range, 512, 4), 'device')).toMatchObject({ migrated: 4, errno: 0 });
      expect((await machine.stats()).evicted).toBe(512);
      expect(await used()).toEqual([4, 0, 0]);
      expect(await bytes(range)).toEqual(upTo(all, 0).map((i) => i % 251));
    }));

  it('goes home with the last close of a mirror, and when the driver gives its memory up', () =>
    withCoherent(addressing, async ({ machine, process, mirrors, filled, bytes, used }) => {
      const range = await filled(3);
      await mirrors[0].migrate(range, 'device');
      await mirrors[0].releaseChunks();
      expect(machine.iomem()).not.toContain('gpu0');
      expect(machine.iomem()).toContain('200000000-2001fffff : Soft Reserved\n');
      expect(await bytes(range)).toEqual([1, 2, 3]);
      await mirrors[0].migrate(range, 'device');
      expect(machine.iomem()).toContain('  200000000-2001fffff : gpu0\n');
      expect(await used()).toEqual([3, 0, 0]);
      const again = await process.mirror(0);
      await again.close();
      expect(await used()).toEqual([0, 0, 0]);
      expect(await bytes(range)).toEqual([1, 2, 3]);
    }));

  it('keeps what mprotect, madvise and mremap say of present pages', () =>
    withCoherent(addressing, async ({ process, mirrors, filled, bytes, codes, used }) => {
      const range = await filled(6);
      await mirrors[0].migrate(range, 'device');
      await process.mprotect(part(range, 0, 1), 'r');
      await process.mprotect(part(range, 1, 1), 'none');
      expect(await codes(part(range, 0, 3), mirrors[0])).toEqual([LOCAL | READ, 0xff, LOCAL | WRITE]);
      const denied = process.write(part(range, 0, 1).start, new Uint8Array(1));
      await expect(denied).rejects.toMatchObject({ signal: 'SIGSEGV' });
      // Unlike a private entry, a present one becomes writable again.
      await process.mprotect(part(range, 0, 2), 'rw');
      await process.write(part(range, 0, 1).start, new Uint8Array(PAGE).fill(50));
      expect(await codes(part(range, 0, 1), mirrors[0])).toEqual([LOCAL | WRITE]);
      await process.madvise(part(range, 2, 1), 'DONTNEED');
      await process.madvise(part(range, 3, 1), 'FREE');
      expect(await used()).toEqual([5, 0, 0]);
      // MADV_FREE leaves device memory alone.
      expect(await bytes(part(range, 0, 4))).toEqual([50, 2, 0, 4]);
      const moved = await process.mremap(part(range, 4, 2), { to: (range.start - 2 ** 30) as never });
      expect(await bytes(moved)).toEqual([5, 6]);
      expect(await codes(moved, mirrors[0])).toEqual([LOCAL | WRITE, LOCAL | WRITE]);
    }));
});

describe.each(['legacy', 'offset'] as const)('holding coherent pages (%s)', (addressing) => {
  it('a plain reference and a short pin leave the page where it is, and keep it there', () =>
    withCoherent(addressing, async ({ state, process, mirrors, filled, bytes, used, run }) => {
      const { kernel } = state;
      const mm = [...kernel.mms][0]!;
      const range = await filled(4);
      await mirrors[0].migrate(range, 'device');
      const got = await process.pin(part(range, 0, 1), { kind: 'get', write: true });
      const short = await run(
        pinUserPages(kernel, mm, part(range, 1, 1).start as VirtAddr, 1, { write: true, longterm: false }),
      );
      if (typeof short === 'string') throw new Error(short);
      expect(await mirrors[0].migrate(range, 'system')).toMatchObject({ migrated: 2, errno: 0 });
      expect(await used()).toEqual([2, 0, 0]);
      await expect(mirrors[0].releaseChunks()).rejects.toMatchObject({ errno: 'EBUSY' });
      await process.write(range.start, new Uint8Array(PAGE).fill(33));
      expect((await got.read())[0]).toBe(33);
      // Fork: who pinned the page goes on seeing what the parent writes, so the child has a copy, in RAM.
      const child = await process.fork();
      await process.write(part(range, 1, 1).start, new Uint8Array(PAGE).fill(44));
      expect(await bytes(part(range, 0, 2), child)).toEqual([33, 2]);
      expect(await bytes(part(range, 0, 2))).toEqual([33, 44]);
      await child.exit();
      unpinUserPages(kernel, short);
      await got.release();
      expect(await mirrors[0].migrate(range, 'system')).toMatchObject({ errno: 0 });
      expect(await used()).toEqual([0, 0, 0]);
    }));

  it('a long-term pin moves the page to RAM first, also for the devices that have it mapped', () =>
    withCoherent(addressing, async ({ process, mirrors, filled, bytes, codes, used }) => {
      const range = await filled(4);
      const [own, peer] = mirrors;
      await own.migrate(part(range, 1, 3), 'device');
      await peer.readPages(range);
      const pin = await process.pin(part(range, 0, 3));
      expect(await used()).toEqual([1, 0, 0]);
      expect(await codes(range, own)).toEqual([WRITE, WRITE, WRITE, LOCAL | WRITE]);
      for (const each of [own, peer]) {
        expect(await each.peekPages(part(range, 1, 1))).toMatchObject({ errno: 'ENOENT' });
      }
      await process.write(range.start, new Uint8Array(3 * PAGE).fill(60));
      expect([...(await pin.read())].filter((_, at) => at % PAGE === 0)).toEqual([60, 60, 60]);
      expect(await bytes(range)).toEqual([60, 60, 60, 4]);
      await pin.release();
    }));

  it('a long-term pin of a shared page needs a page of its own: that is in RAM, and the other stays', () =>
    withCoherent(addressing, async ({ process, mirrors, filled, bytes, codes, used }) => {
      const range = await filled(2);
      await mirrors[0].migrate(range, 'device');
      const child = await process.fork();
      const pin = await process.pin(part(range, 0, 1));
      expect(await codes(range, mirrors[0])).toEqual([READ, LOCAL | READ]);
      expect(await used()).toEqual([2, 0, 0]);
      expect(await bytes(range, child)).toEqual([1, 2]);
      await pin.release();
      await child.exit();
      expect(await used()).toEqual([1, 0, 0]);
    }));

  it('a long-term pin of a page that somebody holds on the device is EBUSY, and leaves nothing behind', () =>
    withCoherent(addressing, async ({ process, mirrors, filled, bytes, used }) => {
      const range = await filled(4);
      await mirrors[0].migrate(part(range, 1, 3), 'device');
      const held = await process.pin(part(range, 2, 1), { kind: 'get' });
      expect(await errnoOf(process.pin(range))).toBe('EBUSY');
      // The page before the one that is held has gone home all the same.
      expect(await used()).toEqual([2, 0, 0]);
      await held.release();
      const pin = await process.pin(range, { write: true });
      expect(await used()).toEqual([0, 0, 0]);
      expect(await bytes(range)).toEqual([1, 2, 3, 4]);
      await pin.release();
    }));

  it('a long-term pin without RAM to move to is EBUSY; the page stays', () =>
    withCoherent(addressing, async ({ state, process, mirrors, filled, bytes, codes }) => {
      const range = await filled(2);
      await mirrors[0].migrate(range, 'device');
      const { buddy } = state.kernel;
      const taken = new Float64Array(buddy.freePagesCount);
      const count = buddy.allocBulk(taken.length, taken);
      expect(await errnoOf(process.pin(range))).toBe('EBUSY');
      for (let i = 0; i < count; i++) putPage(state.kernel, taken[i] as never);
      expect(await codes(range, mirrors[0])).toEqual([LOCAL | WRITE, LOCAL | WRITE]);
      expect(await bytes(range)).toEqual([1, 2]);
    }));

  it('a device that dies leaves its memory to the CPU, which can still bring the pages home', () =>
    withCoherent(addressing, async ({ machine, process, mirrors, filled, bytes, used }) => {
      const range = await filled(3);
      await mirrors[0].migrate(range, 'device');
      await machine.killDevice(0);
      await expect(mirrors[0].migrate(range, 'system')).rejects.toMatchObject({ code: 'ERR_PFNLESS_DEVICE_LOST' });
      expect(await bytes(range)).toEqual([1, 2, 3]);
      const pin = await process.pin(part(range, 0, 2), { write: true });
      expect(await used()).toEqual([1, 0, 0]);
      await pin.release();
      expect(await mirrors[1].migrate(range, 'device')).toMatchObject({ migrated: 2, errno: 'ENOENT' });
      expect(await bytes(range)).toEqual([1, 2, 3]);
    }));

  it('exclusive access takes the page from the CPU where it is, for any device', () =>
    withCoherent(addressing, async ({ process, mirrors, filled, bytes, codes, used }) => {
      const range = await filled(3);
      await mirrors[0].migrate(range, 'device');
      for (const mirror of mirrors) {
        expect(await mirror.exclusive(range)).toMatchObject({ errno: 0, pages: 3 });
        expect((await mirror.peekPages(range)).words[1]! & 0xffn).toBe(2n);
        expect(await codes(range, mirrors[0])).toEqual([0, 0, 0]);
        for (const other of mirrors) expect(await other.isExclusive(range)).toBe(other === mirror);
      }
      expect(await used()).toEqual([3, 0, 0]);
      // Such an entry is not selected, but eviction finds it.
      expect(await mirrors[0].migrate(range, 'system')).toMatchObject({ collected: 0, errno: 0 });
      expect((await process.read(range.start, 1))[0]).toBe(1);
      expect(await codes(range, mirrors[0])).toEqual([LOCAL | WRITE, 0, 0]);
      await mirrors[0].releaseChunks();
      expect(await used()).toEqual([0, 0, 0]);
      for (const mirror of mirrors) expect(await mirror.isExclusive(range)).toBe(false);
      expect(await bytes(range)).toEqual([1, 2, 3]);
    }));
});

describe.each(['legacy', 'offset'] as const)('huge pages in coherent memory (%s)', (addressing) => {
  const PMD = 4;
  const HUGE = 2 ** 21;
  const ONE_FOLIO = { requested: 512, collected: 512, migrated: 512, folios: 1, errno: 0 };

  /** 2 MiB of sevens on the first device, mapped there by one entry. */
  const hugeRange = async ({ process, mirrors }: CoherentRig): Promise<VirtRange> => {
    const { start } = await process.mmap({ length: 2 * HUGE });
    const range: VirtRange = { start: (Math.ceil(start / HUGE) * HUGE) as VirtAddr, length: HUGE };
    await process.madvise(range, 'HUGEPAGE');
    await process.write(range.start, new Uint8Array(HUGE).fill(7));
    expect(await mirrors[0].migrate(range, 'device')).toEqual(ONE_FOLIO);
    return range;
  };

  it('go there and back as one, and the CPU and other devices use them there', () =>
    withCoherent(addressing, async (rig) => {
      const { machine, process, mirrors, codes, used } = rig;
      const range = await hugeRange(rig);
      const { cpuFaults } = await machine.stats();
      await process.write(part(range, 300, 1).start, Uint8Array.of(8));
      expect((await process.read(range.start, HUGE)).reduce((sum, byte) => sum + byte, 0)).toBe(7 * HUGE + 1);
      expect((await machine.stats()).cpuFaults).toBe(cpuFaults);
      expect(new Set(await codes(range, mirrors[0]))).toEqual(new Set([LOCAL | WRITE | PMD]));
      expect((await mirrors[1].read(part(range, 300, 1).start, 1))[0]).toBe(8);
      expect(await used()).toEqual([512, 0, 0]);
      expect(await mirrors[0].migrate(range, 'system')).toEqual(ONE_FOLIO);
      expect((await mirrors[1].read(part(range, 300, 1).start, 1))[0]).toBe(8);
      expect(new Set(await codes(range, mirrors[1]))).toEqual(new Set([WRITE | PMD]));
    }));

  it('are shared after fork; a write copies 4 KiB to RAM', () =>
    withCoherent(addressing, async (rig) => {
      const { process, mirrors, codes, used } = rig;
      const range = await hugeRange(rig);
      const child = await process.fork();
      await process.write(range.start, Uint8Array.of(1));
      expect(await codes(part(range, 0, 2), mirrors[0])).toEqual([WRITE, LOCAL | READ]);
      expect((await child.read(range.start, 1))[0]).toBe(7);
      await child.exit();
      expect(await used()).toEqual([512, 0, 0]);
    }));

  it('cannot be pinned for long there, in no part; references hold them', () =>
    withCoherent(addressing, async (rig) => {
      const { process, mirrors, codes, used } = rig;
      const range = await hugeRange(rig);
      for (const [first, pages] of [
        [0, 1],
        [77, 1],
        [0, 512],
      ] as const) {
        expect(await errnoOf(process.pin(part(range, first, pages), { write: true }))).toBe('EBUSY');
      }
      expect(new Set(await codes(range, mirrors[0]))).toEqual(new Set([LOCAL | WRITE | PMD]));
      const held = await process.pin(part(range, 77, 1), { kind: 'get' });
      expect(await mirrors[0].migrate(range, 'system')).toMatchObject({ migrated: 0 });
      await held.release();
      expect(await used()).toEqual([512, 0, 0]);
    }));

  it('keep only what is not given up while they are on the way', () =>
    withCoherent(addressing, async (rig) => {
      const { process, mirrors } = rig;
      const range = await hugeRange(rig);
      await mirrors[0].migrate(range, 'system');
      await Promise.all([mirrors[0].migrate(range, 'device'), process.madvise(part(range, 0, 256), 'DONTNEED')]);
      expect((await process.read(range.start, 1))[0]).toBe(0);
      const { words } = await mirrors[0].readPages(range);
      expect([words[0], words[255], words[256]! & 0xffn, words[511]! & 0xffn]).toEqual([0n, 0n, 7n, 7n]);
    }));
});

it('a coherent page and a device private page with the same number are told apart by every word that carries it', () => {
  const kernel = smallKernel('offset');
  const NUMBER = 2 ** 15;
  const nothing = { owner: {}, range: null, pages: NULL_PAGE, id: 0, ref: null } as const;
  const secret: DevPagemap = {
    ...nothing,
    type: 'MEMORY_DEVICE_PRIVATE',
    nrPages: NUMBER + 1,
    ops: { migrateToRam: () => waitUntil('nothing', () => true) as never, folioFree() {} },
  };
  const open: DevPagemap = {
    ...nothing,
    type: 'MEMORY_DEVICE_COHERENT',
    nrPages: 512,
    ops: { folioFree() {} },
    range: { start: NUMBER * PAGE, end: (NUMBER + 512) * PAGE - 1 },
    memory: { id: 1, bytes: new SharedArrayBuffer(512 * PAGE) },
  };
  expect(memremapDevicePrivatePagemap(kernel, secret)).toBe(0);
  expect(memremapPages(kernel, open)).toBe(0);
  const { addressing, memmap } = kernel;
  const privatePage = (secret.pages + NUMBER) as Page;
  const coherentPage = open.pages;
  for (const page of [privatePage, coherentPage]) {
    const number = addressing.pageNumber(page);
    expect(number).toBe(NUMBER);
    expect(addressing.migratePfnToPage(addressing.migratePfnFromPage(page))).toBe(page);
    const pfns = makeHmmPfns(1);
    setHmmPfn(pfns, 0, addressing.pageNumber(page), HMM_PFN_VALID | addressing.hmmPfnKind(page));
    expect(addressing.hmmPfnToPage(pfns, 0)).toBe(page);
    for (const access of ['read', 'read-exclusive', 'write'] as const) {
      expect(addressing.leafToPage(addressing.migrationType(page, access), number)).toBe(page);
    }
  }
  expect(addressing.leafToPage(addressing.devicePrivateType(true), NUMBER)).toBe(privatePage);
  expect(addressing.leafToPage(Number(addressing.swapTypes.typeOf['device-exclusive']), NUMBER)).toBe(coherentPage);
  expect(memmap.pfnToPage(NUMBER as Pfn)).toBe(coherentPage);
  // And nobody can ask for bytes of the private one by mistake.
  kmapLocalPage(kernel, coherentPage).fill(7);
  expect(new Uint8Array(open.memory!.bytes)[PAGE - 1]).toBe(7);
  expect(() => kmapLocalPage(kernel, privatePage)).toThrow(/no memory that has physical addresses/);
  expect(() => pageMemory(kernel, privatePage)).toThrow(InvariantViolation);
  expect([pageMemory(kernel, coherentPage), pageFrame(kernel, (coherentPage + 5) as Page)]).toEqual([1, 5]);
});
