"""Services in containers are driven by the engine's usual commands."""

import shutil
from pathlib import Path

import pytest

from tests.services.container import Container, engine
from tests.services.process import ServiceFailedError

# Stands in for docker: writes down what it is asked for, and fails where the file `broken` lies beside it.
ENGINE = """#!/bin/sh
[ -e "$(dirname "$0")/broken" ] && exit 1
echo "$@" >>"$(dirname "$0")/asked"
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the path of an engine that only writes down its arguments, first on the search path."""
    program = tmp_path / "docker"
    program.write_text(ENGINE)
    program.chmod(0o755)
    for needed in ("dirname", "sh"):
        (tmp_path / needed).symlink_to(shutil.which(needed) or needed)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


def test_an_engine_counts_only_when_it_answers(docker: Path) -> None:
    """A client whose daemon is away is no engine."""
    answering = engine()
    (docker.parent / "broken").touch()

    assert answering == str(docker)
    assert engine() is None


def test_a_container_keeps_its_name_and_port_over_stop_and_start(docker: Path) -> None:
    """It is created once, published on the loopback interface, started again by name, and removed with its data."""
    container = Container(str(docker), "registry/image:1", port=5672, env={"KEY": "value"})
    container.start()
    container.stop()
    container.start()
    container.kill()
    container.remove()
    created, *later = (docker.parent / "asked").read_text().splitlines()

    name = created.split()[3]
    published = f"127.0.0.1:{container.port}:5672"
    assert created == f"run --detach --name {name} --publish {published} --env KEY=value registry/image:1"
    assert later == [f"stop {name}", f"start {name}", f"kill {name}", f"rm --force --volumes {name}"]


def test_a_failing_engine_is_reported(docker: Path) -> None:
    """A container that does not come up is an error, not a silence."""
    (docker.parent / "broken").touch()

    with pytest.raises(ServiceFailedError, match="docker run --detach: exit 1"):
        Container(str(docker), "registry/image:1", port=5672).start()
