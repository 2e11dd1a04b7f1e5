"""The Helm chart: rendered by helm, checked against the schemas of Kubernetes and KEDA, and against the program."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import load_settings
from gateway.supervisor import ROLES
from tests.deployment import CHART, read_yaml, render_chart, schema_complaints

SHARED = ("--set", "files.kind=shared", "--set", "files.sharedClaim=images", "--set", "serviceMonitor=true")


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    """Give all that the chart makes with its own values."""
    rendered = render_chart()
    assert rendered.returncode == 0, rendered.stderr
    return [one for one in yaml.safe_load_all(rendered.stdout) if one]


def test_every_manifest_follows_the_schema_of_its_kind(manifests: list[dict[str, Any]], tmp_path: Path) -> None:
    """With either place of files, and with the schemas seen to complain where a manifest is wrong."""
    shared = [one for one in yaml.safe_load_all(render_chart(*SHARED).stdout) if one]
    broken = yaml.safe_load(yaml.safe_dump(manifests))
    of_kind(broken, "Deployment")[0]["spec"]["replicas"] = "two"
    of_kind(broken, "ScaledObject")[0]["spec"]["cooldownPeriod"] = "soon"

    assert schema_complaints([*manifests, *shared], tmp_path) == []
    assert len(schema_complaints(broken, tmp_path)) == 2


def test_every_role_runs_and_is_protected(manifests: list[dict[str, Any]]) -> None:
    """A workload, a disruption budget and labels that fit each other, for each role."""
    workloads = {pod(one)["containers"][0]["args"][2]: one for one in workloads_of(manifests)}
    budgets = [one["spec"]["selector"]["matchLabels"] for one in of_kind(manifests, "PodDisruptionBudget")]

    assert set(workloads) == set(ROLES)
    for one in workloads.values():
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert any(budget.items() <= labels.items() for budget in budgets)
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_no_container_has_rights_or_secrets_of_its_own(manifests: list[dict[str, Any]]) -> None:
    """Read-only root, no capability, no root user, no service account's token; the chart makes no Secret."""
    for one in [*workloads_of(manifests), *of_kind(manifests, "Job")]:
        assert pod(one)["securityContext"]["runAsNonRoot"] is True
        assert pod(one)["automountServiceAccountToken"] is False
        for container in pod(one)["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
    assert of_kind(manifests, "Secret") == []


def test_receivers_share_one_service_and_keep_their_spools(manifests: list[dict[str, Any]]) -> None:
    """Several replicas behind one TCP service without affinity, each with a volume that outlives it."""
    service = next(one for one in of_kind(manifests, "Service") if one["metadata"]["name"] == "demo-receive")
    receive = next(one for one in of_kind(manifests, "StatefulSet") if one["metadata"]["name"] == "demo-receive")

    assert service["spec"]["sessionAffinity"] == "None"
    assert receive["spec"]["replicas"] == 2
    assert receive["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "data"


def test_workers_follow_the_queues_and_finish_their_job(manifests: list[dict[str, Any]]) -> None:
    """KEDA counts the queues that the broker has; a worker has its GPU and the time to end what it began."""
    scaled = of_kind(manifests, "ScaledObject")[0]["spec"]
    work = next(one for one in of_kind(manifests, "Deployment") if one["metadata"]["name"] == "demo-work")
    prefix = load_settings().broker_prefix

    assert scaled["scaleTargetRef"]["name"] == "demo-work"
    assert [one["metadata"]["queueName"] for one in scaled["triggers"]] == [f"{prefix}.stat", f"{prefix}.routine"]
    assert pod(work)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod(work)["terminationGracePeriodSeconds"] == 900
    assert "replicas" not in work["spec"]  # KEDA's own


def test_migrations_run_before_everything_else(manifests: list[dict[str, Any]]) -> None:
    """A hook job brings the schema; its settings are a hook too, since nothing else is there yet."""
    job = of_kind(manifests, "Job")[0]
    hooks = [one for one in manifests if "helm.sh/hook" in one["metadata"].get("annotations", {})]

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert pod(job)["containers"][0]["args"] == ["db", "upgrade"]
    assert {one["kind"] for one in hooks} == {"Job", "ConfigMap"}


@pytest.mark.parametrize(
    "wrong", ["receive.replicas=0", "files.kind=floppy", "files.kind=shared", "receive.from={anyone}", "gpus=2"]
)
def test_values_that_make_no_sense_are_refused(wrong: str) -> None:
    """The schema of the values names them before anything is made."""
    assert render_chart("--set", wrong).returncode != 0


def test_the_settings_of_the_chart_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program takes the hybridmed.toml of the values."""
    file = tmp_path / "hybridmed.toml"
    file.write_text(read_yaml(CHART / "values.yaml")["settings"])
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(file))

    settings = load_settings(tokens=("0" * 64,), bind="0.0.0.0")  # noqa: S104 # as in the image

    assert settings.s3.bucket == "hybridmed"


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the manifests of a kind."""
    return [one for one in manifests if one["kind"] == kind]


def workloads_of(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what runs for long."""
    return of_kind(manifests, "StatefulSet") + of_kind(manifests, "Deployment")


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    """Return the pod of a workload."""
    found: dict[str, Any] = workload["spec"]["template"]["spec"]
    return found
