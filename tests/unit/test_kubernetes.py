"""The manifests: what Kubernetes takes, with names, ports and times as the code has them, and no right too many."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from outhaul.cdc_reader.session import loop, threads
from outhaul.deploy.kubernetes import __main__ as rules
from outhaul.sink.process import watchdog
from outhaul.sink.settings import Settings, load, load_from
from outhaul.sink.telemetry.exposition import Health, application
from tests.kubernetes import FOLDER, KUSTOMIZATIONS, ROOTS, Container, Object, built, containers, read, written
from tests.prometheus import RULES, program

if TYPE_CHECKING:
    from pathlib import Path

WRITTEN = written()
CONTAINERS = list(containers(WRITTEN))
SERVERS = [container for container in CONTAINERS if "ports" in container.spec]
ENVIRONMENTS = {f"OUTHAUL_{name.upper()}" for name in Settings.model_fields}
# No schema of these is at hand; their shape is looked at by tests of their own.
CUSTOM = {"ScaledObject", "PodMonitor", "PrometheusRule"}
KUBERNETES = "1.33"
ROOT = FOLDER.parents[1]


def name_of(one: Object) -> str:
    return f"{one['kind']}-{one['metadata']['name']}"


def of_kind(kind: str, objects: list[Object]) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def generated(path: Path) -> dict[str, str]:
    """Return the settings that a kustomization has as literals."""
    return dict(
        literal.split("=", 1) for one in read(path).get("configMapGenerator", ()) for literal in one["literals"]
    )


SETTINGS = generated(FOLDER / "base" / "kustomization.yaml")


@pytest.mark.parametrize("one", [one for one in WRITTEN if one["kind"] not in CUSTOM], ids=name_of)
def test_kubernetes_own_schema_takes_a_manifest(one: Object) -> None:
    kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_the_schema_refuses_a_key_that_does_not_exist() -> None:
    one = of_kind("Deployment", WRITTEN)[0]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one | {"spec": one["spec"] | {"replica": 2}}, KUBERNETES, strict=True)


@pytest.mark.parametrize("root", ROOTS)
def test_what_kustomize_makes_is_taken_too(root: str) -> None:
    objects = built(root)
    for one in objects:
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
    found = [name_of(one) for one in objects]
    assert len(found) == len(set(found))
    assert not any("namespace" in one["metadata"] for one in objects)


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: str(path.parent.relative_to(FOLDER)))
def test_what_a_kustomization_names_exists(path: Path) -> None:
    whole = read(path)
    named = [*whole.get("resources", ()), *whole.get("components", ())]
    named += [patch["path"] for patch in whole.get("patches", ()) if "path" in patch]
    assert named
    assert all((path.parent / name).exists() for name in named)
    assert set(path.parent.glob("*.yaml")) == {path, *(path.parent / name for name in named if name.endswith(".yaml"))}


def test_pods_have_the_settings_that_exist_and_secrets_by_reference() -> None:
    for path in KUSTOMIZATIONS:
        literals = generated(path)
        assert set(literals) <= ENVIRONMENTS
        assert not any(name.endswith(("_DSN", "_URL")) for name in literals)
        load_from(literals)
    for container in CONTAINERS:
        for one in container.spec["env"]:
            assert one["name"] in ENVIRONMENTS
            assert one["valueFrom"]["secretKeyRef"]["key"] == one["name"]


def test_a_process_has_the_logins_that_it_needs_and_may_reach_these_servers_and_no_others() -> None:
    server = {"OUTHAUL_POSTGRES_DSN": "postgres", "OUTHAUL_REDIS_URL": "redis", "OUTHAUL_CLICKHOUSE_URL": "clickhouse"}
    policies = {
        one["metadata"]["name"].removeprefix("outhaul-"): set(selected(one))
        for one in of_kind("NetworkPolicy", WRITTEN)
        if selected(one)
    }
    assert set(policies) == {*server.values(), "metrics"}
    for container in CONTAINERS:
        logins = {server[one["name"]] for one in container.spec["env"]}
        reached = {name for name, components in policies.items() if component(container) in components}
        assert reached - {"metrics"} == logins, container.name
        assert ("metrics" in reached) == ("ports" in container.spec)


def selected(policy: Object) -> list[str]:
    found = policy["spec"]["podSelector"].get("matchExpressions", [])
    return [value for one in found for value in one["values"]]


def component(container: Container) -> str:
    return container.labels["app.kubernetes.io/component"]


def test_without_a_policy_of_its_own_a_pod_reaches_names_and_nothing_else() -> None:
    nothing = next(one for one in of_kind("NetworkPolicy", WRITTEN) if one["metadata"]["name"] == "outhaul-nothing")
    assert nothing["spec"]["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "outhaul"}}
    assert set(nothing["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in nothing["spec"]
    assert {port["port"] for rule in nothing["spec"]["egress"] for port in rule["ports"]} == {53}


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container.name)
def test_a_pod_is_as_shut_as_kubernetes_restricted_standard_asks(container: Container) -> None:
    pod, spec = container.pod, container.spec
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert spec["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert [volume["emptyDir"]["medium"] for volume in pod["volumes"]] == ["Memory"]
    assert set(spec["resources"]["limits"]) == {"memory"}
    assert set(spec["resources"]["requests"]) == {"cpu", "memory"}


def test_all_run_the_image_and_the_version_of_this_project() -> None:
    assert {container.spec["image"] for container in CONTAINERS} == {"outhaul"}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags = [image["newTag"] for path in KUSTOMIZATIONS for image in read(path).get("images", ())]
    assert tags == [version] * 2


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container.name)
def test_a_container_runs_a_command_with_options_that_exist(container: Container) -> None:
    command, *rest = container.spec["args"]
    source = (ROOT / "cdc_reader" / "cli" / f"{command}.py").read_text()
    for option in (word for word in rest if word.startswith("--")):
        parameter = option.removeprefix("--").replace("-", "_")
        assert re.search(rf"^    {parameter}: Annotated\[", source, re.MULTILINE), option
    assert "command" not in container.spec


@pytest.mark.parametrize("container", SERVERS, ids=lambda container: container.name)
def test_probes_ask_for_pages_that_are_served_at_the_port_of_the_settings(container: Container) -> None:
    ports = {port["name"]: port["containerPort"] for port in container.spec["ports"]}
    assert ports == {"metrics": int(SETTINGS["OUTHAUL_METRICS_PORT"])}
    assert SETTINGS["OUTHAUL_METRICS_HOST"] == "0.0.0.0"  # loopback, the default, is out of the node's reach
    paths = {}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container.spec[kind]["httpGet"]
        assert asked["port"] in ports
        paths[kind] = answer(asked["path"])
    # A process that must be started again and one that does not do its part are not the same.
    assert paths == {"startupProbe": "alive", "livenessProbe": "alive", "readinessProbe": "ready"}


def answer(path: str) -> str:
    """Return what our server says at a path where it is not well: which of its two questions that was."""
    served = application(Any, Health(alive=lambda: "alive", ready=lambda: "ready"))  # type: ignore[arg-type]
    return b"".join(served({"PATH_INFO": path}, lambda *_: lambda _: None)).decode().strip()


def test_a_pod_that_ends_has_the_time_that_its_process_takes() -> None:
    grace_s = {container.name: container.pod.get("terminationGracePeriodSeconds", 0) for container in CONTAINERS}
    assert grace_s["reader"] > loop.DRAIN_S + threads.JOIN_S + 5
    assert grace_s["worker"] > watchdog._STOP_S + 5


def test_there_are_no_more_workers_than_batches_to_work_on() -> None:
    worker = next(container for container in CONTAINERS if container.name == "worker")
    at_once = int(worker.spec["args"][worker.spec["args"].index("--concurrency") + 1])
    scaled = of_kind("ScaledObject", WRITTEN)[0]["spec"]
    assert scaled["maxReplicaCount"] * at_once == Settings.model_fields["max_in_flight"].default
    assert {trigger["metadata"]["threshold"] for trigger in scaled["triggers"]} == {str(at_once)}
    assert scaled["fallback"]["replicas"] == scaled["maxReplicaCount"]
    assert scaled["scaleTargetRef"]["name"] in {one["metadata"]["name"] for one in of_kind("Deployment", WRITTEN)}


def test_the_scaler_asks_for_metrics_that_exist_of_this_pipeline() -> None:
    documented = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    for trigger in of_kind("ScaledObject", WRITTEN)[0]["spec"]["triggers"]:
        metric, source = re.findall(r'(outhaul_\w+)\{source=~?"([^"]+)"\}', trigger["metadata"]["query"])[0]
        assert f"| `{metric}` |" in documented
        assert re.fullmatch(source, SETTINGS["OUTHAUL_SOURCE"])
        if "_reader_" in metric:
            assert re.fullmatch(source, load(source=SETTINGS["OUTHAUL_SOURCE"], shards=2).stream(1).fence)


def test_the_rules_are_those_of_prometheus() -> None:
    text = rules.TARGET.read_text()
    assert text == rules.rules(), "run: python -m outhaul.deploy.kubernetes"
    made = yaml.safe_load(text)
    assert made["kind"] == "PrometheusRule"
    assert made["spec"] == yaml.safe_load(RULES.read_text())


def test_promtool_takes_the_rules_as_the_operator_hands_them_on(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(of_kind("PrometheusRule", WRITTEN)[0]["spec"]))
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(tmp_path / "rules.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_scraped_pods_get_the_job_and_the_source_that_the_alerts_know() -> None:
    monitor = of_kind("PodMonitor", WRITTEN)[0]["spec"]
    endpoint = monitor["podMetricsEndpoints"][0]
    components = monitor["selector"]["matchExpressions"][0]["values"]
    assert {container.name for container in SERVERS} == set(components) == {component(one) for one in SERVERS}
    jobs = re.findall(r'job=~"([^"]+)"', RULES.read_text())
    relabel = {one["targetLabel"]: one for one in endpoint["relabelings"]}
    for name in components:
        job = relabel["job"]["replacement"].replace("$1", name)
        assert re.fullmatch(jobs[0], job)
    labels = {"app.kubernetes.io/component": "", **read(FOLDER / "base" / "kustomization.yaml")["labels"][1]["pairs"]}
    spelled = {f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9_]', '_', label)}" for label in labels}
    assert {one["sourceLabels"][0] for one in relabel.values()} == spelled
    assert labels["outhaul-source"] == SETTINGS["OUTHAUL_SOURCE"]
    assert endpoint["honorLabels"] is True
    assert endpoint["port"] == "metrics"


def test_the_scaler_and_not_the_manifest_says_how_many_workers_there_are() -> None:
    replicas = {
        one["metadata"]["name"]: one["spec"].get("replicas") for one in of_kind("Deployment", built("overlays/ha"))
    }
    assert replicas == {"outhaul-reader": 2, "outhaul-worker": None, "outhaul-exporter": 1}


def test_budgets_and_policies_choose_only_pods_of_outhaul() -> None:
    for one in built("base"):
        if one["kind"] in {"PodDisruptionBudget", "NetworkPolicy"}:
            selector = one["spec"].get("selector") or one["spec"]["podSelector"]
            assert selector["matchLabels"]["app.kubernetes.io/name"] == "outhaul", name_of(one)


def test_the_overlay_of_the_docs_is_what_they_say_it_is(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "deploy" / "kubernetes")
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    overlay = tmp_path / "overlays" / "mine"
    overlay.mkdir(parents=True)
    (overlay / "kustomization.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    objects = built(str(overlay))
    assert {one["metadata"]["namespace"] for one in objects} == {"outhaul"}
    assert {container.spec["image"] for container in containers(objects)} == {"registry.example.org/outhaul:0.1.0"}
    assert of_kind("CronJob", objects)
    settings = next(one["data"] for one in of_kind("ConfigMap", objects))
    assert settings == SETTINGS | {"OUTHAUL_HEAL": "auto"}


def test_with_shards_each_has_two_pods_that_are_the_deployment_s_but_for_their_number(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "deploy" / "kubernetes")
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    overlay = tmp_path / "overlays" / "mine"
    overlay.mkdir(parents=True)
    (overlay / "kustomization.yaml").write_text(
        text.partition("## Shards")[2].partition("```yaml\n")[2].partition("```")[0]
    )
    objects = built(str(overlay))
    (deployment,) = (one for one in built("overlays/ha") if name_of(one) == "Deployment-outhaul-reader")
    assert "Deployment-outhaul-reader" not in map(name_of, objects)
    settings = next(one["data"] for one in of_kind("ConfigMap", objects))
    sets = {one["metadata"]["name"]: one for one in of_kind("StatefulSet", objects)}
    assert list(sets) == ["outhaul-reader", "outhaul-standby"]
    for one in sets.values():
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
        assert one["spec"]["replicas"] == int(settings["OUTHAUL_SHARDS"])
        template = one["spec"]["template"]
        assert one["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        pod = template["spec"]
        assert pod.pop("affinity")
        (reader,) = pod["containers"]
        assert reader["args"] == ["reader", "--shard", "$(SHARD)"]
        assert reader["env"].pop()["name"] == "SHARD"
        reader["args"] = ["reader"]
        (original,) = deployment["spec"]["template"]["spec"]["containers"]
        assert reader.pop("image") == "registry.example.org/outhaul:0.1.0"
        assert reader.pop("envFrom")
        # The settings are under another name, since they hold another number.
        changed = {"image", "envFrom"}
        assert reader == {name: value for name, value in original.items() if name not in changed}
    selectors = [one["spec"]["selector"]["matchLabels"] for one in sets.values()]
    assert selectors[0] != selectors[1]


def test_the_docs_name_every_secret_with_the_keys_that_are_asked_for() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    head = re.search(r"^\| Secret \| (.*) \|$", text, re.MULTILINE)
    assert head
    names = re.findall(r"`(\w+)`", head[1])
    said = {
        (secret, name)
        for secret, cells in re.findall(r"^\| `(outhaul-\w+)` \|(.*)\|$", text, re.MULTILINE)
        for name, cell in zip(names, cells.split("|"), strict=True)
        if cell.strip()
    }
    asked = [one["valueFrom"]["secretKeyRef"] for container in CONTAINERS for one in container.spec["env"]]
    assert said == {(one["name"], one["key"]) for one in asked}
