/**
 * The nearest explanation of a divergence: from what differs, the mechanism that most probably was missed or done too much,
 * with the number of the fact about the real kernel in docs/traces.md, where one says so. A guess, for whoever looks first: the
 * rules are asked from the most particular to the most general, and the first one that fits speaks.
 */
import { DMIRROR_PROT } from '../abi/dmirror.js';
import { PM_FILE, PM_MMAP_EXCLUSIVE, PM_PRESENT, PM_SWAP, PM_SWAP_TYPE_SHIFT, PM_UFFD_WP } from '../mm/proc-pagemap.js';

/** What differs, as a report shows it. */
export interface Observation {
  readonly op: string;
  /** `errno`, `words[3]`, `st0.pm[5]`, `st1.rss`, ... */
  readonly field: string;
  readonly expected: string;
  readonly actual: string;
  /** Swap types start here: with the series 25, without 28 (device private write; then read; then device exclusive). */
  readonly firstDeviceType: number;
}

/** An observation taken apart. */
interface Seen extends Observation {
  /** `pm`, `errno`: the field without state, page and unit. */
  readonly name: string;
  /** Both values as numbers; NaN where they are none. Sums are in kB. */
  readonly want: number;
  readonly got: number;
}

interface Rule {
  readonly fits: (seen: Seen) => boolean;
  readonly text: string;
  readonly fact?: number;
}

const DEVICE_OPS: ReadonlySet<string> = new Set(['dev_read', 'dev_write']);
const PAGE_KB = 4;
/** Fresh values of `words` carry the number of the write above this many bits: k * 4096 + page. */
const WRITE_UNIT = 4096;

type Entry = 'none' | 'present' | 'device-private-write' | 'device-private-read' | 'device-exclusive' | 'swap';

/** What a short pagemap word says of the entry. */
function entryOf(pm: number, firstDeviceType: number): Entry {
  if ((pm & PM_PRESENT) !== 0) return 'present';
  if ((pm & PM_SWAP) === 0) return 'none';
  const kinds: readonly Entry[] = ['device-private-write', 'device-private-read', 'device-exclusive'];
  return kinds[(pm >> PM_SWAP_TYPE_SHIFT) - firstDeviceType] ?? 'swap';
}

const isDevicePrivate = (entry: Entry): boolean => entry.startsWith('device-private');

/** Both entries of a page's pagemap words, where that is what differs. */
function entries({ name, want, got, firstDeviceType }: Seen): readonly [Entry, Entry] | null {
  return name === 'pm' ? [entryOf(want, firstDeviceType), entryOf(got, firstDeviceType)] : null;
}

const entry = (matches: (want: Entry, got: Entry) => boolean) => (seen: Seen) => {
  const both = entries(seen);
  return both !== null && matches(...both);
};
const pagemapBit = (bit: number) => (seen: Seen) =>
  seen.name === 'pm' && seen.want >= 0 && seen.got >= 0 && (seen.want ^ seen.got) === bit;
const isSnapshot = ({ name }: Seen): boolean => name === 's0' || name === 's1' || name === 'prot';
const errno = (want: string, got: string) => (seen: Seen) =>
  seen.name === 'errno' && seen.expected === want && seen.actual === got;
/** One sum of a state, off by some pages. */
const sum =
  (...names: string[]) =>
  (seen: Seen) =>
    names.includes(seen.name) && Number.isFinite(seen.want - seen.got);
const opIs =
  (...ops: string[]) =>
  ({ op }: Seen): boolean =>
    ops.includes(op);

/** Does `bits` stand in one snapshot code and not in the other? ERROR has all bits, and is no code like the others. */
const code = (bits: number) => (seen: Seen) =>
  isSnapshot(seen) &&
  seen.want !== DMIRROR_PROT.ERROR &&
  seen.got !== DMIRROR_PROT.ERROR &&
  ((seen.want ^ seen.got) & bits) !== 0;

const both =
  (...tests: readonly ((seen: Seen) => boolean)[]) =>
  (seen: Seen) =>
    tests.every((test) => test(seen));

/** From the particular to the general. */
const RULES: readonly Rule[] = [
  // Entries.
  {
    fits: both(
      entry((want, got) => want === 'device-private-write' && got === 'device-private-read'),
      opIs('mprotect'),
    ),
    text: 'mprotect took write permission from a device private entry that keeps it, or the entry was read-only before',
    fact: 13,
  },
  {
    fits: entry((want, got) => want === 'device-private-write' && got === 'device-private-read'),
    text: 'the device private entry lost its write permission: writable comes from the entry it replaced, and a hole takes it from the VMA',
    fact: 2,
  },
  {
    fits: both(
      entry((want, got) => want === 'device-private-read' && got === 'device-private-write'),
      opIs('fork'),
    ),
    text: 'fork left a device private entry writable: both sides become read-only',
    fact: 20,
  },
  {
    fits: both(
      entry((want, got) => want === 'device-private-read' && got === 'device-private-write'),
      opIs('mprotect'),
    ),
    text: 'mprotect to read-only leaves a device private entry writable, or mprotect to writable restored it, which it does not',
    fact: 13,
  },
  {
    fits: entry((want, got) => want === 'device-private-read' && got === 'device-private-write'),
    text: 'the device private entry is writable although what it replaced was not: a page shared after fork, or a read-only mapping',
    fact: 2,
  },
  {
    fits: entry((want, got) => want === 'device-exclusive' && got === 'present'),
    text: 'a device exclusive entry was restored (or never made): only an access by the CPU or a fault of a device revokes it',
    fact: 25,
  },
  {
    fits: entry((want, got) => want === 'present' && got === 'device-exclusive'),
    text: 'a device exclusive entry outlived an access of the CPU or a fork, which restore it',
    fact: 25,
  },
  {
    fits: both(
      entry((want, got) => isDevicePrivate(want) && got === 'present'),
      opIs('migrate_to_dev'),
    ),
    text: 'the page was not selected or not moved: an extra reference, shared memory, another device, or a failed allocation keep it',
    fact: 7,
  },
  {
    fits: entry((want, got) => isDevicePrivate(want) && got === 'present'),
    text: 'the page came home although nothing of this operation asks for it: one fault moves exactly one page of 4 KiB',
    fact: 11,
  },
  {
    fits: both(
      entry((want, got) => want === 'present' && isDevicePrivate(got)),
      opIs('close', 'exit'),
    ),
    text: 'the last close of a mirror evicts all pages of its device, of every process',
    fact: 22,
  },
  {
    fits: both(
      entry((want, got) => want === 'present' && isDevicePrivate(got)),
      opIs('pin', 'splice'),
    ),
    text: 'taking a reference on a device page first brings it home',
    fact: 8,
  },
  {
    fits: both(
      entry((want, got) => want === 'present' && isDevicePrivate(got)),
      opIs('migrate_to_dev'),
    ),
    text: 'the page moved although it must not: it is held by somebody, shared, exclusive or of another device',
    fact: 7,
  },
  {
    fits: entry((want, got) => want === 'present' && isDevicePrivate(got)),
    text: 'the page stayed on the device although this operation brings it home (in every process that maps it)',
    fact: 20,
  },
  {
    fits: both(
      entry((want, got) => want === 'none' && got !== 'none'),
      opIs('madvise', 'munmap', 'mremap', 'mmap'),
    ),
    text: 'an entry survived an operation that drops it: device entries are dropped like swap entries',
    fact: 9,
  },
  {
    fits: both(
      entry((want, got) => want !== 'none' && got === 'none'),
      opIs('madvise', 'mremap'),
    ),
    text: 'an entry is lost: mremap moves device entries, MADV_FREE leaves them alone',
    fact: 9,
  },
  {
    fits: both(
      entry((want, got) => isDevicePrivate(want) && got === 'none'),
      opIs('migrate_to_dev'),
    ),
    text: 'a hole was not migrated: in private anonymous memory it becomes a zeroed page on the device',
    fact: 1,
  },
  {
    fits: both(pagemapBit(PM_MMAP_EXCLUSIVE), ({ want }) => (want & PM_MMAP_EXCLUSIVE) !== 0),
    text: 'the page is mapped more than once: an entry of another process, or a copy that copy-on-write should have made',
    fact: 20,
  },
  {
    fits: pagemapBit(PM_MMAP_EXCLUSIVE),
    text: 'the page is mapped once although it should be shared (mapcount), or a device entry says that it is exclusive',
    fact: 26,
  },
  { fits: pagemapBit(PM_FILE), text: 'the page counts as anonymous where it is shared memory, or the other way round' },
  { fits: pagemapBit(PM_UFFD_WP), text: 'the userfaultfd write-protect bit did not travel with the entry' },

  // Snapshots.
  {
    fits: both(isSnapshot, ({ want, got }) => want === DMIRROR_PROT.ERROR || got === DMIRROR_PROT.ERROR),
    text: 'ERROR says that there is no VMA, or none that may be read: the VMA differs, or its permission',
    fact: 13,
  },
  {
    fits: code(DMIRROR_PROT.DEV_PRIVATE_LOCAL),
    text: 'the page is on the device in one and in RAM in the other, or its owner is mistaken: a device sees its own pages only',
    fact: 16,
  },
  {
    fits: code(DMIRROR_PROT.ZERO),
    text: 'a read fault maps the zero page, a write fault or a read that is pinned allocates',
    fact: 15,
  },
  { fits: code(DMIRROR_PROT.PMD), text: 'the huge mapping was split, or should have been', fact: 29 },
  {
    fits: code(DMIRROR_PROT.READ | DMIRROR_PROT.WRITE),
    text: 'the entry differs in write permission: copy-on-write after fork, mprotect, or where a migrated entry takes it from',
    fact: 11,
  },
  { fits: isSnapshot, text: 'the page is mapped in one and not in the other', fact: 15 },

  // Answers.
  {
    fits: both(({ name }) => name === 'errno', opIs('raw')),
    text: 'what a call says to a range that is none, in which order it looks, and what it has done before it fails',
    fact: 36,
  },
  {
    fits: both(errno('EFAULT', '0'), opIs('dev_write')),
    text: 'a device write to its own page under a read-only entry fails every time: no device breaks copy-on-write',
    fact: 17,
  },
  {
    fits: both(errno('0', 'EFAULT'), opIs('dev_write')),
    text: 'the page is under a read-only entry on its device, where it should have been writable or at home',
    fact: 17,
  },
  {
    fits: both(errno('EFAULT', 'EPERM'), ({ op }) => DEVICE_OPS.has(op)),
    text: 'EPERM is for a VMA that may not be written; no VMA, or one that may not be read, is EFAULT',
    fact: 15,
  },
  {
    fits: both(errno('EPERM', '0'), opIs('check_exclusive')),
    text: 'the mirror lost its exclusive entry: an invalidation that does not concern the page, or reaches one page too far',
    fact: 25,
  },
  {
    fits: both(errno('0', 'EPERM'), opIs('check_exclusive')),
    text: "the mirror kept an exclusive entry: mprotect, mremap, fork and another device's exclusive clear it",
    fact: 25,
  },
  {
    fits: both(errno('ENOENT', '0'), opIs('migrate_to_dev')),
    text: 'some page of the range should have no entry in the mirror: it was invalidated (the page behind a range, too), or never moved',
    fact: 18,
  },
  {
    fits: both(errno('0', 'ENOENT'), opIs('migrate_to_dev')),
    text: 'a page of the range has no entry in the mirror: its entry was dropped by an own migration, or the page did not move',
    fact: 4,
  },
  {
    fits: both(({ name, expected, actual }) => name === 'errno' && [expected, actual].includes('ENOMEM')),
    text: 'an allocation failed in one and not in the other (fail_alloc is used up by the first), or a hole in the range',
    fact: 10,
  },
  {
    fits: both(({ name, expected, actual }) => name === 'errno' && [expected, actual].includes('EINVAL')),
    text: 'a hole or a VMA without VM_READ in the range, which ends a migration there',
    fact: 4,
  },
  {
    fits: ({ name, expected, actual }) => name === 'errno' && [expected, actual].includes('EBADF'),
    text: 'the slot is open in one and closed in the other',
  },
  {
    fits: ({ name, op }) => name === 'faults' && DEVICE_OPS.has(op),
    text: 'a mirror entry is there in one and missing in the other (or read-only: a hole that migrated): one round of faults fills it',
    fact: 18,
  },
  {
    fits: ({ name, op }) => name === 'cpages' && op === 'migrate_to_sys',
    text: 'pages on this device alone are counted, a huge one as one',
    fact: 14,
  },

  // Contents.
  {
    fits: ({ name, got, want }) => name === 'words' && got === 0 && want !== 0,
    text: 'the contents are gone: a copy that was not made, or a fresh page in place of the old one',
  },
  {
    fits: ({ name, got, want }) => name === 'words' && want === 0 && got !== 0,
    text: 'the page should be fresh: what was dropped came back, or a hole was not zeroed',
  },
  {
    fits: ({ name, got, want }) => name === 'words' && Math.floor(got / WRITE_UNIT) < Math.floor(want / WRITE_UNIT),
    text: 'an older write is seen: a stale copy, on the device or in RAM, or a translation that was not invalidated',
    fact: 18,
  },
  {
    fits: ({ name }) => name === 'words',
    text: "another process's write is seen: a page is shared that should have been copied",
    fact: 20,
  },
  { fits: ({ name }) => name === 'torn', text: 'a page was copied while it was written, or in part' },
  {
    fits: ({ name }) => name === 'res',
    text: 'an access trapped in one and not in the other: the permission of the VMA is asked first',
    fact: 12,
  },

  // Sums.
  {
    fits: both(sum('rss', 'anon'), ({ want, got }) => Math.abs(want - got) === PAGE_KB),
    text: 'one page more or less is counted: the zero page is not, a page on a device is, a hole that migrated is',
    fact: 1,
  },
  { fits: sum('rss', 'anon'), text: 'resident pages differ: device entries count as if they were present', fact: 26 },
  { fits: sum('ahp'), text: 'a huge mapping was split, or should have been', fact: 27 },
  { fits: sum('swap'), text: 'device entries are no swap', fact: 26 },
  {
    fits: sum('prd', 'prc', 'shd', 'shc'),
    text: 'dirty or shared is judged otherwise: the dirty bit travels with the page, an exclusive entry counts as shared',
    fact: 24,
  },
  {
    fits: ({ name }) => name === 'mc',
    text: 'the VMA differs, or the entry: whatever is not none counts as in core',
    fact: 26,
  },

  // The trace itself, and the machine.
  {
    fits: ({ name }) => ['i', 'k', 'proc', 'slot', 'dev'].includes(name),
    text: 'the line does not fit those before it: a line is missing, or was altered',
  },
  { fits: ({ name }) => name === 'st1', text: 'the child lives in one and not in the other' },
  {
    fits: ({ name }) => name === 'leftovers',
    text: 'a reference, a mapping or a page is not given back; the checkers of a machine name the place',
  },
  {
    fits: ({ name }) => name === 'kernel log',
    text: 'the emulated kernel warned of itself, where the real one had nothing to say',
  },
];

const VALUE = /^-?\d+(?= kB$|$)/;
const numberOf = (shown: string): number => Number(VALUE.exec(shown)?.[0] ?? Number.NaN);

/** One sentence, or `null` when no rule fits. */
export function explain(observation: Observation): string | null {
  const name = observation.field.replace(/^st[01]\./, '').replace(/\[\d+\]$/, '');
  const seen = { ...observation, name, want: numberOf(observation.expected), got: numberOf(observation.actual) };
  const rule = RULES.find(({ fits }) => fits(seen));
  if (rule === undefined) return null;
  return rule.fact === undefined ? rule.text : `${rule.text} (docs/traces.md, fact ${rule.fact})`;
}
