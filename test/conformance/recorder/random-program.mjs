/**
 * A random program for the recorder, of a seed.
 *
 * It keeps out of what the driver gets wrong ("stale mirrors", docs/traces.md): each process has one mirror a device at most; no device
 * accesses memory through a child's mirror, or through any on the same device while a child has one.
 */

/** Pages of the file, if there is one. */
export const FILE_PAGES = 48;
const HUGE_PAGES = 512;
/** Slots 0..3 are the parent's, 4..7 the child's. */
const SLOTS = 8;
const SLOTS_OF_ONE = 4;

/** xorshift32: numbers below a bound. */
export class Random {
  #state;

  constructor(seed) {
    this.#state = Math.imul(seed + 1, 2654435761) >>> 0 || 1;
    for (let at = 0; at < 10; at++) this.below(2);
  }

  below(bound) {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state >>> 0;
    return this.#state % bound;
  }

  /** In one case of so many. */
  oneIn(cases) {
    return this.below(cases) === 0;
  }

  pick(list) {
    return list[this.below(list.length)];
  }

  /** A name, by weight. */
  weighed(weights) {
    let at = (this.below(100_000) / 100_000) * Object.values(weights).reduce((sum, weight) => sum + weight, 0);
    for (const [name, weight] of Object.entries(weights)) {
      if (at < weight) return name;
      at -= weight;
    }
    return Object.keys(weights)[0];
  }
}

/** How often each operation is tried. Some are not possible then, and nothing is written. */
const weightsFor = ({ huge, swap, file, poison }) => ({
  mmap: 10,
  munmap: 6,
  mprotect: 13,
  madvise: huge ? 20 : 10,
  mremap: 8,
  mremap_to: 6,
  mlock: 4,
  munlock: 3,
  clear_refs: 5,
  fork: 5,
  exit: 4,
  cpu_write: 22,
  cpu_read: 20,
  dev_read: 14,
  dev_write: 14,
  migrate_to_dev: 26,
  migrate_to_sys: 9,
  snapshot: 4,
  exclusive: 8,
  check_exclusive: 4,
  fail_alloc: 3,
  release_chunks: 0.4,
  pin: 3,
  unpin: 4,
  splice: 2,
  splice_drain: 3,
  uffd_open: 1.5,
  uffd_close: 0.7,
  uffd_register: 3,
  uffd_unregister: 1.5,
  uffd_protect: 5,
  uffd_resolve: 2,
  kpage: 5,
  smaps: 4,
  counters: 6,
  open: 1.5,
  close: 1,
  ...(swap ? { page_out: 10 } : {}),
  ...(file ? { fread: 4, fwrite: 4, ftruncate: 1.5, fsync: 2 } : {}),
  ...(poison ? { poison: 5 } : {}),
});

/** One random program: what it has done so far decides what it may do. */
export class RandomProgram {
  lines = [];
  #random;
  #kind;
  /** `{ device, process }` of each open slot. */
  #slots = new Array(SLOTS).fill(null);
  #hasChild = false;
  #isPinned = false;
  #isSpliced = false;
  #isWatched = false;

  constructor(random, kind) {
    this.#random = random;
    this.#kind = kind;
  }

  write() {
    const { huge, shared } = this.#kind;
    const random = this.#random;
    const length = huge ? 40 + random.below(50) : 60 + random.below(140);
    const weights = weightsFor(this.#kind);
    this.#open(0, 0, 0);
    this.#open(1, 1, 0);
    const [page, count] = huge ? [0, random.pick([512, 1024, 2048])] : [random.below(8), 16 + random.below(40)];
    this.#say('mmap', 0, page, count, 'RW', shared && random.oneIn(2) ? 'shared' : 'private');
    if (huge && !random.oneIn(3)) this.#say('madvise', 0, page, count, 'HUGEPAGE');
    this.#say('cpu_write', 0, page, huge ? Math.min(count, HUGE_PAGES) : count);
    while (this.lines.length < length) this.#try(random.weighed(weights));
  }

  #say(...words) {
    this.lines.push(words.join(' '));
  }

  #open(slot, device, process) {
    this.#slots[slot] = { device, process };
    this.#say('open', process, slot, device);
  }

  /** Pages and their number: mostly few; in a huge arena mostly such as begin and end where huge pages do. */
  #range() {
    const random = this.#random;
    const { huge, pages } = this.#kind;
    if (!huge) {
      const count = 1 + random.below(random.oneIn(4) ? 40 : 8);
      return [random.below(pages - count + 1), count];
    }
    switch (random.weighed({ whole: 3, two: 1, inside: 1, across: 1, half: 1, few: 1 })) {
      case 'whole':
        return [random.below(4) * HUGE_PAGES, HUGE_PAGES];
      case 'two':
        return [random.below(3) * HUGE_PAGES, 2 * HUGE_PAGES];
      case 'inside': {
        const count = 1 + random.below(24);
        const first = random.pick([0, HUGE_PAGES - count, random.below(HUGE_PAGES - count)]);
        return [random.below(4) * HUGE_PAGES + first, count];
      }
      case 'across': {
        const count = 2 + random.below(30);
        return [(1 + random.below(3)) * HUGE_PAGES - 1 - random.below(count - 1), count];
      }
      case 'half':
        return [random.below(4) * HUGE_PAGES + random.pick([0, HUGE_PAGES / 2]), HUGE_PAGES / 2];
      default: {
        const count = 1 + random.below(4);
        return [random.below(pages - count), count];
      }
    }
  }

  /** A range whose contents go into the trace. */
  #smallRange() {
    for (;;) {
      const [page, count] = this.#range();
      if (count <= HUGE_PAGES) return [page, count];
    }
  }

  /** At most eight pages, which somebody holds. */
  #heldRange() {
    const count = 1 + this.#random.below(8);
    return [Math.min(this.#range()[0], this.#kind.pages - count), count];
  }

  /** Where `length` pages may go that come from elsewhere; -1 if no place was found. */
  #destination(page, count, length) {
    const random = this.#random;
    const { huge, pages } = this.#kind;
    for (let attempt = 0; attempt < 20; attempt++) {
      let to = random.below(pages - length + 1);
      if (huge && random.oneIn(2)) to = to - (to % HUGE_PAGES) + (page % HUGE_PAGES);
      if (to + length <= pages && (to + length <= page || page + count <= to)) return to;
    }
    return -1;
  }

  #process() {
    return this.#hasChild && this.#random.oneIn(3) ? 1 : 0;
  }

  #openSlot() {
    const open = [...this.#slots.keys()].filter((slot) => this.#slots[slot] !== null);
    return open.length === 0 ? null : this.#random.pick(open);
  }

  /** Who uses a slot: its owner; now and then the child one that it inherited. */
  #userOf(slot) {
    if (this.#slots[slot]?.process === 1) return 1;
    return this.#hasChild && this.#random.oneIn(4) ? 1 : 0;
  }

  #try(operation) {
    const random = this.#random;
    switch (operation) {
      case 'mmap':
        return this.#mmap();
      case 'munmap': {
        const [page, count] = this.#range();
        // Huge pages are not to go too soon.
        if (count < HUGE_PAGES || random.oneIn(2)) this.#say('munmap', this.#process(), page, count);
        return;
      }
      case 'mprotect':
        return this.#onRange('mprotect', random.pick(['RW', 'RW', 'RW', 'R', 'R', 'NONE', 'W']));
      case 'madvise':
        return this.#onRange('madvise', random.pick(this.#kind.huge ? HUGE_ADVICE : SMALL_ADVICE));
      case 'page_out':
        return this.#onRange('madvise', random.pick(['PAGEOUT', 'PAGEOUT', 'PAGEOUT', 'COLD', 'WILLNEED']));
      case 'poison': {
        const count = 1 + random.below(2);
        const page = Math.min(this.#range()[0], this.#kind.pages - count);
        return this.#say(
          'madvise',
          this.#process(),
          page,
          count,
          random.pick(['HWPOISON', 'SOFT_OFFLINE', 'SOFT_OFFLINE']),
        );
      }
      case 'mlock':
        return this.#onRange('mlock', random.oneIn(3) ? 1 : 0);
      case 'munlock':
        return this.#onRange('munlock');
      case 'mremap': {
        const [page, count] = this.#range();
        const to = this.#destination(page, count, count);
        if (to >= 0) this.#say('mremap', this.#process(), page, count, to);
        return;
      }
      case 'mremap_to':
        return this.#mremapTo();
      case 'clear_refs':
        return this.#say(
          'clear_refs',
          this.#process(),
          random.pick(['soft-dirty', 'soft-dirty', 'soft-dirty', 'all', 'anonymous', 'mapped']),
        );
      case 'cpu_write':
      case 'cpu_read':
      case 'kpage':
        return this.#say(operation, this.#process(), ...this.#smallRange());
      case 'fork':
        if (!this.#hasChild) this.#say('fork', 0);
        this.#hasChild = true;
        return;
      case 'exit':
        if (this.#hasChild) this.#say('exit', 1);
        this.#hasChild = false;
        this.#slots.fill(null, SLOTS_OF_ONE);
        return;
      case 'dev_read':
      case 'dev_write':
      case 'exclusive':
        return this.#deviceAccess(operation);
      case 'migrate_to_dev':
      case 'migrate_to_sys':
      case 'snapshot':
      case 'check_exclusive': {
        // Now and then a slot that may be closed.
        const slot = random.oneIn(60) ? random.below(SLOTS_OF_ONE) : this.#openSlot();
        const range = operation.startsWith('migrate') && !random.oneIn(3) ? this.#range() : this.#smallRange();
        if (slot !== null) this.#say(operation, this.#userOf(slot), slot, ...range);
        return;
      }
      case 'fail_alloc':
      case 'release_chunks': {
        const slot = this.#openSlot();
        if (slot !== null) this.#say(operation, this.#slots[slot].process, slot);
        return;
      }
      case 'open':
        return this.#openAnother();
      case 'close': {
        const slot = this.#openSlot();
        if (slot === null) return;
        this.#say('close', this.#slots[slot].process, slot);
        this.#slots[slot] = null;
        return;
      }
      case 'pin':
        if (!this.#isPinned) this.#say('pin', 0, ...this.#heldRange(), random.below(2));
        this.#isPinned = true;
        return;
      case 'unpin':
        if (this.#isPinned) this.#say('unpin', 0);
        this.#isPinned = false;
        return;
      case 'splice':
        if (!this.#isSpliced) this.#say('splice', 0, ...this.#heldRange());
        this.#isSpliced = true;
        return;
      case 'splice_drain':
        if (this.#isSpliced) this.#say('splice_drain', 0);
        this.#isSpliced = false;
        return;
      case 'uffd_open':
        if (this.#isWatched) return;
        this.#isWatched = true;
        this.#say('uffd_open', 0);
        return this.#say('uffd_register', 0, ...this.#range());
      case 'uffd_close':
        if (this.#isWatched) this.#say('uffd_close', 0);
        this.#isWatched = false;
        return;
      case 'uffd_register':
      case 'uffd_unregister':
      case 'uffd_protect':
      case 'uffd_resolve':
        if (this.#isWatched) this.#say(operation, 0, ...this.#range());
        return;
      case 'fread':
        return this.#say('fread', this.#process(), random.below(FILE_PAGES), 1 + random.below(8));
      case 'fwrite': {
        const page = random.below(FILE_PAGES);
        return this.#say('fwrite', this.#process(), page, Math.min(1 + random.below(8), FILE_PAGES - page));
      }
      case 'ftruncate':
        return this.#say('ftruncate', 0, random.below(FILE_PAGES + 8));
      default:
        return this.#say(operation, this.#process());
    }
  }

  #onRange(operation, ...further) {
    this.#say(operation, this.#process(), ...this.#range(), ...further);
  }

  #mmap() {
    const random = this.#random;
    const { huge, file, shared } = this.#kind;
    const process = this.#process();
    if (file && !random.oneIn(3)) {
      const protection = random.pick(['RW', 'RW', 'RW', 'R', random.oneIn(3) ? 'NONE' : 'RW']);
      const offset = random.below(random.oneIn(3) ? FILE_PAGES + 2 : FILE_PAGES / 2);
      this.#say('mmap', process, ...this.#smallRange(), protection, random.pick(['shared', 'private']), offset);
      return;
    }
    const [page, count] = this.#range();
    const protection = random.pick(['RW', 'RW', 'RW', 'RW', 'R', random.oneIn(3) ? random.pick(['NONE', 'W']) : 'RW']);
    this.#say('mmap', process, page, count, protection, random.oneIn(shared ? 2 : 6) ? 'shared' : 'private');
    if (huge && !random.oneIn(3)) this.#say('madvise', process, page, count, 'HUGEPAGE');
  }

  /** To another length in place, or elsewhere; DONTUNMAP leaves the length as it is. */
  #mremapTo() {
    const random = this.#random;
    const [page, count] = this.#range();
    const inPlace = random.oneIn(2);
    const dontUnmap = !inPlace && random.oneIn(2);
    const length = dontUnmap ? count : random.pick([count + 1 + random.below(8), 1 + random.below(count)]);
    if (inPlace && page + length <= this.#kind.pages)
      this.#say('mremap_to', this.#process(), page, count, length, -1, 0);
    if (inPlace || length > this.#kind.pages) return;
    const to = this.#destination(page, count, length);
    if (to >= 0) this.#say('mremap_to', this.#process(), page, count, length, to, dontUnmap ? 1 : 0);
  }

  /** A snapshot instead, where the mirror may be stale. */
  #deviceAccess(operation) {
    const slot = this.#openSlot();
    if (slot === null) return;
    const { device, process } = this.#slots[slot];
    const range = operation === 'exclusive' ? this.#heldRange() : this.#smallRange();
    const mayBeStale = this.#slots.some((each) => each !== null && each.process === 1 && each.device === device);
    this.#say(process === 1 || mayBeStale ? 'snapshot' : operation, this.#userOf(slot), slot, ...range);
  }

  #openAnother() {
    const process = this.#hasChild ? this.#random.below(2) : 0;
    const device = this.#random.below(2);
    if (this.#slots.some((each) => each !== null && each.device === device && each.process === process)) return;
    const first = process * SLOTS_OF_ONE;
    const free = this.#slots.indexOf(null, first);
    if (free >= 0 && free < first + SLOTS_OF_ONE) this.#open(free, device, process);
  }
}

const SMALL_ADVICE = ['DONTNEED', 'DONTNEED', 'FREE', 'FREE', 'HUGEPAGE', 'NOHUGEPAGE', 'COLLAPSE'];
const HUGE_ADVICE = ['DONTNEED', 'HUGEPAGE', 'HUGEPAGE', 'COLLAPSE', 'COLLAPSE', 'COLLAPSE', 'FREE', 'NOHUGEPAGE'];
