#!/bin/sh
# Installs the gateway on a host with systemd. May be run again at any time: it changes what differs and nothing else,
# and never touches settings, secrets or data that are there.
#
#   sudo sh deploy/install.sh [--inference] [--root DIR] [--no-packages] ROLE…
#
#   ROLE…          receive dispatch work deliver web; without any: all of them
#   --inference    brings torch too, which the role work needs
#   --root DIR     install below DIR, as for an image of a host; nothing is started
#   --no-packages  leave /opt/hybridmed as it is
set -eu

source=$(cd "$(dirname "$0")/.." && pwd)
root='' extra=grown with_packages=yes roles=''
while [ $# -gt 0 ]; do
    case $1 in
        --inference) extra=grown,inference ;;
        --root) root=$2; shift ;;
        --no-packages) with_packages=no ;;
        receive|dispatch|work|deliver|web) roles="$roles $1" ;;
        *) echo "not known: $1 (see the head of this script)" >&2; exit 2 ;;
    esac
    shift
done
[ -n "$roles" ] || roles='receive dispatch work deliver web'
[ -n "$root" ] || [ "$(id -u)" -eq 0 ] || { echo 'run it as root' >&2; exit 1; }

changed=0

say() {
    changed=$((changed + 1))
    echo "changed: $1"
}

# place MODE SOURCE TARGET: a file of ours, replaced where it differs.
place() {
    if cmp -s "$2" "$root$3"; then return; fi
    install -D -m "$1" "$2" "$root$3"
    say "$3"
}

# folder MODE OWNER PATH
folder() {
    if [ -d "$root$3" ]; then return; fi
    install -d -m "$1" "$root$3"
    [ -n "$root" ] || chown "$2" "$3"
    say "$3"
}

if [ -z "$root" ] && ! getent passwd hybridmed >/dev/null; then
    useradd --system --home-dir /var/lib/hybridmed --shell /usr/sbin/nologin hybridmed
    say 'user hybridmed'
fi

folder 0750 hybridmed:hybridmed /var/lib/hybridmed
folder 0755 root:root /etc/hybridmed
folder 0750 root:hybridmed /etc/hybridmed/secrets

if [ ! -e "$root/etc/hybridmed/hybridmed.toml" ]; then
    sed 's#^data_dir = .*#data_dir = "/var/lib/hybridmed"#' "$source/deploy/hybridmed.toml" >"$root/etc/hybridmed/hybridmed.toml"
    say /etc/hybridmed/hybridmed.toml
fi

if [ "$with_packages" = yes ]; then
    stamp=$(cd "$source" && find pyproject.toml constraints.txt gateway inference fhir migrations -type f ! -name '*.pyc' \
        -exec sha256sum {} + | sort | sha256sum | cut -d' ' -f1)-$extra
    if [ "$(cat "$root/opt/hybridmed/.installed" 2>/dev/null)" != "$stamp" ]; then
        [ -x "$root/opt/hybridmed/bin/python" ] || python3 -m venv "$root/opt/hybridmed"
        "$root/opt/hybridmed/bin/python" -m pip install --quiet --constraint "$source/constraints.txt" "$source[$extra]"
        echo "$stamp" >"$root/opt/hybridmed/.installed"
        say /opt/hybridmed
    fi
fi

place 0755 "$source/deploy/systemd/hybridmed.sh" /usr/local/bin/hybridmed
units=/etc/systemd/system
place 0644 "$source/deploy/systemd/hybridmed@.service" "$units/hybridmed@.service"
place 0644 "$source/deploy/systemd/hybridmed.target" "$units/hybridmed.target"
for each in work/gpu receive/port; do
    role=${each%/*}
    place 0644 "$source/deploy/systemd/hybridmed@$role.service.d/${each#*/}.conf" \
        "$units/hybridmed@$role.service.d/${each#*/}.conf"
done
for role in $roles; do
    link="$root$units/hybridmed.target.wants/hybridmed@$role.service"
    if [ -L "$link" ]; then continue; fi
    mkdir -p "$(dirname "$link")"
    ln -s "$units/hybridmed@.service" "$link"
    say "role $role starts with hybridmed.target"
done

if [ "$changed" -eq 0 ]; then
    echo 'unchanged'
elif [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    echo 'next: settings in /etc/hybridmed/hybridmed.toml, then: sudo hybridmed db upgrade; sudo systemctl enable --now hybridmed.target'
fi
