/** hmm-tests: files under the memory of a process, and the device's own file. */
import type { MachineFile, VirtRange } from 'pfnless';
import { expect } from 'vitest';
import {
  BUFFER,
  counting,
  deviceWrite,
  expectBytes,
  expectDeviceRead,
  expectMemory,
  expectOnDevice,
  expectPresent,
  expectSnapshot,
  negative,
  ONE_TO_EIGHT,
  PAGE,
  PROT,
  part,
  residentPages,
  selftests,
  toDevice,
  usedDevicePages,
  zeros,
} from './fixture.js';

const PAGES = BUFFER / PAGE;
/** Bit 61 of a pagemap word: a page of a file, or of shared memory. */
const PM_FILE = 1n << 61n;

async function expectFile(file: MachineFile, expected: Uint8Array): Promise<void> {
  expectBytes(await file.read(0, expected.length), expected);
}

async function expectStored(file: MachineFile, expected: Uint8Array): Promise<void> {
  expectBytes(await file.stored(0, expected.length), expected);
}

selftests(ONE_TO_EIGHT, (test) => {
  test('file_read', async ({ machine, process, mirrors }) => {
    const file = await machine.file({ size: 0 });
    expect(await file.write(0, counting(PAGES))).toBe(BUFFER);
    const range = await process.mmap({ length: BUFFER, file, shared: true, protection: 'r' });
    for (const mirror of mirrors) {
      await expectDeviceRead(mirror, range, counting(PAGES), 1);
      await expectSnapshot(mirror, range, PROT.READ);
      expect(await mirror.writePages(range, new BigUint64Array(PAGES))).toMatchObject({ errno: 'EPERM', pages: 0 });
    }
    // Of the file itself, with no copy; a mapping for reading keeps nothing of it dirty.
    for (const word of await process.pagemap(range)) expect(word & PM_FILE).toBe(PM_FILE);
    await file.sync();
    expect(await process.smaps(range)).toMatchObject({ rss: BUFFER / 1024, anon: 0, prc: BUFFER / 1024, prd: 0 });
    await expectStored(file, counting(PAGES));
    await file.close();
    await expectMemory(process, range, counting(PAGES));
  });

  test('file_write', async ({ machine, process, mirrors, mirror }) => {
    const file = await machine.file({ size: BUFFER });
    const range = await process.mmap({ length: BUFFER, file, shared: true });
    await deviceWrite(mirror, range, counting(PAGES), 1);
    await expectMemory(process, range, counting(PAGES));
    await expectFile(file, counting(PAGES));
    for (const each of mirrors) await expectSnapshot(each, range, PROT.WRITE);
    // What the device wrote is dirty; after write-back nobody writes unheard, the device neither.
    expect(await process.smaps(range)).toMatchObject({ anon: 0, prd: BUFFER / 1024 });
    await expectStored(file, zeros(PAGES));
    await process.msync(range);
    await expectStored(file, counting(PAGES));
    expect(await process.smaps(range)).toMatchObject({ anon: 0, prc: BUFFER / 1024, prd: 0 });
    for (const each of mirrors) {
      await expectSnapshot(each, range, PROT.READ);
      await deviceWrite(each, range, counting(PAGES, each.device + 1), 1);
      await expectFile(file, counting(PAGES, each.device + 1));
      await file.sync();
      await expectStored(file, counting(PAGES, each.device + 1));
    }
    await file.close();
  });

  test('file_write, in a private mapping: the file never hears of it', async ({ machine, process, mirrors }) => {
    const file = await machine.file(counting(PAGES));
    for (const mirror of mirrors) {
      const range = await process.mmap({ length: BUFFER, file });
      await expectDeviceRead(mirror, range, counting(PAGES), 1);
      expect(await process.smaps(range)).toMatchObject({ rss: BUFFER / 1024, anon: 0 });
      await deviceWrite(mirror, range, negative(PAGES), 1);
      await expectMemory(process, range, negative(PAGES));
      expect(await process.smaps(range)).toMatchObject({ rss: BUFFER / 1024, anon: BUFFER / 1024 });
    }
    await expectFile(file, counting(PAGES));
    await file.close();
  });

  test('migrate_file_private', async ({ machine, process, mirrors, coherent, local }) => {
    for (const mirror of mirrors) {
      const file = await machine.file({ size: BUFFER });
      const range = await process.mmap({ length: BUFFER, file });
      await process.write(range.start, counting(PAGES));
      const before = await process.smaps(range);
      expect(before).toMatchObject({ anon: BUFFER / 1024, prd: BUFFER / 1024 });
      await toDevice(mirror, range);
      await expectDeviceRead(mirror, range, counting(PAGES), 0);
      await expectSnapshot(mirror, range, local | PROT.WRITE);
      await expectOnDevice(process, range, coherent);
      // What the CPU has not used since is not referenced, unless a coherent device has it.
      expect({ ...(await process.smaps(range)), ref: 0 }).toEqual({ ...before, ref: 0 });
      expect(await usedDevicePages(machine, mirror)).toBe(PAGES);
      await expectMemory(process, range, counting(PAGES));
      await expectFile(file, zeros(PAGES));
      // Truncate takes private copies along, wherever they are.
      await toDevice(mirror, range);
      await file.truncate(BUFFER / 2);
      expect(await usedDevicePages(machine, mirror)).toBe(PAGES / 2);
      const behind = part(range, PAGES / 2, PAGES / 2);
      await expect(process.read(behind.start, 1)).rejects.toMatchObject({ signal: 'SIGBUS', address: behind.start });
      expect(await mirror.readPages(behind)).toMatchObject({ errno: 'EFAULT', pages: 0 });
      await process.munmap(range);
      await file.close();
      expect(await usedDevicePages(machine, mirror)).toBe(0);
    }
  });

  test('migrate_file_private, before the copy: pages of the file stay, holes are not filled', async ({
    machine,
    process,
    mirror,
    coherent,
  }) => {
    const file = await machine.file(counting(PAGES));
    const range: VirtRange = await process.mmap({ length: BUFFER, file });
    const [read, written] = [part(range, 16, 16), part(range, 32, 16)];
    await process.read(read.start, read.length);
    await process.write(written.start, negative(16));
    // The pages that are there are collected, those of the file too; only private copies move.
    expect(await mirror.migrate(range, 'device')).toMatchObject({ migrated: 16, errno: 'ENOENT' });
    expect(await usedDevicePages(machine, mirror)).toBe(16);
    await expectPresent(process, read);
    await expectOnDevice(process, written, coherent);
    expect(await residentPages(process, part(range, 48, 16))).toBe(0);
    expect(await mirror.migrate(read, 'device')).toMatchObject({ collected: 16, migrated: 0, errno: 'ENOENT' });
    const shared = await process.mmap({ length: BUFFER, file, shared: true });
    await process.write(shared.start, counting(PAGES));
    expect(await mirror.migrate(shared, 'device')).toMatchObject({ migrated: 0, errno: 'ENOENT' });
    await expectMemory(process, written, negative(16));
    await expectMemory(process, shared, counting(PAGES));
    await file.close();
  });

  test('exclusive, on mappings of files', async ({ machine, process, mirror }) => {
    const file = await machine.file(counting(4));
    const range = await process.mmap({ length: 4 * PAGE, file, shared: true });
    expect(await mirror.exclusive(range)).toMatchObject({ errno: 'EOPNOTSUPP', pages: 0 });
    // Asking for it to write has copied the page of a private mapping first.
    const own = await process.mmap({ length: 4 * PAGE, file });
    expect(await mirror.exclusive(own)).toMatchObject({ errno: 0, pages: 4 });
    expect(await mirror.isExclusive(own)).toBe(true);
    await process.write(own.start, negative(4));
    expect(await mirror.isExclusive(own)).toBe(false);
    await expectFile(file, counting(4));
    await file.close();
  });

  test('mixedmap', async ({ process, mirrors }) => {
    for (const mirror of mirrors) {
      const range = await process.mmap({ length: 4 * PAGE, file: mirror });
      await expectSnapshot(mirror, range, PROT.READ);
      await expectDeviceRead(mirror, range, zeros(4), 1);
      expect(await mirror.migrate(range, 'device')).toMatchObject({ collected: 0, migrated: 0, errno: 'EINVAL' });
      expect(await process.smaps(range)).toMatchObject({ rss: 16, anon: 0 });
      // A store copies the driver's page.
      await process.write(range.start, counting(1));
      expect(await process.smaps(range)).toMatchObject({ rss: 16, anon: 4 });
      expect([...(await mirror.snapshot(range))]).toEqual([PROT.WRITE, PROT.READ, PROT.READ, PROT.READ]);
      expect(await mirror.migrate(range, 'device')).toMatchObject({ migrated: 0, errno: 'EINVAL' });
      // fork copies the entries, which no fault could bring back.
      const child = await process.fork();
      await expectMemory(child, part(range, 1, 3), zeros(3));
      await child.exit();
      await process.madvise(part(range, 1, 1), 'DONTNEED');
      await expect(process.read(part(range, 1, 1).start, 1)).rejects.toMatchObject({ signal: 'SIGBUS' });
      expect(await mirror.readPages(part(range, 1, 1))).toMatchObject({ errno: 'EFAULT' });
      await expectMemory(process, part(range, 0, 1), counting(1));
    }
  });
});
