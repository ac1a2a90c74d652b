/** What exploration has found, by the lines that it printed: each held again once it was mended. */
import { expect, test } from 'vitest';
import { explore, replay } from '#src/explore/explore';
import { parseRepro } from '#src/explore/repro';
import { parseProgram } from '#src/workload/program/parse';

test.each([
  [
    'two lanes that want more device memory than there is do not evict each other for ever',
    'v1 offset 4 devices 1; pages 2; memory 1; A: fill 0 1 on 0 -> a; B: fill 1 2 on 0 -> b',
  ],
  [
    'a page that was mapped while its predecessor, which was discarded, still moved keeps its mapping',
    'v1 offset 6-2-2-0 devices 2; pages 1; init: add 0 1 on 1; A: fill 0 2 on 0; B: fill 0 4 on 1; C: madvise 0 dontneed',
  ],
  [
    "an eviction beside a release of the device's memory does not use chunks that are gone",
    'v1 offset 4-0 devices 1; pages 1; init: add 0 1 on 0; A: release 0; C: release 0',
  ],
  [
    'a device maps no page behind an invalidation that has passed',
    'v1 offset 6-0 devices 1; pages 1; init: read 0 on 0; B: add 0 2 on 0; C: tosystem 0 on 0',
  ],
  [
    "a child's fault leaves the tables of a mirror alone that was closed meanwhile: another stands there by now",
    'v1 offset 0-c-3-0-0-0 devices 1; pages 1; inject copy-late; init: todevice 0 on 0; A: fork C; A: close 0; A: madvise 0 dontneed; A: store 0 5; A: open 0; A: fill 0 6 on 0; A: munmap 0; A: fill 0 7 on 0; C: load 0 -> s',
  ],
  [
    'a page that has moved leads to the entries that stand for it until they are gone',
    'v1 offset tame devices 2; pages 3; A: touch 0 on 0; C: store 1 2; C: todevice 1-2 on 1',
  ],
  [
    'a device that passes an invalidation over is not at rest, in whatever order it works',
    'v1 offset 0-1 devices 1; pages 1; inject device-order invalidation-late; init: fill 0 1 on 0; C: munmap 0',
  ],
  [
    'a page that another migration has made read-only since is copied for the lane that stores to it',
    'v1 legacy tame devices 1; pages 1; A: add 0 1 on 0; B: pin 0; B: unpin; D: todevice 0 on 0',
  ],
  [
    'a mirror that is closed has nothing left that an eviction could not take',
    'v1 legacy 5 devices 1; pages 1; inject eviction-fails; init: add 0 1 on 0; A: store 0 2; C: fail_alloc 0; C: close 0',
  ],
])('%s', (_, repro) => {
  expect(replay(parseRepro(repro)).finding).toBeNull();
});

test('a page that leaves for its eviction is not written through a translation that only one of its processes has lost', () => {
  const program = parseProgram(
    'process B C; A: fill 0 1 on 0; A: release 0; B: fill 0 5 on 0; B: store 0 6; C: fill 0 7 on 0'.replaceAll(
      '; ',
      '\n',
    ),
  );
  // Without the mend: the 2615th.
  const { failure } = explore(program, { strategy: 'pct', depth: 5, executions: 4000 });
  expect(failure?.repro ?? null).toBeNull();
});
