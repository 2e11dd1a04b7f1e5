"""Every command of the papers is run: against a gateway with work, failures and quarantined files in it.

Blocks are marked by what their commands need. Those marked `sh` alone are run as they stand, in the order of the page,
by a shell that stops at the first exit code other than 0; only places (folders, ports) are those of the test. Others
need a machine that a test does not own: what of them can be run is run, and the rest is held against the programs' own
help and the files in `deploy/`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import orjson
import pydicom
import pytest
from joserfc.jwk import ECKey, KeySet

from gateway.exchange.deidentified import KeyedPseudonyms, secret_key
from gateway.job import State
from gateway.store import Store, open_store
from gateway.store.deliveries import DeliveryFilter, DeliveryState, list_deliveries
from gateway.store.jobs import JobFilter, list_jobs
from gateway.store.quarantine import list_quarantined
from gateway.supervisor import ROLES
from tests.acceptance.gateway_process import RESULT_TIMEOUT_S, GatewayProcess
from tests.delivering import scripted_peer, storescp
from tests.deployment import CHART, DEPLOY, REPOSITORY, chart_tools, read_yaml
from tests.foreign_bundles import make_onnx
from tests.papers import Block, blocks, pages, translated
from tests.services.process import HANGS_S, LOOPBACK, run, wait_until
from tests.working import add_job

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

SAMPLES = REPOSITORY / "gateway" / "samples"
IN_CHINESE = {chinese: english for english, chinese in translated()}
WITH_COMMANDS = [page for page in pages() if any(each.tag.startswith("sh") for each in blocks(page))]
REFUSED = 0xC000
QUARANTINED = 2
_PROGRAMS = str(Path(sys.executable).parent)


class Site:
    """A gateway of the test, with what the pages speak of, and their places moved into a folder of the test."""

    def __init__(self, home: Path, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.study = str(pydicom.dcmread(SAMPLES / "cxr-bacterial.dcm", stop_before_pixels=True).StudyInstanceUID)
        self.token = ""
        self._places = {
            "/backup": home / "backup",
            "/srv": home / "srv",
            "/etc/hybridmed": home / "etc",
            f"{LOOPBACK}:8080": f"{LOOPBACK}:{gateway.http_port}",
        }
        for folder in ("backup", "srv/samples", "srv/bundles", "etc"):
            (home / folder).mkdir(parents=True)
        shutil.copyfile(SAMPLES / "cxr-normal.dcm", home / "srv/samples/1.dcm")
        make_onnx(home / "srv/bundles/ward-model")
        key = ECKey.generate_key("P-384", {"kid": "k1", "use": "sig"})
        (home / "etc/ehr-keys.json").write_bytes(orjson.dumps(KeySet([key]).as_dict(private=False)))

    def fill(self) -> None:
        """Bring a result, a delivery that is refused, a dead job and quarantined files."""
        self.gateway.start()
        self._cli("send", str(SAMPLES / "cxr-bacterial.dcm"))
        wait_until(lambda: bool(self._jobs(State.DONE)), RESULT_TIMEOUT_S, "a result")
        wait_until(lambda: bool(self._deliveries("failed")), HANGS_S, "a refused delivery")
        with closing(self._store()) as store:
            add_job(store, self.study, bundle="model-that-is-gone")
        wait_until(lambda: bool(self._jobs(State.DEAD)), HANGS_S, "a dead job")
        wait_until(lambda: len(self._quarantined()) == QUARANTINED, HANGS_S, "quarantined files")
        self.token = self._cli("tokens", "create", "--name", "papers", "--role", "operator").strip()

    def run(self, block: Block) -> None:
        """Run a block as it stands."""
        wait_until(lambda: not self._jobs(State.QUEUED, State.RUNNING), RESULT_TIMEOUT_S, "no open job")
        text = block.text
        for place, ours in self._places.items():
            text = text.replace(place, str(ours))
        env = {**os.environ, **self.gateway.env, **self._variables(text)}
        env["PATH"] = f"{_PROGRAMS}{os.pathsep}{env['PATH']}"
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            env=env,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, f"{block}: exit {ended.returncode}\n{text}\n{ended.stdout}\n{ended.stderr}"

    def _variables(self, text: str) -> Mapping[str, str]:
        """Return what the variables of the pages stand for at this moment; an unknown one stops the shell."""
        known: dict[str, Callable[[], str]] = {
            "STUDY": lambda: self.study,
            "TOKEN": lambda: self.token,
            "JOB": lambda: self._jobs(State.DONE)[0],
            "DEAD": lambda: self._jobs(State.DEAD)[0],
            "FILE": lambda: self._quarantined()[0],
            "DELIVERY": lambda: self._deliveries("failed")[0],
            "PSEUDONYM": lambda: KeyedPseudonyms(secret_key(self.gateway.data_dir)).uid(self.study),
        }
        return {name: look() for name, look in known.items() if re.search(rf"\${name}\b", text)}

    def _jobs(self, *states: State) -> list[str]:
        with closing(self._store()) as store, store.read() as connection:
            return [row.id for row in list_jobs(connection, JobFilter(states=states, study_instance_uid=self.study))]

    def _quarantined(self) -> list[str]:
        with closing(self._store()) as store, store.read() as connection:
            return [row.path for row in list_quarantined(connection)]

    def _deliveries(self, state: DeliveryState) -> list[str]:
        with closing(self._store()) as store, store.read() as connection:
            return [str(row.id) for row in list_deliveries(connection, DeliveryFilter(states=(state,)))]

    def _store(self) -> Store:
        return open_store(f"sqlite:///{self.gateway.data_dir / 'hybridmed.db'}", self.gateway.data_dir)

    def _cli(self, *arguments: str) -> str:
        ended = self.gateway.cli(*arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give a site that runs."""
    tmp_path = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        pacs = stack.enter_context(storescp(tmp_path / "pacs"))
        refusing = stack.enter_context(scripted_peer(lambda _class: REFUSED))
        destinations = f"PACS=PACS@{LOOPBACK}:{pacs}, REFUSES=PEER@{LOOPBACK}:{refusing.port}"
        gateway = GatewayProcess(tmp_path / "gateway", HYBRIDMED_AUTH="token", HYBRIDMED_DESTINATIONS=destinations)
        for number in range(QUARANTINED):  # what a power cut may leave: files that a receiver finds, and cannot read
            left = gateway.data_dir / "incoming" / f"00000000-0000-4000-8000-00000000000{number}"
            left.mkdir(parents=True)
            (left / f"0000000{number}_1.dcm").write_bytes(b"no DICOM")
        made = Site(tmp_path, gateway)
        try:
            made.fill()
            yield made
        finally:
            gateway.stop()


@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if page not in IN_CHINESE], ids=lambda page: page.name)
def test_commands_end_with_success(page: Path, site: Site, tmp_path: Path) -> None:
    """Block by block; a page in Chinese holds the very same commands (`test_deploy_pages.py`)."""
    for block in blocks(page):
        if block.tag == "sh":
            site.run(block)
        elif block.tag.startswith("sh"):
            CHECKS[block.tag](block, site, tmp_path)


def _check_systemd(block: Block, site: Site, scratch: Path) -> None:
    for words in map(_without_sudo, block.commands):
        if words[0] == "sh":
            root = scratch / f"root{block.line}"
            run("sh", str(_repository_file(words[1])), "--root", str(root), "--no-packages", *words[2:], cwd=REPOSITORY)
        elif words[0] == "hybridmed":
            site.run(Block(block.page, block.line, "sh", subprocess.list2cmdline(words)))
        else:
            assert _are_options_known(words), f"{block}: {words}"
            assert [name for name in _units(words) if not _is_unit(name)] == [], f"{block}: {words}"


def _check_compose(block: Block, site: Site, scratch: Path) -> None:
    for words in block.commands:
        if words[0] == "sh":
            run("sh", str(_repository_file(words[1])), str(scratch / f"secrets{block.line}"))
            continue
        assert words[:3] == ["docker", "compose", "-f"], f"{block}: {words}"
        file, (verb, *rest) = _repository_file(words[3]), words[4:]
        assert verb in {"up", "run", "exec"}, f"{block}: {words}"
        if shutil.which("docker") and _succeeds("docker", "compose", "version"):
            run("docker", "compose", "-f", str(file), "config", "--quiet", "--no-interpolate")
        if verb != "up":
            service, *command = [word for word in rest if not word.startswith("-")]
            assert service in read_yaml(file)["services"], f"{block}: {words}"
            site.run(Block(block.page, block.line, "sh", subprocess.list2cmdline(["hybridmed", *command])))


def _check_kubernetes(block: Block, _site: Site, scratch: Path) -> None:
    for words in block.commands:
        if words[0] == "helm":
            verb, release, chart, *options = words[1:]
            assert verb in {"install", "upgrade"}, f"{block}: {words}"
            assert _repository_file(chart) == CHART
            run(str(chart_tools()), "template", release, str(CHART), *options)
        elif shutil.which("kubectl"):
            for option in re.findall(r"--from-file=(\S+)", " ".join(words)):
                (scratch / option.rpartition("=")[2]).write_text("x")
            run(*words, "--dry-run=client", "--output=name", cwd=scratch)


def _check_help(block: Block, _site: Site, _scratch: Path) -> None:
    for words in map(_without_sudo, block.commands):
        assert _are_options_known(words), f"{block}: {words}"


CHECKS: Mapping[str, Callable[[Block, Site, Path], None]] = {
    "sh systemd": _check_systemd,  # the host's own units: installed below another root, and the names of the units
    "sh compose": _check_compose,  # a container engine: the script and the commands inside are run
    "sh kubernetes": _check_kubernetes,  # a cluster: rendered by helm, and made by kubectl without sending
    "sh postgresql": _check_help,  # an administrator of PostgreSQL: programs and options
    "sh rabbitmq": _check_help,  # an administrator of RabbitMQ: the same
    "sh internet": _check_help,  # the npm registry: the same
}


def test_every_block_is_marked_by_what_it_needs() -> None:
    """No command stands under a mark that nobody checks, and none without a mark."""
    marks = {each.tag for page in pages() for each in blocks(page)}

    assert marks - {"toml", "sh", *CHECKS} == set()


def _units(words: Sequence[str]) -> list[str]:
    """Return the units that systemctl or journalctl is asked about."""
    return [word for word in words[1:] if "hybridmed" in word]


def _is_unit(name: str) -> bool:
    """Say whether a unit is one of ours: the target, or the template with a role, or with all of them."""
    stem, at, role = name.removesuffix(".service").partition("@")
    if not at:
        return (DEPLOY / "systemd" / name).exists()
    return (DEPLOY / "systemd" / f"{stem}@.service").exists() and role in {*ROLES, "*"}


def _are_options_known(words: Sequence[str]) -> bool:
    """Say whether a program's own help knows options and verb; True where the program is not there."""
    name = words[0]
    if name == "hybridmed":
        told = run(sys.executable, "-m", "gateway", *words[1:3], "--help", cwd=REPOSITORY)
        return all(word in told for word in words[1:] if word.startswith("--"))
    if shutil.which(name) is None:
        return True
    if name.startswith("rabbitmq"):
        return os.geteuid() != 0 or _succeeds(name, "help", words[1])  # nobody else may even ask
    told = subprocess.run([name, "--help"], capture_output=True, text=True, timeout=60, check=False).stdout
    verbs = words[1:2] if name == "systemctl" else []
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return all(re.search(rf"(^|\s){re.escape(each)}\b", told) for each in [*verbs, *options])


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def _without_sudo(words: Sequence[str]) -> list[str]:
    return list(words[1:] if words[0] == "sudo" else words)


def _repository_file(path: str) -> Path:
    """Return a path that a page names; fails where it is not there."""
    found = REPOSITORY / path
    assert found.exists(), path
    return found
