#!/bin/sh
# `hybridmed` with this host's settings, run as the user that owns the data: installed as /usr/local/bin/hybridmed.
# The settings are those of hybridmed@.service; the audit trail names the person who called (SUDO_USER).
set -eu
export HYBRIDMED_CONFIG=/etc/hybridmed/hybridmed.toml
export HYBRIDMED_DATA_DIR="${HYBRIDMED_DATA_DIR:-/var/lib/hybridmed}"
export HYBRIDMED_SECRETS_DIR=/etc/hybridmed/secrets
program=/opt/hybridmed/bin/hybridmed
if [ "$(id -un)" = hybridmed ]; then exec "$program" "$@"; fi
if [ "$(id -u)" -ne 0 ]; then
    echo 'run it as root (sudo) or as the user hybridmed' >&2
    exit 1
fi
exec runuser --user hybridmed -- "$program" "$@"
