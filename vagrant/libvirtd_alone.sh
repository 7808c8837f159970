#!/bin/bash
# libvirtd_alone.sh STATE COMMAND...: runs a command beside a libvirtd of its own, where no libvirtd runs (containers, no systemd). Root.
#
# Libvirt's folders, and Vagrant's home, are below STATE; network, processes, mounts and the host's name are the command's own. When the
# command ends, or this script is killed, the kernel ends libvirtd, its machines and its networks with it. STATE stays.
set -euo pipefail
if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" = 0 ] || { echo "libvirtd_alone.sh: needs root" >&2; exit 1; }
    state=$(mkdir -p "$1" && cd "$1" && pwd)
    shift
    mkdir -p "$state"/{run,etc,lib,cache,log,vagrant.d,over}
    [ -e "$state/etc/libvirtd.conf" ] || cp -a /etc/libvirt/. "$state/etc/"
    rm -rf "$state"/run/* "$state/etc/qemu/networks/autostart" "$state/etc/qemu/autostart"
    exec setpriv --pdeathsig KILL unshare --mount --uts --net --pid --fork --kill-child=KILL --mount-proc --propagation private \
        -- "$0" --inside "$state" "$@"
fi
state=$2
shift 2
hostname vagrant-host
ip link set lo up
mount --bind "$state/run" /run
mkdir -p /run/{state,lock}
mount --bind "$state" /run/state
# A mount point that somebody outside removes takes with it what is mounted there: ours are in overlays, which nobody else sees.
mount -t tmpfs tmpfs /run/state/over
for folder in etc var/lib var/cache var/log; do
    mkdir -p "/run/state/over/$folder"/{upper,work}
    mount -t overlay -o "lowerdir=/$folder,upperdir=/run/state/over/$folder/upper,workdir=/run/state/over/$folder/work" overlay "/$folder"
    mkdir -p "/$folder/libvirt"
    mount --bind "/run/state/${folder#var/}" "/$folder/libvirt"
done
cat > /etc/libvirt/qemu.conf << 'END'
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
END
export VAGRANT_HOME=/run/state/vagrant.d
virtlogd -d
libvirtd -d
deadline=$((SECONDS + 60))
until virsh -q -c qemu:///system list > /dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || { echo "libvirtd_alone.sh: libvirtd did not answer within 60 s; see $state/log" >&2; exit 1; }
    sleep 0.2
done
"$@"  # not exec: this shell is the namespace's first process, which has to outlive it and take in orphans
