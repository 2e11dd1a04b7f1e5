"""Run the steps of a Containerfile in a fresh root: `python -m deploy.check.image TARGET --folder DIR`.

For machines without a container engine. The base is made by debootstrap and kept in DIR for the next run; each stage is
a copy of the one that it stands on. `RUN` runs in it by chroot, in a mount namespace of its own, with this machine's
name service and package settings and nothing else of it. Needs root. Prints the size of the target; `--run`
runs a command in it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.check.containerfile import Instruction, Stage, read_stages

REPOSITORY = Path(__file__).resolve().parents[2]
CONTAINERFILE = REPOSITORY / "deploy" / "containers" / "Containerfile"
_SUITE = "bookworm"
_APT = Path("/etc/apt")
_SOURCES = ("sources.list", "sources.list.d", "apt.conf.d", "trusted.gpg.d", "preferences.d", "auth.conf.d")
_PASSED = ("PIP_", "http_proxy", "https_proxy", "no_proxy")
"""Names of variables that tell where packages come from, by their beginning."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TRUSTED = Path("/etc/ssl/certs/ca-certificates.crt")
_HOST = "/run/host"
"""Where the root finds copies of this machine's package settings; nothing of the machine itself can be written."""
_MOUNTS = f"""
set -e
if [ -n "$4" ]; then mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; mount -t tmpfs tmpfs "$1/tmp"; fi
mount --rbind /dev "$1/dev"; mount -t proc proc "$1/proc"; mount -t tmpfs tmpfs "$1/run"
mkdir "$1{_HOST}"
for each in {_TRUSTED} /etc/pip.conf; do [ ! -e "$each" ] || cp "$each" "$1{_HOST}/"; done
exec chroot --userspec="$2" "$1" /usr/bin/env -i sh -c "$3"
"""


class Builder:
    """Builds stages as folders.

    Parameters
    ----------
    folder
        Where the roots are made.
    stages
        Of the Containerfile.
    arguments
        Values of `ARG`.
    """

    def __init__(self, folder: Path, stages: Mapping[str, Stage], arguments: Mapping[str, str]) -> None:
        self._folder = folder
        self._stages = stages
        self._arguments = dict(arguments)
        self._made: dict[str, tuple[Path, dict[str, str]]] = {}
        self._where: dict[str, str] = {}

    def make(self, name: str) -> tuple[Path, dict[str, str]]:
        """Return the root of a stage and its environment."""
        if name not in self._made:
            stage = self._stages[name]
            root = self._folder / name
            shutil.rmtree(root, ignore_errors=True)
            if stage.base in self._stages:
                base, environment = self.make(stage.base)
            else:
                base, environment = self._base(), {"PATH": _PATH}
            subprocess.run(["cp", "--archive", "--reflink=auto", str(base), str(root)], check=True)
            environment = dict(environment)
            where = self._where.get(stage.base, "/")
            for instruction in stage.instructions:
                where = self._do(instruction, root, environment, where)
            self._where[name] = where
            self._made[name] = (root, environment)
        return self._made[name]

    def _base(self) -> Path:
        root = self._folder / "base"
        if not (root / "etc" / "debian_version").exists():
            shutil.rmtree(root, ignore_errors=True)
            subprocess.run(["debootstrap", "--variant=minbase", _SUITE, str(root), _mirror()], check=True)
            for name in _SOURCES:
                source = _APT / name
                if source.is_dir():
                    shutil.copytree(source, root / "etc/apt" / name, dirs_exist_ok=True)
                elif source.exists():
                    shutil.copy(source, root / "etc/apt" / name)
            # What the slim images leave out too.
            for left_out in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt"):
                shutil.rmtree(root / left_out, ignore_errors=True)
            shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
        return root

    def _do(self, instruction: Instruction, root: Path, environment: dict[str, str], where: str) -> str:
        match instruction.name:
            case "RUN":
                exports = "".join(f"export {key}='{value}'; " for key, value in environment.items())
                run_in(root, f"{exports}{_passed()} cd {where} && {instruction.rest}")
            case "COPY":
                self._copy(instruction.words, root, where)
            case "WORKDIR":
                where = instruction.rest
                (root / where.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "ENV":
                environment.update(word.split("=", 1) for word in instruction.words)
            case "ARG":
                key, _, value = instruction.words[0].partition("=")
                environment[key] = self._arguments.get(key, value)
            case "USER" | "CMD" | "ENTRYPOINT" | "HEALTHCHECK" | "LABEL" | "EXPOSE" | "VOLUME" | "STOPSIGNAL":
                pass  # they leave no file
            case _:
                raise SystemExit(f"{instruction.name}: not known to this check")
        return where

    def _copy(self, words: Sequence[str], root: Path, where: str) -> None:
        options = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
        *sources, target = [word for word in words if not word.startswith("--")]
        from_root = self.make(options["from"])[0] if "from" in options else REPOSITORY
        into = root / (target if target.startswith("/") else f"{where}/{target}").lstrip("/")
        for source in sources:
            path = from_root / source.lstrip("/")
            if path.is_dir():
                left_out = shutil.ignore_patterns("__pycache__", "folds") if "from" not in options else None
                shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True, ignore=left_out)
            else:
                shutil.copy(path, into / path.name if target.endswith("/") else into)


def run_in(root: Path, command: str, *, user: str = "0:0", is_read_only: bool = False, check: bool = True) -> int:
    """Run a shell command in a root; where it is read-only, only /tmp takes files."""
    script = ["unshare", "--mount", "sh", "-c", _MOUNTS, "sh"]
    ended = subprocess.run([*script, str(root), user, command, "1" if is_read_only else ""], check=False)
    if check and ended.returncode != 0:
        raise SystemExit(f"exit {ended.returncode}: {command[:200]}")
    return ended.returncode


def size_mb(root: Path) -> float:
    """Return the space that a root's files take, in megabytes of 10^6 bytes."""
    counted = subprocess.run(["du", "-sx", "--block-size=1", str(root)], capture_output=True, text=True, check=True)
    return int(counted.stdout.split()[0]) / 1e6


def _passed() -> str:
    variables = {key: value for key, value in os.environ.items() if key.startswith(_PASSED)}
    if _TRUSTED.exists():
        variables |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), f"{_HOST}/{_TRUSTED.name}")
    variables["PIP_CONFIG_FILE"] = f"{_HOST}/pip.conf"
    return "".join(f"export {key}='{value}'; " for key, value in variables.items())


def _mirror() -> str:
    """Return the archive that this machine's apt reads."""
    command = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in printed.stdout.splitlines():
        release, _, address = line.partition(" ")
        if release == _SUITE:
            return address
    raise SystemExit(f"apt reads no archive of {_SUITE}")


def main() -> None:
    """Build a target and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["gateway", "worker"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "hybridmed-images")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--limit-mb", type=float, help="Exit with 1 where the target is larger.")
    parser.add_argument("--run", help="Run this in the target, as its user, its root read-only.")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("chroot and mounts need root")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    stages = read_stages(CONTAINERFILE)
    builder = Builder(arguments.folder, stages, dict(one.split("=", 1) for one in arguments.build_arg))
    root, environment = builder.make(arguments.target)
    size = size_mb(root)
    print(f"{arguments.target}: {size:.0f} MB")
    if arguments.limit_mb is not None and size > arguments.limit_mb:
        sys.exit(f"larger than {arguments.limit_mb:.0f} MB")
    if arguments.run:
        user = stages[arguments.target].last("USER")
        exports = "".join(f"export {key}='{value}'; " for key, value in environment.items())
        command = exports + "cd /tmp; export HYBRIDMED_DATA_DIR=/tmp/data; " + arguments.run
        code = run_in(root, command, user=user.rest if user else "0:0", is_read_only=True, check=False)
        sys.exit(code)


if __name__ == "__main__":
    main()
