#!/bin/sh
# record.sh PROGRAMS FOLDER: boots the guest, has it run the programs, and unpacks the traces into FOLDER. README.md has what it needs.
#   KERNEL  bzImage of the guest (required)
#   DEVICES private (default), or coherent: a guest that has coherent devices, too (minors 2 and 3)
#   LIMIT   seconds until the guest is ended (default 900)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
programs=$1 folder=$2
: "${KERNEL:?set it to the bzImage of the guest}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder" "$work/root"

# The guest's root is the recorder and the file system that it keeps the file of a trace in.
gcc -O2 -Wall -Wextra -Werror -static -o "$work/root/init" "$here"/*.c
truncate -s 16M "$work/root/fs.img"
mke2fs -q -t ext2 -b 4096 "$work/root/fs.img"
(cd "$work/root" && printf 'init\nfs.img\n' | cpio -o -H newc --quiet | gzip -1) > "$work/initrd"

# Disks: programs in, traces out. A read stops at whole sectors, hence the padding; the second is a sparse file.
(cat "$programs" && echo =END) > "$work/programs"
truncate -s %65536 "$work/programs"
truncate -s 1G "$work/traces"

# Coherent memory must be reserved for the driver, above all RAM that the kernel uses.
case ${DEVICES:-private} in
private) memory=2G devices= ;;
coherent)
  memory=4G
  devices='memmap=1G$0x140000000 test_hmm.spm_addr_dev0=0x140000000 test_hmm.spm_addr_dev1=0x150000000'
  ;;
*) echo "DEVICES is private or coherent, not $DEVICES" >&2 && exit 2 ;;
esac

# An oops ends the guest at once: what comes after it proves nothing.
timeout "${LIMIT:-900}" qemu-system-x86_64 -M q35 -accel tcg -cpu qemu64,phys-bits=40 -smp 1 -m "$memory" -nographic -no-reboot \
  -kernel "$KERNEL" -initrd "$work/initrd" \
  -append "console=ttyS0 panic=-1 oops=panic nokaslr norandmaps loglevel=4 brd.rd_nr=2 brd.rd_size=65536 $devices" \
  -drive "file=$work/programs,format=raw,if=virtio,readonly=on" -drive "file=$work/traces,format=raw,if=virtio" \
  < /dev/null > "$work/console" 2>&1 || echo "the guest did not end by itself (status $?)" >&2
# What the guest complained of; all else of its console is the boot.
grep -aE 'expected|no operation|stuck|BUG|WARNING|Kernel panic|RIP' "$work/console" | head -20 >&2 || true
node "$here/unpack.mjs" "$work/traces" "$folder"
