"""The viewer's package: only the pinned one is taken, nothing is written outside, all files or none."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from gateway import viewer
from gateway.errors import ConfigurationError, GatewayError, NotFoundError
from gateway.viewer import ROOT, install, installed_folder, unpack, viewer_installed

SCRIPT = b'x();__webpack_require__.p = "/";y();' + b" " * 2000
INDEX = b'<script defer src="/app.bundle.0f6159c501addfe9.js"></script>'


def write_package(path: Path, files: dict[str, bytes], extra: tarfile.TarInfo | None = None) -> Path:
    """Write a package file with these files, as npm packs them."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if extra is not None:
            archive.addfile(extra)
    return path


def whole() -> dict[str, bytes]:
    """Give the least that a package must hold."""
    return {
        "package/LICENSE": b"MIT",
        "package/dist/index.html": INDEX,
        "package/dist/app.bundle.0f6159c501addfe9.js": SCRIPT,
    }


def test_scripts_and_styles_are_changed_to_lie_under_our_address(tmp_path: Path) -> None:
    """What names the root of the site names ours afterwards, and the start page loads our settings first."""
    package = write_package(tmp_path / "p.tgz", whole() | {"package/dist/a.css": b"url(/f.woff2)"})
    unpack(package, tmp_path / "out")

    index = (tmp_path / "out" / "index.html").read_text()
    script = (tmp_path / "out" / "app.bundle.0f6159c501addfe9.js").read_text()
    assert (tmp_path / "out" / "a.css").read_text() == f"url({ROOT}f.woff2)"
    assert f'__webpack_require__.p = "{ROOT}";' in script
    assert f'src="{ROOT}app.bundle.0f6159c501addfe9.js"' in index
    assert index.index("/viewer/app-config.js") < index.index("app.bundle.0f")
    assert "<script>" not in index


def test_large_texts_have_a_compressed_twin(tmp_path: Path) -> None:
    """The twin holds the same bytes as the changed file; small files and pictures have none."""
    files = whole() | {"package/dist/assets/a.png": b"p" * 5000}
    unpack(write_package(tmp_path / "p.tgz", files), tmp_path / "out")

    script = tmp_path / "out" / "app.bundle.0f6159c501addfe9.js"
    assert gzip.decompress(script.with_name(script.name + ".gz").read_bytes()) == script.read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.gz")) == [script.name + ".gz"]


def test_what_the_viewer_does_not_need_stays_out(tmp_path: Path) -> None:
    """No source map, no service worker, no model runtime; the licence is kept."""
    files = whole() | {f"package/dist/{name}": b"x" for name in ("a.js.map", "sw.js", "ort/ort.wasm", "google.js")}
    unpack(write_package(tmp_path / "p.tgz", files), tmp_path / "out")

    names = {path.name for path in (tmp_path / "out").rglob("*") if path.suffix != ".gz"}
    assert names == {"LICENSE", "index.html", "app.bundle.0f6159c501addfe9.js"}


@pytest.mark.parametrize("name", ["../../escaped.js", "/escaped.js", "a\\..\\b.js"])
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing is written outside of the folder."""
    package = write_package(tmp_path / "p.tgz", whole() | {f"package/dist/{name}": b"x"})
    (tmp_path / "folder").mkdir()

    with pytest.raises(GatewayError, match="no file inside"):
        unpack(package, tmp_path / "folder" / "out")
    assert not list(tmp_path.rglob("escaped.js"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    """A link could point outside, a pipe would block its reader."""
    link = tarfile.TarInfo("package/dist/link.js")
    link.type, link.linkname = kind, "/etc/passwd"
    package = write_package(tmp_path / "p.tgz", whole(), link)

    with pytest.raises(GatewayError, match="no file inside"):
        unpack(package, tmp_path / "out")


def test_more_than_the_bounds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that the archive states are summed before they are read."""
    monkeypatch.setattr(viewer, "_MOST_BYTES", len(SCRIPT))
    package = write_package(tmp_path / "p.tgz", whole())

    with pytest.raises(GatewayError, match="more than"):
        unpack(package, tmp_path / "out")


def test_a_damaged_package_is_refused(tmp_path: Path) -> None:
    """An archive cut off in the middle is said to be damaged."""
    package = write_package(tmp_path / "p.tgz", whole() | {"package/dist/b.js": bytes(range(256)) * 400})
    package.write_bytes(package.read_bytes()[:-300])

    with pytest.raises(GatewayError, match="damaged"):
        unpack(package, tmp_path / "out")


def test_a_package_without_the_places_that_we_change_is_refused(tmp_path: Path) -> None:
    """Another build of OHIF would load nothing from our address: better refused than a white page."""
    files = whole() | {"package/dist/app.bundle.0f6159c501addfe9.js": b"no public path"}
    package = write_package(tmp_path / "p.tgz", files)

    with pytest.raises(GatewayError, match="as we know them"):
        unpack(package, tmp_path / "out")


def test_only_the_pinned_package_is_installed(tmp_path: Path) -> None:
    """The digest decides; found and expected are named, and nothing is unpacked."""
    package = write_package(tmp_path / "p.tgz", whole())

    with pytest.raises(GatewayError, match=r"its digest is sha512-.* expected sha512-"):
        install(package, tmp_path / "viewer")
    assert not viewer_installed(tmp_path / "viewer")
    with pytest.raises(NotFoundError):
        install(tmp_path / "nowhere.tgz", tmp_path / "viewer")


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a small package whose digest is the pinned one for the time of the test."""
    package = write_package(tmp_path / "p.tgz", whole())
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    monkeypatch.setattr(viewer, "INTEGRITY", f"sha512-{digest}")
    return package


def test_installed_twice_is_installed_once(tmp_path: Path, pinned: Path) -> None:
    """The second time nothing is written, and the answer says so."""
    first, second = install(pinned, tmp_path / "viewer"), install(pinned, tmp_path / "viewer")

    assert (first.is_new, second.is_new) == (True, False)
    assert first.folder == second.folder == installed_folder(tmp_path / "viewer")
    assert first.size_bytes == second.size_bytes > len(SCRIPT)


def test_a_failed_installation_leaves_nothing(tmp_path: Path, pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was unpacked by then is gone, so that no half of a viewer is ever served."""
    monkeypatch.setattr(viewer, "_MOST_FILES", 2)

    with pytest.raises(GatewayError):
        install(pinned, tmp_path / "viewer")
    assert not viewer_installed(tmp_path / "viewer")
    assert list((tmp_path / "viewer").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, pinned: Path) -> None:
    """The sentence names the setting."""
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(ConfigurationError, match="HYBRIDMED_VIEWER_DIR"):
        install(pinned, tmp_path / "taken")


def test_without_npm_the_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package can come from elsewhere."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigurationError, match=r"npm is not installed.*--from FILE"):
        viewer.fetch_package(tmp_path)
