#!/bin/bash
# provision.sh host NAME ADDRESS PEER PEER_ADDRESS | provision.sh client
# Debian 12. Idempotent. Run by vagrant, as root.
set -euo pipefail
role=$1
export DEBIAN_FRONTEND=noninteractive

packages=(python3 python3-venv python3-dev gcc libc6-dev pkg-config libvirt-dev iproute2 tcpdump)
if [ "$role" = host ]; then
    packages+=(libvirt-daemon-system libvirt-clients qemu-system-x86 openvswitch-switch bridge-utils binutils)
fi
apt-get update -q
apt-get install -qy --no-install-recommends "${packages[@]}"

[ -d /opt/vmnet ] || python3 -m venv /opt/vmnet
/opt/vmnet/bin/pip install -q -e /vagrant
ln -sf /opt/vmnet/bin/vmnet /opt/vmnet/bin/vmnet-dom0d /usr/local/bin/
[ "$role" = host ] || exit 0

name=$2 address=$3 peer=$4 peer_address=$5
uplink=$(ip -o link | awk -F': ' '$2 ~ /^e/ {print $2}' | cut -d@ -f1 | sort | sed -n 2p)
[ -n "$uplink" ] || { echo "no second network card" >&2; exit 1; }

cat > /etc/network/interfaces.d/br0 <<EOF
auto $uplink
iface $uplink inet manual
auto br0
iface br0 inet static
    address $address/24
    bridge_ports $uplink
    bridge_stp off
    bridge_fd 0
EOF
ip link show br0 > /dev/null 2>&1 || ifup "$uplink" br0

# TCP without authentication: this is a private network of throw-away machines.
cat > /etc/libvirt/libvirtd.conf <<EOF
auth_tcp = "none"
EOF
mkdir -p /etc/vmnet
cat > /etc/vmnet/vmnet.toml <<EOF
[host]
name = "$name"
[listen]
address = "$address"
tunnel_address = "$address"
[tls]
plain = true
[peers.$peer]
address = "$peer_address"
libvirt_uri = "qemu+tcp://$peer_address/system"
migrate_uri = "tcp://$peer_address"
[bridges.br0]
segment = "lan"
EOF
vmnet hooks install
cat > /etc/systemd/system/vmnet-dom0d.service <<'EOF'
[Unit]
Description=vmnet host daemon
After=libvirtd.service network-online.target
[Service]
ExecStart=/usr/local/bin/vmnet-dom0d --config /etc/vmnet/vmnet.toml
Restart=on-failure
[Install]
WantedBy=multi-user.target
EOF
systemctl daemon-reload
systemctl stop libvirtd.service
systemctl enable --now libvirtd-tcp.socket
systemctl restart libvirtd.service
systemctl enable --now vmnet-dom0d.service
systemctl restart vmnet-dom0d.service
