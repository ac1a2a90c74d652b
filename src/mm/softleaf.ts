/** Predicates over non-present entries, for the numbering of the machine. Linux: include/linux/leafops.h. */
import { type SoftLeafKind, swpType } from '../abi/softleaf.js';
import type { SoftLeaf } from '../base/brand.js';
import type { Kernel } from './kernel.js';

export const leafKind = (kernel: Kernel, entry: SoftLeaf): SoftLeafKind =>
  kernel.addressing.swapTypes.kindOf[swpType(entry)];

/** `softleaf_is_migration()`: both families (the is-a rule of the series). */
export function isMigration(kind: SoftLeafKind): boolean {
  switch (kind) {
    case 'migration-read':
    case 'migration-read-exclusive':
    case 'migration-write':
    case 'migration-device-private-read':
    case 'migration-device-private-read-exclusive':
    case 'migration-device-private-write':
      return true;
    default:
      return false;
  }
}

/** `softleaf_is_migration_write()`, both families. */
export const isMigrationWrite = (kind: SoftLeafKind): boolean =>
  kind === 'migration-write' || kind === 'migration-device-private-write';

/** `softleaf_is_migration_read()`, both families: the page was shared, so it must not become exclusive again. */
export const isMigrationRead = (kind: SoftLeafKind): boolean =>
  kind === 'migration-read' || kind === 'migration-device-private-read';

/** `softleaf_is_device_private()`: false for device private migration entries. */
export const isDevicePrivate = (kind: SoftLeafKind): boolean =>
  kind === 'device-private-read' || kind === 'device-private-write';
