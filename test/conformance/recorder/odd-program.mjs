/**
 * A program of system calls with odd arguments, of a seed: ranges that begin or end inside of pages, or are empty, enormous, wrapping,
 * or over holes and mappings of several kinds; flags that exclude each other; now and then a limit on the number of mappings. After
 * each `smaps`, which shows the mappings.
 *
 * It keeps out of the recorder's own memory: what is enormous is what no address space has room for, or changes nothing that matters.
 */

const PAGE = 4096;
const BASE = 2 ** 44;
const END = 2 ** 47 - PAGE;
/** More than there is; the second wraps. */
const ENORMOUS = [2 ** 47, -PAGE, -8 * PAGE, 2 ** 52];
/** From here on nothing can be mapped. The last is the kernel's. */
const NOWHERE = [END - BASE, END + PAGE - BASE, 2 ** 48 - BASE, -BASE - PAGE];

const PROT = { none: 0, r: 1, w: 2, rw: 3 };
const [MAYMOVE, FIXED, DONTUNMAP] = [1, 2, 4];
const MADV = { WILLNEED: 3, DONTNEED: 4, FREE: 8, HUGEPAGE: 14, NOHUGEPAGE: 15, COLD: 20, PAGEOUT: 21, COLLAPSE: 25 };
const MS_SYNC = 4;

const WEIGHTS = {
  mmap: 8,
  munmap: 8,
  mprotect: 10,
  mremap: 16,
  madvise: 9,
  mlock: 6,
  munlock: 4,
  msync: 5,
  watch: 7,
  device: 8,
  map: 8,
  touch: 8,
  move: 6,
  fork: 2,
  limit: 3,
};
const HUGE_PAGES = 512;

export class OddProgram {
  lines = [];
  #random;
  #kind;
  #hasChild = false;
  #isLimited = false;

  constructor(random, kind) {
    this.#random = random;
    this.#kind = kind;
  }

  write() {
    const { pages, huge, file } = this.#kind;
    this.#say('open 0 0 0');
    this.#say('open 0 1 1');
    this.#say('uffd_open 0');
    this.#say(`mmap 0 0 ${pages - 8} RW private`);
    this.#say('mmap 0 8 8 RW shared');
    this.#say('mmap 0 20 4 NONE private');
    if (file) this.#say('mmap 0 28 12 RW shared 0');
    if (huge) this.#say(`madvise 0 0 ${pages - 8} HUGEPAGE`);
    this.#say(`cpu_write 0 0 ${huge ? 3 * HUGE_PAGES : 20}`);
    const length = 40 + this.#random.below(60);
    while (this.lines.length < length) this.#try(this.#random.weighed(WEIGHTS));
  }

  #say(line) {
    this.lines.push(line);
  }

  #raw(call, at, bytes, ...further) {
    // The child has no userfaultfd.
    const process = call.startsWith('uffd') ? 0 : this.#process();
    this.#say(['raw', process, call, at, bytes, ...further].join(' '));
    this.#say(`smaps ${process}`);
  }

  #process() {
    return this.#hasChild && this.#random.oneIn(3) ? 1 : 0;
  }

  /** A page of the first so many; in a huge arena mostly one of a huge page's first or last. */
  #page(pages) {
    const random = this.#random;
    if (!this.#kind.huge || random.oneIn(4)) return random.below(pages);
    const near = random.below(Math.floor(pages / HUGE_PAGES) + 1) * HUGE_PAGES + random.pick([0, 0, 0, 1, -1]);
    return Math.max(0, Math.min(pages - 1, near));
  }

  /** A byte of the arena, or beside it: mostly where a page begins. */
  #near() {
    const random = this.#random;
    const page = this.#page(random.oneIn(8) ? this.#kind.pages + 8 : this.#kind.pages) - (random.oneIn(12) ? 4 : 0);
    return page * PAGE + (random.oneIn(7) ? random.pick([1, 8, 2048, PAGE - 8]) : 0);
  }

  #start() {
    return this.#random.oneIn(20) ? this.#random.pick(NOWHERE) : this.#near();
  }

  /** Where what is to move shall go: nowhere near address 0, which root may map. */
  #target() {
    return this.#random.oneIn(14) ? this.#random.pick(NOWHERE) : this.#near();
  }

  /** A place for so many bytes, nowhere or where they are not both inside of the arena and outside: states show no such mapping. */
  #placeFor(bytes) {
    const at = this.#target();
    const end = this.#kind.pages * PAGE;
    if (at < -8 * PAGE || at >= end || bytes <= 0 || bytes > end) return at;
    return Math.max(0, Math.min(at, end - Math.ceil(bytes / PAGE) * PAGE));
  }

  #few() {
    const random = this.#random;
    const whole = this.#kind.huge && random.oneIn(2) ? (1 + random.below(2)) * HUGE_PAGES : 0;
    const pages = whole > 0 ? whole : random.oneIn(4) ? random.below(this.#kind.pages) : 1 + random.below(12);
    return pages * PAGE + (random.oneIn(6) ? random.pick([-PAGE + 1, -1, 1, 2048]) : 0);
  }

  #bytes() {
    const random = this.#random;
    if (random.oneIn(16)) return 0;
    return random.oneIn(14) ? random.pick(ENORMOUS) : Math.max(1, this.#few());
  }

  /** As the test driver takes it: a number of pages, of which its copy has room for. */
  #wholeBytes() {
    const random = this.#random;
    if (random.oneIn(12)) return random.pick([0, -PAGE, -8 * PAGE]);
    if (this.#kind.huge && random.oneIn(2)) return HUGE_PAGES * PAGE;
    return (1 + random.below(random.oneIn(3) ? this.#kind.pages - 1 : 10)) * PAGE;
  }

  #try(what) {
    const random = this.#random;
    const { huge, pages } = this.#kind;
    switch (what) {
      case 'mmap': {
        const bytes = this.#bytes();
        if (random.oneIn(5)) {
          // The driver has to fill it.
          const some = Math.min(Math.abs(bytes), 12 * PAGE);
          return this.#raw('mmap_device', this.#placeFor(some), some, random.below(2));
        }
        return this.#raw(
          random.pick(['mmap_private', 'mmap_private', 'mmap_shared']),
          this.#placeFor(bytes),
          bytes,
          random.pick([PROT.rw, PROT.rw, PROT.r, PROT.none]),
        );
      }
      case 'munmap':
        return this.#raw('munmap', this.#start(), this.#bytes());
      case 'mprotect':
        return this.#raw('mprotect', this.#start(), this.#bytes(), random.pick(Object.values(PROT)));
      case 'mremap':
        return this.#mremap();
      case 'madvise': {
        const bytes = this.#bytes();
        const harmless = Math.abs(bytes) > 2 ** 40 || bytes < 0;
        const advice = random.pick(harmless ? [MADV.NOHUGEPAGE, MADV.WILLNEED] : this.#advice());
        return this.#raw('madvise', this.#start(), bytes, advice);
      }
      case 'mlock':
        return this.#raw('mlock', this.#start(), this.#bytes(), random.below(2));
      case 'munlock':
        return this.#raw('munlock', this.#start(), this.#bytes());
      case 'msync':
        return this.#raw('msync', this.#start(), this.#bytes(), MS_SYNC);
      case 'watch':
        return this.#watch();
      case 'device': {
        const call = random.pick(['migrate_to_dev', 'migrate_to_dev', 'migrate_to_sys', 'snapshot', 'check_exclusive']);
        const accesses = this.#hasChild ? [call] : [call, call, 'dev_read', 'exclusive'];
        return this.#raw(
          random.pick(accesses),
          this.#start(),
          this.#wholeBytes(),
          random.below(random.oneIn(12) ? 3 : 2),
        );
      }
      case 'map': {
        const page = this.#page(pages - 12);
        const kind = random.pick(['private', 'private', 'shared']);
        const offset = this.#kind.file && random.oneIn(2) ? ` ${random.below(20)}` : '';
        const protection = random.pick(['RW', 'RW', 'RW', 'R', 'NONE']);
        return this.#say(`mmap ${this.#process()} ${page} ${1 + random.below(12)} ${protection} ${kind}${offset}`);
      }
      case 'touch': {
        const page = this.#page(pages - 12);
        const verb = random.pick(['cpu_write', 'cpu_write', 'cpu_read']);
        return this.#say(`${verb} ${this.#process()} ${page} ${1 + random.below(12)}`);
      }
      case 'move': {
        const page = this.#page(pages - 12);
        const count = huge && page + HUGE_PAGES <= pages && random.oneIn(2) ? HUGE_PAGES : 1 + random.below(12);
        return this.#say(`migrate_to_dev 0 ${random.below(2)} ${page} ${count}`);
      }
      case 'fork':
        this.#say(this.#hasChild ? 'exit 1' : 'fork 0');
        this.#hasChild = !this.#hasChild;
        return;
      case 'limit':
        // Not for long: with it most calls fail.
        this.#isLimited = !this.#isLimited;
        return this.#say(`max_maps 0 ${this.#isLimited ? 4 + random.below(10) : pages}`);
    }
  }

  #advice() {
    const { WILLNEED, DONTNEED, FREE, NOHUGEPAGE, HUGEPAGE, COLLAPSE, COLD, PAGEOUT } = MADV;
    const always = [WILLNEED, DONTNEED, DONTNEED, FREE, NOHUGEPAGE, NOHUGEPAGE, HUGEPAGE, COLLAPSE];
    return this.#kind.swap ? [...always, COLD, PAGEOUT, PAGEOUT, PAGEOUT, PAGEOUT] : always;
  }

  #mremap() {
    const random = this.#random;
    const flags = random.pick([
      ...[0, FIXED, DONTUNMAP, FIXED | DONTUNMAP],
      ...[MAYMOVE | FIXED, MAYMOVE | FIXED, MAYMOVE | FIXED, MAYMOVE | FIXED | DONTUNMAP],
      // To where the kernel likes: there it may become a part of the recorder's memory, which must not be counted.
      ...(this.#isLimited ? [] : [MAYMOVE, MAYMOVE, MAYMOVE | DONTUNMAP]),
    ]);
    const bytes = this.#bytes();
    // What grows enormously is refused for want of memory, which is not modelled.
    const len = random.oneIn(2) ? bytes : random.oneIn(10) ? random.pick([0, ...ENORMOUS]) : Math.max(1, this.#few());
    const to = (flags & FIXED) !== 0 ? this.#placeFor(len) : -1;
    const at = this.#start();
    // In place nothing grows over the end of the arena.
    const grows = len > bytes && at + len > this.#kind.pages * PAGE && len <= this.#kind.pages * PAGE;
    this.#raw('mremap', at, bytes, flags, to, grows ? bytes : len);
  }

  #watch() {
    const random = this.#random;
    const bytes = random.oneIn(8) ? this.#bytes() : this.#wholeBytes();
    const call = random.pick(['uffd_register', 'uffd_register', 'uffd_unregister', 'uffd_protect', 'uffd_protect']);
    // From the first address of all on; the recorder's own memory is in there, to no harm.
    const all = call !== 'uffd_protect' && random.oneIn(8);
    const [at, length] = all ? [-BASE, BASE + this.#kind.pages * PAGE] : [this.#start(), bytes];
    if (call !== 'uffd_protect') this.#raw(call, at, length);
    else this.#raw(call, at, length, random.below(2));
  }
}
