/** Predicates over non-present entries, for the numbering of the machine. Linux: include/linux/leafops.h. */
import { type SoftLeafKind, swpType } from '../abi/softleaf.js';
import type { SoftLeaf } from '../base/brand.js';
import type { Kernel } from './kernel.js';

export const leafKind = (kernel: Kernel, entry: SoftLeaf): SoftLeafKind =>
  kernel.addressing.swapTypes.kindOf[swpType(entry)];

/** `softleaf_is_migration()`: both families (the is-a rule of the series). */
export function isMigration({ sites }: Kernel, kind: SoftLeafKind): boolean {
  switch (kind) {
    case 'migration-read':
    case 'migration-read-exclusive':
    case 'migration-write':
      return true;
    case 'migration-device-private-read':
    case 'migration-device-private-read-exclusive':
    case 'migration-device-private-write':
      return sites.migrationFamily;
    default:
      return false;
  }
}

/** `softleaf_is_migration_write()`, both families. */
export const isMigrationWrite = ({ sites }: Kernel, kind: SoftLeafKind): boolean =>
  kind === 'migration-write' || (kind === 'migration-device-private-write' && sites.migrationWriteFamily);

/** `softleaf_is_migration_read()`, both families: the page was shared, so it must not become exclusive again. */
export const isMigrationRead = ({ sites }: Kernel, kind: SoftLeafKind): boolean =>
  kind === 'migration-read' || (kind === 'migration-device-private-read' && sites.migrationReadFamily);

/** `softleaf_is_migration_device_private()`. */
export const isOfPrivate = (kind: SoftLeafKind): boolean => kind.startsWith('migration-device-private');

/** `softleaf_is_device_private()`: false for device private migration entries. */
export const isDevicePrivate = (kind: SoftLeafKind): boolean =>
  kind === 'device-private-read' || kind === 'device-private-write';
