#!/bin/bash
# provision.sh NAME ADDRESS: run by vagrant as root, on each machine. What docs/install.md takes as given: the bridge, addresses, names,
# root's ssh key; and this copy of vmnet in place of the one in the box. follow_howto.py does the rest. Idempotent.
set -euo pipefail
name=$1 address=$2

install -d -m 700 /root/.ssh
install -m 600 /tmp/root.ssh /root/.ssh/id_ed25519
install -m 644 /tmp/root.ssh.pub /root/.ssh/id_ed25519.pub
install -m 600 /tmp/root.ssh.pub /root/.ssh/authorized_keys
rm /tmp/root.ssh /tmp/root.ssh.pub
# the first answer is believed: nobody else is in this network
printf 'Host 10.0.0.*\n    StrictHostKeyChecking accept-new\n' > /root/.ssh/config

# libvirt gives the source of a migration the destination's name
sed -i '/ # vmnet$/d' /etc/hosts
printf '10.0.0.1 a # vmnet\n10.0.0.2 b # vmnet\n' >> /etc/hosts

if [ "$name" = client ]; then
    printf 'auto eth1\niface eth1 inet static\n    address %s/24\n' "$address"
    port=eth1
else
    printf 'auto br0\niface br0 inet static\n    address %s/24\n    bridge_ports eth1\n    bridge_stp off\n    bridge_fd 0\n' "$address"
    port=br0
fi > /etc/network/interfaces.d/vmnet
ip -4 -o address show dev "$port" 2> /dev/null | grep -qw "$address" || ifup "$port"

PYTHONPATH=/vmnet /opt/vmnet/.venv/bin/python -B /vmnet/vagrant/install_copy.py
