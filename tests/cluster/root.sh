#!/bin/sh
# Makes of a fresh root a server as IT installs one: SSH for an administrator with sudo, the machine's own package sources and certificates.
# mmdebstrap's customize hook. Arguments: the root, a directory with what of this machine goes into it.
set -eu
root=$1 site=$2

# What belongs to hardware, or to the one clock and kernel that all hosts of a test share.
for unit in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service systemd-timesyncd.service \
    systemd-networkd-wait-online.service systemd-modules-load.service getty.target console-getty.service dev-hugepages.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
    apt-daily.timer apt-daily-upgrade.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# The kernel's settings are this machine's own.
ln -sf /dev/null "$root/etc/systemd/system/systemd-sysctl.service"

# Each host gets its own at its first start.
: >"$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id"
mkdir -p "$root/etc/systemd/system/ssh.service.d" "$root/etc/ssh/sshd_config.d"
printf '[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n' >"$root/etc/systemd/system/ssh.service.d/keys.conf"
printf 'PasswordAuthentication no\nUseDNS no\nMaxSessions 100\nMaxStartups 100\nAuthorizedKeysFile /etc/ssh/keys/%%u .ssh/authorized_keys\n' >"$root/etc/ssh/sshd_config.d/tests.conf"
ln -sf /dev/null "$root/etc/systemd/system/ssh.socket"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf /lib/systemd/system/ssh.service "$root/etc/systemd/system/multi-user.target.wants/ssh.service"

# What a machine's own systemd does at its start and a container's does not: mounts of a kubelet's pods are seen by whom they concern.
cat >"$root/etc/systemd/system/shared-mounts.service" <<'UNIT'
[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/mount --make-rshared /
UNIT
mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
ln -sf ../shared-mounts.service "$root/etc/systemd/system/sysinit.target.wants/shared-mounts.service"

# No test takes away what the disk had not got yet: packages need not be on it file by file.
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/tests"

cp "$site/zipcode.py" "$root/usr/lib/python3/dist-packages/"
echo 'import zipcode' >"$root/usr/lib/python3/dist-packages/zipcode.pth"
mkdir -p "$root/var/cache/zipcode"

chroot "$root" useradd --create-home --shell /bin/bash it
printf 'it ALL=(ALL) NOPASSWD: ALL\n' >"$root/etc/sudoers.d/it"
chmod 0440 "$root/etc/sudoers.d/it"
# Someone who may log in and nothing else: what secrets are kept from.
chroot "$root" useradd --create-home --shell /bin/bash eyes

rm -rf "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/99mmdebstrap
cp "$site/site.sources" "$root/etc/apt/sources.list.d/site.sources"
[ ! -s "$site/pip.conf" ] || cp "$site/pip.conf" "$root/etc/pip.conf"
# Roots of the machine's that the distribution does not have.
cp "$site/certificates.py" "$site/ca.crt" "$root/tmp/"
chroot "$root" python3 /tmp/certificates.py /tmp/ca.crt
chroot "$root" update-ca-certificates >/dev/null
rm -rf "$root"/tmp/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/log/*.log "$root"/var/log/apt
