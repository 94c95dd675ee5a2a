#!/usr/bin/env bash
# build.sh DIRECTORY: a guest that is Linux's own NFS server (v3, v4.1, v4.2), for qemu under software emulation: Debian's
# kernel (vmlinuz), an initramfs (init.gz) and an ext4 disk to export (disk.img). The kernel and the NFS programs come from
# Debian's packages, unpacked, not installed. Needs apt, cpio, kmod, busybox-static, e2fsprogs. See ../knfsd.ts.
set -euo pipefail
mkdir -p "$1"; cd "$1"
[ -e ready ] && exit 0
rm -rf root initramfs ./*.deb
kernel=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
version=${kernel#linux-image-}
apt-get download -qq "$kernel" nfs-kernel-server nfs-common rpcbind libtirpc3 libtirpc-common libevent-core-2.1-7 libwrap0 libnfsidmap1 2>/dev/null
for package in *.deb; do dpkg -x "$package" root; done
depmod -b root "$version"
cp root/boot/vmlinuz-* vmlinuz

to=initramfs
mkdir -p $to/{bin,sbin,proc,sys,dev,etc,run,tmp,modules,lib64,export,lib/x86_64-linux-gnu,var/lib/nfs/{rpc_pipefs,v4recovery,sm}}
ln -s /run $to/var/run
cp /bin/busybox $to/bin/
for command in sh mount insmod ip mkdir sleep cat chmod touch; do ln -s busybox "$to/bin/$command"; done

# Kernel modules, numbered in the order in which to load them.
number=0
for module in virtio_pci virtio_net virtio_blk ext4 nfsd nfs nfsv3 nfsv4; do
  modprobe -d root -S "$version" --show-depends "$module" | awk '$1 == "insmod" {print $2}'
done | awk '!seen[$0]++' | while read -r file; do
  number=$((number + 1)); cp "$file" "$to/modules/$(printf %03d $number)-${file##*/}"
done

libraries=root/usr/lib/x86_64-linux-gnu:root/lib/x86_64-linux-gnu
for program in root/usr/sbin/{exportfs,rpc.mountd,rpc.nfsd} root/sbin/{rpcbind,mount.nfs}; do
  cp "$program" $to/sbin/
  LD_LIBRARY_PATH=$libraries ldd "$program" | awk '/=> / {print $3}'
done | sort -u | while read -r library; do cp -L "$library" $to/lib/x86_64-linux-gnu/; done
cp -L /lib64/ld-linux-x86-64.so.2 $to/lib64/
find root -name netconfig -exec cp {} $to/etc/ \;
printf 'root:x:0:0::/:/bin/sh\n_rpc:x:100:65534::/run:/bin/false\n' >$to/etc/passwd
echo 'root:x:0:' >$to/etc/group
printf 'tcp 6 TCP\nudp 17 UDP\n' >$to/etc/protocols
printf 'sunrpc 111/tcp\nsunrpc 111/udp\nnfs 2049/tcp\nmountd 20048/tcp\n' >$to/etc/services
echo '127.0.0.1 localhost' >$to/etc/hosts
echo '/export *(rw,no_root_squash,insecure,fsid=0,no_subtree_check,sync)' >$to/etc/exports
cat >$to/init <<'INIT'
#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev; mount -t tmpfs tmpfs /run
for module in /modules/*; do insmod $module; done
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
mount -t ext4 /dev/vda /export; mkdir -p /export/recovery /run/rpcbind; chmod 755 /export
mount -t nfsd nfsd /proc/fs/nfsd; mount -t rpc_pipefs rpc_pipefs /var/lib/nfs/rpc_pipefs
mount --bind /export/recovery /var/lib/nfs/v4recovery
rpcbind -w; touch /var/lib/nfs/etab /var/lib/nfs/rmtab
echo 10 >/proc/fs/nfsd/nfsv4leasetime; echo 10 >/proc/fs/nfsd/nfsv4gracetime     # in this order
exportfs -ra; rpc.mountd -p 20048; rpc.nfsd -V 3 -V 4.1 -V 4.2 8
echo READY
while :; do sleep 1000; done
INIT
chmod +x $to/init
(cd $to && find . | cpio -o -H newc 2>/dev/null | gzip -1) >init.gz
rm -rf root initramfs ./*.deb
touch ready
