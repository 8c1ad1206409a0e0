#!/bin/sh
# Runs as root on the root image, once for both images: packages that are missing, certificates, mirrors, the user. Arguments: packages.
export DEBIAN_FRONTEND=noninteractive
here=$(dirname "$0")

# Root in a container has no right to become apt's own user; the dpkg rules keep later installations small as well.
cp "$here/apt.conf" /etc/apt/apt.conf.d/90binder-onprem
cp "$here/dpkg.cfg" /etc/dpkg/dpkg.cfg.d/90binder-onprem
if [ -s "$here/sources" ]; then
    mkdir -p /etc/apt/sources.list.d /etc/ssl/certs
    rm -f /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/99mmdebstrap
    cp "$here/sources" "/etc/apt/$(cat "$here/sources.name")"
    cp "$here/ca.crt" /etc/ssl/certs/ca-certificates.crt # for mirrors behind the site's CA
fi

missing=
for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
    apt-get update -q
    # shellcheck disable=SC2086 # a list of words
    apt-get install -qy --no-install-recommends $missing
fi

# The site's own roots live where the distribution looks for them, so that an upgrade of ca-certificates keeps them.
python3 "$here/certificates.py" "$here/ca.crt"
update-ca-certificates >/dev/null

mkdir -p /etc/binder-onprem /etc/uv /etc/conda
cp "$here/npmrc" "$here/Rprofile.site" "$here/uv-overrides.txt" /etc/binder-onprem/
cp "$here/pip.conf" /etc/pip.conf
cp "$here/uv.toml" /etc/uv/uv.toml
cp "$here/condarc" /etc/conda/.condarc
install -m 644 "$here/profile.sh" /etc/profile.d/binder-onprem.sh
install -m 755 "$here/session" /usr/local/bin/session
# Where every Jupyter of the image looks, whatever environment it comes from: the warning before a session ends.
extension=/usr/local/share/jupyter/labextensions/binder-onprem-ending
install -D -m 644 "$here/ending.package.json" "$extension/package.json"
install -D -m 644 "$here/ending.js" "$extension/static/remoteEntry.js"
chmod -R u=rwX,go=rX /etc/binder-onprem /etc/uv /etc/conda /etc/pip.conf /etc/apt /etc/ssl/certs

if ! id jovyan >/dev/null 2>&1; then
    # An image of the site's may have another user with the number that files of repositories get.
    userdel -f "$(getent passwd 1000 | cut -d: -f1)" 2>/dev/null || true
    groupadd -f -g 1000 jovyan
    useradd -m -u 1000 -g 1000 -s /bin/bash jovyan
fi
mkdir -p /srv/venv && chown 1000:1000 /srv/venv
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/*.log /var/log/apt /usr/share/doc/*/* /usr/share/man/*
