"""The script that brings the programs of the tests installs what is missing, and names what stays missing."""

from deploy.dev.programs import Requirement, ensure


class Machine:
    """A machine that remembers what was installed on it."""

    def __init__(self, *installed: str) -> None:
        self.installed = set(installed)
        self.asked_for: list[str] = []

    def requires(self, name: str, *, runs_in_container: bool = False) -> Requirement:
        """Return a requirement that the package of the same name meets."""
        return Requirement(name, (f"lib{name}",), lambda: f"lib{name}" in self.installed, runs_in_container)

    def install(self, packages: list[str]) -> None:
        """Install packages, except one that this machine's sources do not have."""
        self.asked_for += packages
        self.installed.update(package for package in packages if package != "librare")


def test_installs_what_is_missing_and_nothing_else() -> None:
    """What is there is not installed again."""
    machine = Machine("libviewer")
    message = ensure([machine.requires("viewer"), machine.requires("sender")], machine.install, lambda: False)

    assert message is None
    assert machine.asked_for == ["libsender"]


def test_names_what_is_missing_where_nothing_may_be_installed() -> None:
    """Without root the message names the programs and the command that brings them."""
    machine = Machine()
    message = ensure([machine.requires("viewer"), machine.requires("sender")], None, lambda: False)

    assert message == "missing: viewer, sender\ninstall: sudo apt-get install libviewer libsender"


def test_names_what_could_not_be_installed() -> None:
    """A package that the sources do not have ends in the message, not in silence."""
    machine = Machine()
    message = ensure([machine.requires("rare"), machine.requires("sender")], machine.install, lambda: False)

    assert message == "missing: rare\ninstall: sudo apt-get install librare"


def test_a_container_engine_stands_in_for_services_alone() -> None:
    """What can run in a container is not missing where an engine answers; a program still is."""
    machine = Machine()
    requirements = [machine.requires("database", runs_in_container=True), machine.requires("sender")]

    assert ensure(requirements, None, lambda: True) == "missing: sender\ninstall: sudo apt-get install libsender"
    assert ensure(requirements[:1], None, lambda: True) is None
