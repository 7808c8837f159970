#!/bin/sh
# scripts/setup.sh [check|lab|test|machines|box|vagrant]: what vmnet's own targets need, on Debian 12 and 13. Starts nothing, changes no configuration.
#   check  packages to build with, and .venv: enough for `make check`. No root if the packages are there.
#   lab    also libvirt, QEMU, Open vSwitch and the guest image: for `make demo` and `make bench`. Root or sudo.
#   test   also FRR and the guest image with it; other people's controllers (Faucet, Ryu), each in a venv of its own; a Debian 12 machine.
#   machines  as test, and a Debian 13 machine.
#   box    what `make box` needs. vagrant: as lab and box, and Vagrant.
# Idempotent; when all is there it ends at once.
set -eu
cd "$(dirname "$0")/.."
level=${1:-lab}

build="make gcc libc6-dev cpio pkg-config python3 python3-venv python3-dev libvirt-dev ca-certificates git"
# libvirtd, virtlogd, virsh, QEMU; ip, nsenter, mount; the guest's busybox and responder; ovsdb-server; what tests call; routing daemons; OVN
lab="libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 openvswitch-switch
     iproute2 util-linux mount hostname busybox-static binutils nftables iptables openssl kmod frr bird2 ovn-central ovn-host"
# what builds the image of a machine, and ssh into it
machines="mmdebstrap qemu-utils e2fsprogs fdisk openssh-client"
vagrant="vagrant vagrant-libvirt dnsmasq-base iptables rsync"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

case $level in
check) wanted=$build ;;
lab) wanted="$build $lab" images="small" ;;
test) wanted="$build $lab frr $machines" images="small router" releases="12" ;;
machines) wanted="$build $lab frr $machines" images="small router" releases="12 13" ;;
box) wanted="$build $machines" ;;
vagrant) wanted="$build $lab $machines $vagrant" images="small" ;;
*) die "usage: scripts/setup.sh [check|lab|test|machines|box|vagrant]" ;;
esac

if [ "$(id -u)" = 0 ]; then root=""; else root="sudo"; fi
as_root() {
    [ -z "$root" ] || command -v sudo > /dev/null || die "this needs root, and there is no sudo: run it as root"
    $root env DEBIAN_FRONTEND=noninteractive "$@"
}

command -v dpkg-query > /dev/null || die "this is no Debian: install these by hand: $wanted"

missing_packages() {
    # shellcheck disable=SC2086
    have=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' $wanted 2> /dev/null | sed -n 's/ installed$//p')
    for package in $wanted; do
        printf '%s\n' "$have" | grep -qx "$package" || printf '%s ' "$package"
    done
}

# Debian starts what it installs. Not here: a lab has daemons of its own.
start_nothing() {
    policy=/usr/sbin/policy-rc.d
    [ ! -e $policy ] || grep -q 'vmnet setup' $policy || return 0  # somebody else's; ours may be left of a killed run
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\n# vmnet setup\nexit 101\n' | as_root tee $policy > /dev/null
    as_root chmod 755 $policy
}

install_packages() {
    [ "$level" != check ] || [ -z "$root" ] || die "not installed: $1
setup: as root: apt-get install --no-install-recommends $1"
    say "installing: $1"
    start_nothing
    as_root apt-get -q update > /dev/null || die "apt-get update failed: is there a network, and are the sources right?"
    log=$(mktemp)
    # shellcheck disable=SC2086
    as_root apt-get -qy -o Dpkg::Use-Pty=0 install --no-install-recommends $1 > "$log" 2>&1 ||
        { tail -n 20 "$log" >&2; die "apt-get install failed; all it said is in $log"; }
    rm -f "$log"
}

# libvirtd does not start without them, whoever runs QEMU. The package that makes them, libvirt-daemon-system, would bring a newer systemd
# along; if it is installed later it finds its own numbers.
make_users() {
    getent group libvirt-qemu > /dev/null || as_root groupadd --system -K SYS_GID_MAX=64055 --gid 64055 libvirt-qemu
    getent passwd libvirt-qemu > /dev/null ||
        as_root useradd --system -K SYS_UID_MAX=64055 --uid 64055 --gid libvirt-qemu --home-dir /var/lib/libvirt --no-create-home --shell /usr/sbin/nologin libvirt-qemu
}

# What .venv was made from: another Python, place or set of dependencies makes it anew.
fingerprint() {
    { cat pyproject.toml setup.py scripts/setup.sh scripts/constraints.txt; /usr/bin/python3 --version; pwd -P; } | sha256sum | cut -d ' ' -f 1
}

make_venv() {
    say "making .venv"
    [ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' 2> /dev/null || /usr/bin/python3 -m venv --clear .venv
    log=.venv/setup.log
    .venv/bin/python -m pip install --disable-pip-version-check --no-input -q -c scripts/constraints.txt --config-settings editable_mode=compat -e '.[dev,plot]' > $log 2>&1 ||
        { tail -n 20 $log >&2; die "pip failed; all it said is in $log"; }
    # os-ken (for tests) brings it and does without; python-ovs would load it into our daemons
    .venv/bin/python -m pip uninstall --disable-pip-version-check -qy eventlet >> $log 2>&1
    fingerprint > .venv/.vmnet
}

# The lab builds images when they are missing; here they also survive package lists that are old or not there.
make_images() {
    cache=${VMNET_CACHE:-/var/cache/vmnet}
    # shellcheck disable=SC2086
    build() { as_root env "VMNET_CACHE=$cache" PYTHONDONTWRITEBYTECODE=1 "$PWD/.venv/bin/python" guest/build.py $images; }
    build > /dev/null 2>&1 && return
    as_root apt-get -q update > /dev/null || die "apt-get update failed: is there a network?"
    build > /dev/null || die "cannot build the guest images"
}

# They pin what they need, so they cannot be in .venv. Without them only their tests are skipped.
make_controllers() {
    as_root env "VMNET_CACHE=${VMNET_CACHE:-/var/cache/vmnet}" PYTHONDONTWRITEBYTECODE=1 "$PWD/.venv/bin/python" tests/integration/pypi_kit.py ||
        say "their tests will be skipped"
}

# Full Debian machines, booted once. Without them only their tests are skipped.
make_machines() {
    # shellcheck disable=SC2086
    as_root env "VMNET_CACHE=${VMNET_CACHE:-/var/cache/vmnet}" PYTHONDONTWRITEBYTECODE=1 "$PWD/.venv/bin/python" -m vmnet.lab.machines $releases > /dev/null ||
        say "tests with Debian machines will be skipped"
}

exec 9< pyproject.toml
flock 9  # one set-up at a time
missing=$(missing_packages)
[ -z "$missing" ] || install_packages "$missing"
[ "$level" = check ] || make_users
[ "$(cat .venv/.vmnet 2> /dev/null)" = "$(fingerprint)" ] || make_venv
[ -z "${images:-}" ] || make_images
[ -z "${releases:-}" ] || { make_controllers; make_machines; }
# The targets write no bytecode (as root it would be root's); without any, each hook and command would compile itself anew.
.venv/bin/python -m compileall -q vmnet dom0 hooks controller_bridge
