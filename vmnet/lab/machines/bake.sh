#!/bin/sh
# bake.sh ROOT FILES: called by mmdebstrap; makes the tree of Debian packages below ROOT a machine of the lab.
# FILES holds the ssh key (key.pub), the source of vmnet (vmnet.tar), session.c, and pip's settings (pip.env, perhaps cert.pem).
set -eu
root=$1 files=$2

write() { mkdir -p "$(dirname "$root$1")"; cat > "$root$1"; }

# 1. Boot, names, and the management network: QEMU's user network, ssh only
echo machine > "$root/etc/hostname"
write /etc/hosts << 'EOF'
127.0.0.1 localhost
::1 localhost
EOF
: > "$root/etc/resolv.conf.machine"
echo 'LABEL=machine / ext4 noatime 0 1' > "$root/etc/fstab"
cmdline='root=LABEL=machine ro console=ttyS0,115200 net.ifnames=0 quiet'
write /boot/grub/grub.cfg << EOF
serial
terminal_output serial console
set timeout=0
menuentry Debian {
    linux /vmlinuz $cmdline
    initrd /initrd.img
}
EOF
write /boot/grub/embedded.cfg << 'EOF'
search --no-floppy --label --set=root machine
set prefix=($root)/boot/grub
EOF
write /etc/systemd/network/10-mgmt.link << 'EOF'
[Match]
MACAddress=52:54:00:6d:67:01

[Link]
Name=mgmt
EOF
write /etc/network/interfaces << 'EOF'
auto lo
iface lo inet loopback

allow-hotplug mgmt
iface mgmt inet static
    address 192.0.2.15/24

source /etc/network/interfaces.d/*
EOF
install -d -m 700 "$root/root/.ssh"
install -m 600 "$files/key.pub" "$root/root/.ssh/authorized_keys"
write /etc/ssh/sshd_config.d/lab.conf << 'EOF'
# each command of the lab is a session of one connection; none waits for a name server
MaxSessions 200
UseDNS no
EOF

# 2. The program that ends a command together with its ssh session
mkdir -p "$root/usr/local/libexec"
cp "$files/session.c" "$root/tmp/session.c"
chroot "$root" gcc -O2 -Wall -o /usr/local/libexec/lab-session /tmp/session.c

# 3. vmnet, as docs/install.md says
mkdir -p "$root/opt/vmnet"
tar -xf "$files/vmnet.tar" -C "$root/opt/vmnet"
set -a
. "$files/pip.env"
set +a
if [ -e "$files/cert.pem" ]; then
    cp "$files/cert.pem" "$root/tmp/cert.pem"
    # pip's HTTP library looks at these first
    export PIP_CERT=/tmp/cert.pem REQUESTS_CA_BUNDLE=/tmp/cert.pem CURL_CA_BUNDLE=/tmp/cert.pem SSL_CERT_FILE=/tmp/cert.pem
fi
chroot "$root" python3 -m venv /opt/vmnet/.venv
chroot "$root" /opt/vmnet/.venv/bin/pip install --disable-pip-version-check --no-input --no-cache-dir -q /opt/vmnet
chroot "$root" ln -s /opt/vmnet/.venv/bin/vmnet /opt/vmnet/.venv/bin/vmnet-dom0d /usr/local/bin/
rm -rf "$root/opt/vmnet/build" "$root"/opt/vmnet/*.egg-info
# valid by content: the lab puts the same files in with other times
chroot "$root" /opt/vmnet/.venv/bin/python -m compileall -q --invalidation-mode checked-hash /opt/vmnet/.venv/lib ||
    echo "some bytecode was not compiled" >&2

# 4. What would only cost time: periodic jobs, waiting for devices that never come, the clock's servers
chroot "$root" systemctl mask -q apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    fstrim.timer e2scrub_reap.service systemd-timesyncd.service ifupdown-pre.service

# The networks are ifupdown's; a test may hand them over
chroot "$root" systemctl disable -q NetworkManager.service NetworkManager-wait-online.service NetworkManager-dispatcher.service

# 5. The boot loader, and what is inside, for those who start the machine
cp "$root/usr/lib/grub/i386-pc/boot.img" "$files/boot.img"
chroot "$root" grub-mkimage -O i386-pc -p /boot/grub -c /boot/grub/embedded.cfg \
    biosdisk part_msdos ext2 search search_label normal linux configfile serial terminal echo > "$files/core.img"
cp -L "$root/vmlinuz" "$files/vmlinuz"
cp -L "$root/initrd.img" "$files/initrd"
chroot "$root" dpkg-query -W -f '${Package} ${Version}\n' > "$files/packages"
chroot "$root" qemu-system-x86_64 -machine help > "$files/machine-types"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/tmp/*
rm -f "$root/etc/resolv.conf"
mv "$root/etc/resolv.conf.machine" "$root/etc/resolv.conf"
