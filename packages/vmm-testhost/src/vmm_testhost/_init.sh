#!/bin/busybox sh
# First process of the emulated host: make the outer machine's file system the root, then start the agent.
# @VERSION@ is the kernel's; /run.sh (from the second archive) sets PYTHON, MODULES and USERLAND, and has attach.
export PATH=/bin
fail() { echo "vmm-testhost: $*" >/dev/kmsg; echo o >/proc/sysrq-trigger; sleep 60; }
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod "/modules/$module" || fail "insmod $module"; done

. /run.sh
NINE=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "$NINE,cache=loose,ro" hostroot /lower || fail "mount of the root share"
LOWER=/lower
if [ -n "$USERLAND" ]; then
    # A share of its own: an overlay refuses a layer that lies inside another one.
    mount -t 9p -o "$NINE,cache=loose,ro" userland /userland || fail "mount of the userland"
    LOWER=/userland:/lower
fi
mount -t tmpfs -o mode=755 upper /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=$LOWER,upperdir=/rw/upper,workdir=/rw/work root /new || fail "overlay"

mkdir -p /dev/pts /dev/shm /dev/hugepages /dev/net
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t hugetlbfs hugetlbfs /dev/hugepages
# Guest RAM is often a memfd; nested page tables are the slowest part of an emulated KVM.
echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled
# Opening one of these loads its module.
mknod -m 666 /dev/net/tun c 10 200
mknod -m 600 /dev/vhost-net c 10 238
mknod -m 600 /dev/vhost-vsock c 10 241
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
chmod 666 /dev/kvm
ip link set lo up
hostname vmm-testhost

H=/new/run/vmm-testhost
mkdir -p "$H" /new/proc /new/sys /new/dev /new/lib/modules
mount -t tmpfs -o mode=755 vmm-testhost "$H"
mkdir -m 1777 "$H/tmp"
cp /agent.py "$H/agent.py"
mkdir -p "/new/lib/modules/@VERSION@"
mount --bind "/new$MODULES" "/new/lib/modules/@VERSION@"
attach
mount --move /proc /new/proc
mount --move /sys /new/sys
mount --move /dev /new/dev
exec switch_root /new "$PYTHON" -I -S /run/vmm-testhost/agent.py
