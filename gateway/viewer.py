"""OHIF, the viewer: the built files of its npm package, fetched once, checked, and unpacked beside the data.

The package is pinned by version and digest. Its files expect to lie at the root of a site; the few places that name
that root are changed while unpacking, so that they work where we serve them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gateway.errors import ConfigurationError, GatewayError, NotFoundError, ServiceAwayError

PACKAGE = "@ohif/app"
VERSION = "3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""As the registry states it (Subresource Integrity): base64 of the SHA-512 digest of the package file."""
COMMAND = "hybridmed viewer install"

_FORM = 1
"""Counts the ways in which we have changed the files of one version; a folder made in another way is not used."""
_DIST = "package/dist/"
_LICENCE = "package/LICENSE"
ROOT = f"/viewer/files/{VERSION}-{_FORM}/"
"""Where the files are served; what lies at an address under it never changes."""
_MOST_FILES = 2000
_MOST_BYTES = 512 << 20
_CHUNK = 1 << 20
_FETCH_TIMEOUT_S = 600
_LEAST_COMPRESSED_BYTES = 1400
"""A smaller file fits into one packet as it is."""
_COMPRESSED = frozenset({".js", ".css", ".wasm", ".html", ".json", ".jsonc", ".svg"})
_LEFT_OUT = ("ort/", "sw.js", "init-service-worker.js", "google.js", "oidc-client.min.js", "silent-refresh.html")
"""A runtime for models that OHIF would fetch from the internet, a service worker, and logins of other sites."""
_PUBLIC_PATH = '__webpack_require__.p = "/";'
_BUNDLE = re.compile(r'src="/(app\.bundle\.[0-9a-f]+\.js)"')
_INDEX = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="theme-color" content="#000000">
  <title>Viewer, HybridMed Gateway</title>
  <link rel="icon" href="{root}assets/favicon.ico">
  <link rel="stylesheet" href="{root}app.bundle.css">
  <script src="/viewer/app-config.js"></script>
  <script defer src="{root}{bundle}"></script>
</head>
<body>
  <noscript>The viewer needs JavaScript.</noscript>
  <div id="react-portal"></div>
  <div id="root"></div>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation did."""

    folder: Path
    files: int
    size_bytes: int
    is_new: bool
    """False where the same files were there already."""


def installed_folder(viewer_dir: Path) -> Path:
    """Return where the files of the pinned version lie, or would lie."""
    return viewer_dir / f"ohif-{VERSION}-{_FORM}"


def viewer_installed(viewer_dir: Path) -> bool:
    """Say whether the viewer can be served; a folder of this name is complete, for it is renamed into place."""
    return installed_folder(viewer_dir).is_dir()


def fetch_package(folder: Path) -> Path:
    """Fetch the package file with npm, from the registry that npm is configured with.

    Raises
    ------
    ConfigurationError
        npm is not installed.
    ServiceAwayError
        npm did not fetch it.
    """
    npm = shutil.which("npm")
    elsewhere = f"or fetch {PACKAGE} {VERSION} elsewhere (npm pack {PACKAGE}@{VERSION}) and give the file: --from FILE"
    if npm is None:
        raise ConfigurationError(f"npm is not installed: install it (Debian: apt-get install npm), {elsewhere}")
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    try:
        # S603: the program is npm, and every argument is ours.
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=_FETCH_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise ServiceAwayError(f"npm took more than {_FETCH_TIMEOUT_S} s; try again, {elsewhere}") from error
    files = sorted(folder.glob("*.tgz"))
    if done.returncode or len(files) != 1:
        raise ServiceAwayError(f"npm did not fetch {PACKAGE} {VERSION} (exit status {done.returncode}); {elsewhere}")
    return files[0]


def install(package: Path, viewer_dir: Path) -> Installed:
    """Check a package file and put its files into `viewer_dir`, all of them or none.

    Raises
    ------
    NotFoundError
        There is no such file.
    GatewayError
        It is not the pinned package, or does not hold what we expect of it.
    ConfigurationError
        The folder cannot be written.
    """
    require_pinned(package)
    target = installed_folder(viewer_dir)
    is_new = not target.is_dir()
    if is_new:
        try:
            viewer_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=viewer_dir) as scratch:
                unpacked = Path(scratch) / "files"
                unpack(package, unpacked)
                unpacked.rename(target)
        except OSError as error:
            advice = "set HYBRIDMED_VIEWER_DIR to a folder that this user may write"
            raise ConfigurationError(f"the folder {viewer_dir}: {error.strerror}; {advice}") from error
    sizes = [file.stat().st_size for file in target.rglob("*") if file.is_file()]
    return Installed(target, len(sizes), sum(sizes), is_new)


def require_pinned(package: Path) -> None:
    """Raise unless the file has the pinned digest."""
    digest = hashlib.sha512()
    try:
        with package.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {package}") from error
    except OSError as error:
        raise GatewayError(f"{package}: {error.strerror}") from error
    found = "sha512-" + base64.b64encode(digest.digest()).decode("ascii")
    if not hmac.compare_digest(found, INTEGRITY):
        raise GatewayError(f"{package.name} is not {PACKAGE} {VERSION}: its digest is {found}, expected {INTEGRITY}")


def unpack(package: Path, folder: Path) -> None:
    """Write the files of the package that the viewer needs, changed to lie under `ROOT`, and compressed twins.

    Raises
    ------
    GatewayError
        The archive is damaged, too large, names a place outside, or lacks what we change.
    """
    folder.mkdir()
    folder.chmod(0o755)  # what a private scratch folder holds is read by the web role of another user
    changed = 0
    try:
        with tarfile.open(package, "r:gz") as archive:
            for name, content in _files(archive):
                whole, places = _for_our_root(name, content)
                changed += places
                _write(folder / name, whole)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError) as error:
        raise GatewayError(f"{package.name} is damaged: {type(error).__name__}") from error
    if not (folder / "index.html").is_file() or not changed:
        raise GatewayError(f"{package.name} does not hold the files of OHIF {VERSION} as we know them")


def _files(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file that the viewer needs, within bounds."""
    count, total = 0, 0
    for member in archive:
        count += 1
        total += max(0, member.size)
        if count > _MOST_FILES or total > _MOST_BYTES:
            raise GatewayError(f"the package holds more than {_MOST_FILES} files or {_MOST_BYTES >> 20} MiB")
        name = "LICENSE" if member.name == _LICENCE else member.name.removeprefix(_DIST)
        if name == member.name or name.endswith(".map") or name.startswith(_LEFT_OUT):
            continue
        if not member.isfile() or not _is_inside(name):
            raise GatewayError(f"the package names {member.name!r}, which is no file inside of its folder")
        content = archive.extractfile(member)
        if content is not None:
            yield name, content.read()


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name and bool(name)


def _for_our_root(name: str, content: bytes) -> tuple[bytes, int]:
    """Return a file changed to lie under `ROOT`, and how many scripts were changed."""
    change = _CHANGES.get("index.html" if name == "index.html" else PurePosixPath(name).suffix)
    if change is None:
        return content, 0
    text = content.decode("utf-8", errors="surrogateescape")
    changed = change(text)
    return changed.encode("utf-8", errors="surrogateescape"), int(name.endswith(".js") and changed != text)


def _script(text: str) -> str:
    return text.replace(_PUBLIC_PATH, f'__webpack_require__.p = "{ROOT}";')


def _style(text: str) -> str:
    return text.replace("url(/", f"url({ROOT}")


def _index(text: str) -> str:
    bundle = _BUNDLE.search(text)
    if bundle is None:
        raise GatewayError(f"the start page of OHIF {VERSION} names no app bundle")
    return _INDEX.format(root=ROOT, bundle=bundle[1])


_CHANGES: dict[str, Callable[[str], str]] = {".js": _script, ".css": _style, "index.html": _index}


def _write(path: Path, content: bytes) -> None:
    """Write a file, and its compressed twin where that is smaller."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_synced(path, content)
    if path.suffix in _COMPRESSED and len(content) > _LEAST_COMPRESSED_BYTES:
        _write_synced(path.with_name(path.name + ".gz"), gzip.compress(content, compresslevel=6, mtime=0))


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
