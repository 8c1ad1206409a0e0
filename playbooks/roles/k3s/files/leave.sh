#!/bin/sh
# Ends the pods of this node and takes away what a kubelet leaves in mounts, networks and rules. Run when k3s is stopped; every step may be repeated.
set -u
# Where the host has no iptables, k3s has brought its own.
for place in /var/lib/rancher/k3s/data/*/bin /var/lib/rancher/k3s/data/*/bin/aux; do PATH=$PATH:$place; done

ours() {
    find /sys/fs/cgroup -path '*kubepods*' -name cgroup.procs -exec cat {} + 2>/dev/null
    for process in /proc/[0-9]*; do
        line=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null) || continue
        case $line in
            *containerd-shim*/run/k3s/containerd/*) echo "${process#/proc/}" ;;
            /var/lib/rancher/k3s/*containerd\ *) echo "${process#/proc/}" ;;
        esac
    done
}

for _ in 1 2 3 4 5 6 7 8 9 10; do
    found=$(ours | sort -u)
    [ -n "$found" ] || break
    # shellcheck disable=SC2086 # a list of numbers
    kill -KILL $found 2>/dev/null
    sleep 0.3
done

for place in /run/k3s /var/lib/rancher/k3s /var/lib/kubelet /run/netns/cni-; do
    awk -v place="$place" 'index($2, place) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r mount; do umount -l "$mount" 2>/dev/null; done
done
for name in $(ip netns list 2>/dev/null | awk '/^cni-/ { print $1 }'); do ip netns delete "$name"; done
for link in cni0 flannel.1 flannel-v6.1 flannel-wg kube-ipvs0; do ip link delete "$link" 2>/dev/null; done
for command in iptables ip6tables; do
    command -v "$command-save" >/dev/null || continue
    if "$command-save" 2>/dev/null | grep -q -e KUBE- -e CNI- -e flannel; then
        "$command-save" | grep -v -e KUBE- -e CNI- -e flannel | "$command-restore"
    fi
done
find /sys/fs/cgroup -depth -type d -path '*kubepods*' -exec rmdir {} + 2>/dev/null
exit 0
