#!/usr/bin/env bash
# Makes .venv with everything that the project runs on.
#
#   deploy/dev/environment.sh [dev]     dev: the tools and libraries of the tests too
#   deploy/dev/environment.sh python    only says which Python it would take
#
# Does nothing where .venv is up to date. PYTHON names another interpreter. Packages come from the index that pip
# is configured with; their versions from constraints.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly venv_python=.venv/bin/python

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        is_recent "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or later."
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.11 python3.12 python3.13 python3.14; do
        if is_recent "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or later is needed. Install it (Debian 12: apt-get install python3), or name it: PYTHON=… make …"
}

install_venv_package() {
    local package
    package="python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    local -a as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || fail "Python's venv module is incomplete. Install it: sudo apt-get install $package"
        as_root=(sudo -n)
    fi
    command -v apt-get >/dev/null || fail "Python's venv module is incomplete: install the package that brings ensurepip."
    echo "environment: installing $package"
    local -a quietly=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
    local output
    output=$("${quietly[@]}" update 2>&1 && "${quietly[@]}" install --no-install-recommends "$package" 2>&1) ||
        fail "$output"
}

make_venv() {
    if is_recent "$venv_python" && "$venv_python" -c 'import pip' 2>/dev/null; then
        return
    fi
    local python
    python=$(find_python)
    "$python" -c 'import ensurepip' 2>/dev/null || install_venv_package "$python"
    rm -rf .venv
    "$python" -m venv .venv
}

# The last of pip's settings of this name; the environment's comes after the files'.
pip_setting() {
    "$venv_python" -m pip config list | sed -n "s/^\(global\|:env:\)\.\{0,1\}$1='\(.*\)'\$/\2/p" | tail -n 1
}

# uv installs in a fifth of pip's time, but reads neither pip's settings nor, unless told to, the system's certificates.
use_settings_of_pip() {
    local index certificates
    index=$(pip_setting index-url)
    certificates=$(pip_setting cert)
    if [ -n "$index" ] && [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
        export UV_DEFAULT_INDEX=$index
    fi
    if [ -n "$certificates" ] && [ -z "${SSL_CERT_FILE:-}" ]; then
        export SSL_CERT_FILE=$certificates
    elif [ -e /etc/ssl/certs/ca-certificates.crt ]; then
        export UV_SYSTEM_CERTS=1
    fi
}

install_packages() {
    local -a what=(-c constraints.txt -e '.[inference]' "$@")
    "$venv_python" -m pip --disable-pip-version-check install --quiet -c constraints.txt pip uv
    use_settings_of_pip
    if ! "$venv_python" -m uv pip install --quiet --python "$venv_python" --build-constraints constraints.txt "${what[@]}"; then
        echo "environment: uv could not; pip takes over"
        "$venv_python" -m pip --disable-pip-version-check install --quiet "${what[@]}"
    fi
}

main() {
    local wanted=${1:-runtime} state
    case "$wanted" in
        python) find_python; return ;;
        runtime | dev) ;;
        *) fail "usage: environment.sh [dev|python]" ;;
    esac
    state=$(pwd; cat pyproject.toml constraints.txt deploy/dev/environment.sh)
    state=$(sha256sum <<<"$state")
    local stamp
    for stamp in ".venv/made-for-$wanted" .venv/made-for-dev; do
        if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ] && is_recent "$venv_python"; then
            return
        fi
    done
    echo "environment: making .venv for $wanted (some minutes on a slow line)"
    make_venv
    local -a groups=()
    [ "$wanted" != dev ] || groups=(--group dev)
    install_packages "${groups[@]}"
    echo "$state" >".venv/made-for-$wanted"
}

main "$@"
