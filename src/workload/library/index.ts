/** The workloads that pfnless ships, in the order in which they are listed and run. */
import { deepFreeze } from '../../base/freeze.js';
import type { Workload } from '../workload.js';
import { bfsWorkload } from './bfs.js';
import { histogramWorkload } from './histogram.js';
import { matmulWorkload } from './matmul.js';
import { migrateStormWorkload } from './migrate-storm.js';
import { oversubscriptionWorkload } from './oversubscription.js';
import { pingPongWorkload } from './ping-pong.js';
import { pointerChaseWorkload } from './pointer-chase.js';
import { producerConsumerWorkload } from './producer-consumer.js';
import { randomUpdateWorkload } from './random-update.js';
import { reductionWorkload } from './reduction.js';
import { saxpyWorkload } from './saxpy.js';
import { stencilWorkload } from './stencil.js';
import { vectorAddWorkload } from './vector-add.js';

/** What `runWorkload` takes: each with its name, its sizes, and a reference on the CPU that its result is held against. */
export const workloads: readonly Workload[] = deepFreeze([
  vectorAddWorkload,
  saxpyWorkload,
  matmulWorkload,
  histogramWorkload,
  reductionWorkload,
  stencilWorkload,
  bfsWorkload,
  pointerChaseWorkload,
  randomUpdateWorkload,
  pingPongWorkload,
  producerConsumerWorkload,
  oversubscriptionWorkload,
  migrateStormWorkload,
]);
