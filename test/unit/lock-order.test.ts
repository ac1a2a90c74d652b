/** The watch over the order of sleeping locks. */
import { expect, test } from 'vitest';
import { TaskList } from '#src/sched/tasks';
import { RwSemaphore } from '#src/sync/rwsem';
import { SCHEDULE_POINT, type Sleeps } from '#src/sync/task';

/** Run tasks in turn until all have ended; what each came to. */
async function outcomes(...tasks: Sleeps<void>[]): Promise<string[]> {
  const list = new TaskList();
  const results = tasks.map((task, at) =>
    list.spawn(`task ${at}`, task).then(
      () => 'held',
      (reason: Error) => reason.message,
    ),
  );
  while (list.all.length > 0) list.resume(list.all.find((task) => list.isReady(task))!);
  return await Promise.all(results);
}

const mmap = () => new RwSemaphore('mmap_lock', 'mmap_lock');
const chunks = () => new RwSemaphore('chunks', 'chunks');

function* nested(outer: RwSemaphore, inner: RwSemaphore): Sleeps<void> {
  yield* outer.downRead();
  yield SCHEDULE_POINT;
  yield* inner.downRead();
  inner.upRead();
  outer.upRead();
}

test('the order of the array is right, for each task by itself', async () => {
  const [a, b] = [mmap(), chunks()];
  expect(await outcomes(nested(a, b), nested(a, b), nested(a, mmap()))).toEqual(['held', 'held', 'held']);
});

test('the other way round is wrong, though nobody is in the way', async () => {
  expect(await outcomes(nested(chunks(), mmap()))).toEqual(['lock order: mmap_lock is taken under chunks']);
});

test('a lock that the task holds already', async () => {
  const lock = mmap();
  expect(await outcomes(nested(lock, lock))).toEqual(['lock order: mmap_lock is taken by a task that holds it']);
});

test('a lock that was left, and one that another task drops', async () => {
  const lock = mmap();
  function* leaves(): Sleeps<void> {
    yield* lock.downWrite();
  }
  function* drops(): Sleeps<void> {
    yield SCHEDULE_POINT;
    lock.upWrite();
  }
  expect(await outcomes(leaves(), drops())).toEqual([
    'lock order: task 0 has ended and holds mmap_lock',
    'lock order: mmap_lock is dropped by a task that does not hold it',
  ]);
});
