#!/bin/bash
# The mounts of a Box (see box.py), in namespaces of its own: nothing of them is seen, or left, outside.
set -euo pipefail
verb=$1 folder=${2:?}
disks=$folder/disks root=$folder/root shared=$folder/autodl-fs

case $verb in
hold) # The namespace in which the disks outlive a boot; it ends, and the folder goes, with standard input.
    mount -t tmpfs -o mode=755 tmpfs "$shared"
    echo ready
    read -r _ || true
    umount -l "$shared"
    ! mountpoint -q "$root" || umount -R -l "$root"
    ! mountpoint -q "$disks" || umount -l "$disks"
    rm -rf --one-file-system -- "$folder"
    ;;

disks) # Fresh ones, all but autodl-fs; those of before, if any, are gone.
    data_options=$3 prefix=$4 base=$5
    ! mountpoint -q "$root" || umount -R -l "$root"
    ! mountpoint -q "$disks" || umount -l "$disks"
    mount -t tmpfs -o mode=755 tmpfs "$disks"
    mkdir "$disks"/{system,system-work,conda,conda-work}
    mount -t overlay overlay -o "lowerdir=/,upperdir=$disks/system,workdir=$disks/system-work" "$root"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=700 tmpfs "$root/root"
    mkdir "$root/run/sshd" "$root"/root/{autodl-tmp,autodl-fs,tf-logs}
    mount -t tmpfs -o "mode=755$data_options" tmpfs "$root/root/autodl-tmp"
    mount --bind "$shared" "$root/root/autodl-fs"
    [ -n "$prefix" ] || exit 0
    mkdir "$root/root/miniconda3"
    mount -t overlay overlay -o "lowerdir=$prefix,upperdir=$disks/conda,workdir=$disks/conda-work" "$root/root/miniconda3"
    # A private /root, or another file system, can have taken away what the interpreter itself is made of.
    [ -e "$root$base/bin" ] || {
        mkdir -p "$root$base"
        mount --bind "$base" "$root$base"
        mount -o remount,bind,ro "$root$base"
    }
    ;;

boot) # Becomes the first process of the box.  Its pid outside can be read only while the outer /proc is here.
    hostname=$3 port=$4
    read -r pid _ </proc/self/stat
    echo "pid $pid"
    mount -t proc proc "$root/proc"
    echo "$hostname" >"$root/proc/sys/kernel/hostname"
    mount --rbind /sys "$root/sys"
    mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
    mkdir "$root"/dev/{pts,shm}
    for device in null zero full random urandom tty; do
        : >"$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    cd "$root"
    mkdir .machine
    pivot_root . .machine
    cd /
    umount -l /.machine
    rmdir /.machine
    exec /bin/bash /init/boot/boot.sh "$port"
    ;;
esac
