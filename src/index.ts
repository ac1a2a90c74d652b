/** pfnless: the public API. Re-exports only; what is not here is not for use from outside. */

export type { ProgramArgs } from './abi/control.js';
export type { Errno } from './abi/errno.js';
export type { VirtAddr } from './base/brand.js';
export { type ErrorCode, InvariantViolation, PfnlessError } from './base/errors.js';
export type { Random } from './base/random.js';
export {
  COMPUTE_PROGRAMS,
  type ComputeProgramInfo,
  EXPLORE_STRATEGIES,
  INVARIANTS,
  type InjectionInfo,
  type Invariant,
  PROGRAM_INJECTIONS,
  type StrategyInfo,
} from './catalogue.js';
export { boot } from './check/boot.js';
export { type ComputeProgram, type LaneContext, LOCAL_WORDS } from './device/program.js';
export type { Finding } from './explore/execution.js';
export {
  type Effort,
  type ExploreFailure,
  type ExploreOptions,
  type ExploreResult,
  explore,
  exploreAsync,
  exploreInParts,
  type ReplayResult,
  replay,
  type StrategyName,
} from './explore/explore.js';
export { parseRepro, printRepro, type Repro } from './explore/repro.js';
export { BootError, type FailedRequest, FaultError } from './machine/errors.js';
export type { LayoutEntry, MemorySpec, WindowSpec } from './machine/layout.js';
export { MACHINE_PRESETS, type MachinePreset, type PresetName } from './machine/presets.js';
export {
  type DeviceSpec,
  type MachineInput,
  type MachineSpec,
  type MachineSpecInput,
  machineSpecJsonSchema,
  parseMachineSpec,
} from './machine/spec.js';
export {
  type Addressing,
  type Advice,
  type ClearRefs,
  type DeviceAccess,
  DMIRROR_PROT,
  decodePagemap,
  type ElementArrays,
  type ElementType,
  type ExecutorKind,
  type FileInput,
  type LaunchOptions,
  type LaunchResult,
  type Machine,
  type MachineFile,
  type MachineStats,
  type MceKillPolicy,
  type Meminfo,
  type MigrateResult,
  type Mirror,
  type MirrorOptions,
  type MmapOptions,
  type MremapOptions,
  type PagemapEntry,
  type PagemapKind,
  type Pin,
  type PinOptions,
  type Process,
  type ProcessStatus,
  type ProcFile,
  type ProcPidFile,
  type Protection,
  type SmapsSummary,
  type Userfaultfd,
  type UserfaultfdOptions,
  type UserfaultMessage,
  type Violation,
  type VirtRange,
  type Vmstat,
  type WordOperation,
  type WordResult,
} from './machine/types.js';
export { CHECK_SITES, type NamedSite, REVISIONS, type Revision, type SiteChoice } from './mm/check-sites.js';
export type { Schedule } from './sched/explore/schedule.js';
export { workloads } from './workload/library/index.js';
export { type Pages, ProgramBuilder, program, TaskBuilder, type Where } from './workload/program/build.js';
export { type GenerateOptions, generateProgram } from './workload/program/generate.js';
export { minimizeProgram } from './workload/program/minimize.js';
export { parseProgram } from './workload/program/parse.js';
export { printProgram } from './workload/program/print.js';
export type {
  // Of a program: fewer than a machine's, which have the same names.
  Advice as ProgramAdvice,
  Backing,
  Call,
  Injection,
  Outcome,
  Program,
  Protection as ProgramProtection,
  Task,
  UffdFeature,
} from './workload/program/program.js';
export { ProgramSyntaxError } from './workload/program/syntax-error.js';
export { type RunWorkloadOptions, runWorkload, type WorkloadResult } from './workload/run.js';
export type { Workload, WorkloadEnv, WorkloadPlan, WorkloadSizes, WorkloadVerdict } from './workload/workload.js';
