#!/bin/sh
# scripts/isolated.sh COMMAND...: runs a command that makes labs, so that nothing of it is left however it ends.
#
# The command gets a PID and a mount namespace of its own: when it ends, or we are killed, the kernel ends every process it
# started and drops its mounts and network namespaces. Labs in there and labs outside do not see each other.
set -eu
if [ "${1:-}" = --inside ]; then
    scratch=$2
    shift 2
    mkdir -p /run/vmnet-lab /var/lib/vmnet-lab /run/netns
    for folder in /run/vmnet-lab /var/lib/vmnet-lab /run/netns "$scratch"; do
        mount -t tmpfs -o mode=755 tmpfs "$folder"
    done
    mount --make-shared /run/netns  # as ip-netns(8) has it
    export TMPDIR="$scratch"
    "$@"  # not exec: this shell is the namespace's first process, which has to outlive it and take in orphans
    exit $?
fi

[ "$(id -u)" = 0 ] || { echo "isolated.sh: needs root" >&2; exit 1; }
# A mount point that is removed takes with it what others have mounted there in namespaces of their own: whoever ends last removes them.
exec 8> /run/vmnet-isolated.lock
flock -s 8
made=""
for folder in /etc/vmnet /var/lib/vmnet /var/lib/vmnet-lab; do  # mount points of a lab's hosts, if we are the first
    [ -d "$folder" ] || { mkdir -p "$folder"; made="$folder $made"; }
done
scratch=$(mktemp -d /tmp/vmnet-test.XXXXXX)
tidy() {
    rmdir "$scratch" 2> /dev/null || true
    [ -z "$(ls /run/vmnet-lab 2> /dev/null)" ] || return 0
    flock -n -x 8 || return 0
    rm -f /run/vmnet-isolated.lock
    for folder in $made; do rmdir "$folder" 2> /dev/null || true; done
}
trap tidy EXIT
trap 'kill -TERM "$child" 2> /dev/null; wait "$child"; exit 143' TERM HUP
trap : INT  # the terminal tells the command itself; we wait for what it makes of it
setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child=KILL --mount-proc --propagation private \
    -- "$0" --inside "$scratch" "$@" &
child=$!
status=0
wait "$child" || status=$?
while kill -0 "$child" 2> /dev/null; do wait "$child" || status=$?; done
[ -z "${VMNET_STATUS:-}" ] || echo "$status" > "$VMNET_STATUS"
exit "$status"
