/**
 * Breadth-first search on a random graph. Vertices are shared out, and so are their edges; the distances are everybody's:
 * a device finds vertices that belong to others, and settles who was first by compare-exchange. The host starts level after
 * level until one finds nothing.
 */
import type { Random } from '../../base/random.js';
import { BFS_UNREACHED } from '../../device/programs/bfs-level.js';
import { allocate, BYTES_PER_ELEMENT, compare, upload } from '../arrays.js';
import { lanesFor, shareOut, together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

const DEGREE_MAX = 16;
const VERTICES_PER_LANE = 128;
/** Vertices whose distances fill a page. */
const VERTICES_PER_PAGE = 1024;

export const bfsWorkload: Workload = {
  name: 'bfs',
  summary: 'breadth-first search on a graph that all devices share',
  defaultSize: 1 << 14,
  sizes: { min: 1, max: 1 << 22, meaning: 'vertices' },
  footprint: ({ size }) => ((2 + DEGREE_MAX) * size + 2) * BYTES_PER_ELEMENT.u32,
  run,
};

/** Compressed rows: the neighbours of v are edges[offsets[v]] up to, not including, edges[offsets[v + 1]]. */
export interface Graph {
  readonly offsets: Uint32Array<ArrayBuffer>;
  readonly edges: Uint32Array<ArrayBuffer>;
}

/** Distances from vertex 0 by the textbook's queue. */
export function bfsReference({ offsets, edges }: Graph): Int32Array {
  const distance = new Int32Array(offsets.length - 1).fill(BFS_UNREACHED);
  distance[0] = 0;
  const queue = [0];
  for (const vertex of queue) {
    for (const neighbour of edges.subarray(offsets[vertex], offsets[vertex + 1])) {
      if (distance[neighbour] !== BFS_UNREACHED) continue;
      distance[neighbour] = distance[vertex]! + 1;
      queue.push(neighbour);
    }
  }
  return distance;
}

/** Each vertex gets up to `DEGREE_MAX` edges to anywhere; a few vertices are reached by none. */
function randomGraph(random: Random, vertices: number): Graph {
  const offsets = new Uint32Array(vertices + 1);
  for (let v = 0; v < vertices; v++) offsets[v + 1] = offsets[v]! + random.below(DEGREE_MAX + 1);
  const edges = new Uint32Array(Math.max(1, offsets[vertices]!)).map(() => random.below(vertices));
  return { offsets, edges };
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const graph = randomGraph(env.random, env.size);
  const offsets = await upload(env, 'u32', graph.offsets);
  const edges = await upload(env, 'u32', graph.edges);
  const distance = await upload(env, 'i32', new Int32Array(env.size).fill(BFS_UNREACHED));
  await distance.write(Int32Array.of(0));
  const found = await allocate(env, 'u32', 1);

  const shares = shareOut(env, env.size, VERTICES_PER_PAGE);
  const graphAt = { offsets: offsets.at(0), edges: edges.at(0), distance: distance.at(0), found: found.at(0) };
  let foundBefore = -1;
  let foundSoFar = 0;
  for (let level = 0; foundSoFar > foundBefore; level++) {
    await together(
      shares.map(({ mirror, first, count }) => {
        const args = { ...graphAt, first, count, level };
        return mirror.launch('bfs-level', { lanes: lanesFor(count, VERTICES_PER_LANE), args });
      }),
    );
    foundBefore = foundSoFar;
    foundSoFar = (await found.read())[0]!;
  }

  const comparison = compare('distance', bfsReference(graph), await distance.readHome());
  return { ...comparison, expectFaults: 1, expectMigrations: 1 };
}
