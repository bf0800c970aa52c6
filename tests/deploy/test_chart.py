"""The chart as the real helm renders it: what Kubernetes accepts, what it promises, what it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.chart import (
    CASES,
    CHART,
    VALUES,
    cluster,
    container,
    helm,
    made,
    manifests,
    named,
    of_kind,
    pod,
    refused,
    rendered,
    with_helm,
    with_schemas,
)
from deploy.tools import KUBERNETES_VALIDATE, REPO
from taximeter.control.api.node import HANDLERS

pytestmark = with_helm
NOT_KUBERNETES = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, which Kubernetes' own schemas do not have."""


def validated(file: Path, version: str) -> subprocess.CompletedProcess[str]:
    command = [str(KUBERNETES_VALIDATE), "--strict", "-k", version, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@with_schemas
@pytest.mark.parametrize("version", ["1.25", "1.37"])
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_knows_every_field(case: str, version: str, tmp_path: Path) -> None:
    """The oldest version the chart allows, and the newest there are schemas of; unknown fields count."""
    file = tmp_path / "all.yaml"
    file.write_text(rendered(case, "--kube-version", version))
    done = validated(file, version)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = (done.stdout + done.stderr).count(" passed for resource ")
    assert passed == len([one for one in manifests(file.read_text()) if one["kind"] not in NOT_KUBERNETES]) > 4


@with_schemas
def test_a_field_that_kubernetes_does_not_know_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(rendered("default").replace("podManagementPolicy:", "podManagementPolice:"))
    assert validated(file, "1.37").returncode != 0


def test_helm_lints_it() -> None:
    for case in CASES:
        done = helm("lint", "--strict", CHART, "-f", VALUES / f"{case}.yaml")
        assert done.returncode == 0, done.stdout + done.stderr


def test_probes_ask_what_the_control_port_serves() -> None:
    served = {path for handler in HANDLERS for path in handler.paths}
    told = container(rendered("default"))
    assert {told[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")} <= served
    assert told["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {told[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")} == {"control"}


def test_the_control_port_is_never_on_a_load_balancer() -> None:
    text = rendered("keys")
    ports = {(one["spec"]["type"], port["name"]) for one in of_kind(text, "Service") for port in one["spec"]["ports"]
             if one["spec"].get("clusterIP") != "None"}  # fmt: skip
    assert ports == {("LoadBalancer", "data"), ("ClusterIP", "control")}
    [ingress] = of_kind(text, "Ingress")
    backends = [path["backend"]["service"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    assert backends == [{"name": "t-taximeter", "port": {"name": "data"}}]


def test_every_service_leads_to_a_port_of_the_pods_and_not_to_the_test() -> None:
    text = rendered("several")
    [stateful] = of_kind(text, "StatefulSet")
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    offered = {port["name"] for port in container(text)["ports"]}
    assert stateful["spec"]["serviceName"] in {one["metadata"]["name"] for one in of_kind(text, "Service")}
    [check] = of_kind(text, "Pod")
    for service in of_kind(text, "Service"):
        selector = service["spec"]["selector"].items()
        assert selector <= labels.items()
        assert not selector <= check["metadata"]["labels"].items()
        assert {port.get("targetPort", port["name"]) for port in service["spec"]["ports"]} <= offered
    for kind, where in (("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector")):
        [one] = of_kind(text, kind)
        assert one["spec"][where]["matchLabels"].items() <= labels.items()


def test_what_cannot_be_changed_in_a_stateful_set_is_as_in_0_1_0() -> None:
    """Or `helm upgrade` of what was installed by that version would be refused."""
    [stateful] = of_kind(rendered("default"), "StatefulSet")
    spec = stateful["spec"]
    assert spec["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": "taximeter",
        "app.kubernetes.io/instance": "t",
    }
    assert (spec["serviceName"], spec["podManagementPolicy"]) == ("t-taximeter-pods", "Parallel")
    [claim] = spec["volumeClaimTemplates"]
    assert claim == {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}},
    }


def test_a_pod_that_goes_takes_calls_until_load_balancers_know_and_has_time_for_its_streams() -> None:
    told = pod(rendered("several"))
    assert told["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "15"]
    assert told["terminationGracePeriodSeconds"] == 120 > 15 + 60  # limits.shutdown_s there
    said = refused("--set", "terminationGracePeriodSeconds=35")
    assert "preStopSleepSeconds, limits.shutdown_delay_s and limits.shutdown_s together take 35 s" in said


def test_a_pod_may_write_nowhere_but_to_its_volumes() -> None:
    for text in map(rendered, CASES):
        [check] = of_kind(text, "Pod")
        for spec in (pod(text), check["spec"]):
            assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"]
            assert spec["containers"][0]["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            mounts = {
                mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"] if not mount.get("readOnly")
            }
            assert mounts == {"/data", "/tmp"}


def test_the_test_pod_checks_what_the_pods_run_with() -> None:
    for text in map(rendered, CASES):
        [check] = of_kind(text, "Pod")
        theirs, ours = check["spec"]["containers"][0], container(text)
        for part in ("image", "env", "envFrom", "volumeMounts"):
            assert theirs.get(part) == ours.get(part), part
        assert (theirs["args"][0], ours["args"][0]) == ("check", "serve") and theirs["args"][1:] == ours["args"][1:]


def test_values_reach_the_pods() -> None:
    text = rendered("several")
    told, values = pod(text), yaml.safe_load((VALUES / "several.yaml").read_text())
    for name in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "topologySpreadConstraints",
                 "serviceAccountName", "priorityClassName"):  # fmt: skip
        assert told[name] == values[name], name
    assert values["extraEnv"][0] in told["containers"][0]["env"]
    assert values["extraVolumes"][0] in told["volumes"]
    assert values["extraVolumeMounts"][0] in told["containers"][0]["volumeMounts"]
    [stateful] = of_kind(text, "StatefulSet")
    assert "replicas" not in stateful["spec"]  # or each upgrade would undo what the autoscaler did
    assert values["podLabels"].items() <= stateful["spec"]["template"]["metadata"]["labels"].items()


def test_pods_are_spread_unless_told_otherwise() -> None:
    spread = pod(rendered("default"))["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert {one["whenUnsatisfiable"] for one in spread} == {"ScheduleAnyway"}


def test_a_disruption_budget_is_made_for_several_pods_only() -> None:
    """With one it could only keep nodes from being drained."""
    assert of_kind(rendered("default"), "PodDisruptionBudget") == []
    assert of_kind(rendered("several", "--set", "podDisruptionBudget.enabled=false"), "PodDisruptionBudget") == []
    [budget] = of_kind(rendered("several"), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_a_changed_setting_or_price_rolls_the_pods() -> None:
    def checksum(*arguments: str) -> str:
        [stateful] = of_kind(rendered("keys", *arguments), "StatefulSet")
        return stateful["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum() == checksum("--set", "replicas=1")
    assert len({checksum(), checksum("--set", "config=usage_headers = true"),
                checksum("--set", "prices=")}) == 3  # fmt: skip


def test_the_packaged_chart_renders_the_same(tmp_path: Path) -> None:
    """Rules and dashboards are links in the repository, and files in a package."""
    done = helm("package", CHART, "-d", tmp_path)
    assert done.returncode == 0, done.stderr
    [package] = tmp_path.glob("taximeter-*.tgz")
    again = helm("template", "t", package, "-f", VALUES / "several.yaml")
    assert again.stdout == rendered("several") and again.stderr == ""


# --- secrets --------------------------------------------------------------------------------------------------------


def secret(text: str, name: str, field: str) -> str:
    data = named(text, "Secret", name)["data"]
    value = base64.b64decode(data[field])
    assert base64.b64decode(data["sha256"]).decode() == hashlib.sha256(value).hexdigest()
    return value.decode()


def test_a_token_and_a_key_are_made_once_and_kept() -> None:
    with cluster() as played:
        first = played.rendered("keys")
        token, key = secret(first, "t-taximeter-admin", "token"), secret(first, "t-taximeter-key", "key")
        assert len(token) == 43 and key.startswith("tm-") and len(key) == 46
        assert secret(played.rendered("keys"), "t-taximeter-admin", "token") != token  # not installed: not kept
        played.take(first)
        for arguments in ((), ("--is-upgrade",), ("--set", "replicas=1")):
            again = played.rendered("keys", *arguments)
            assert of_kind(again, "Secret") == of_kind(first, "Secret")
    for one in of_kind(first, "Secret"):
        assert one["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_a_secret_of_0_1_0_is_kept() -> None:
    """Its fields were given as `stringData`, which the API keeps as `data`."""
    with cluster() as played:
        played.keep("t-taximeter-admin", {"token": base64.b64encode(b"from before").decode(), "sha256": ""})
        assert secret(played.rendered("default"), "t-taximeter-admin", "token") == "from before"


def test_a_render_without_a_cluster_is_the_same_each_time() -> None:
    """And so holds no Secret: what was made before cannot be looked up, and another must not take its place."""
    for case in CASES:
        text = rendered(case)
        assert text == made(case)
        assert of_kind(text, "Secret") == []


def test_existing_secrets_are_used_and_none_is_made() -> None:
    with cluster() as played:
        text = played.rendered("several")
        assert of_kind(text, "Secret") == []
    from_secret = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container(text)["env"]
                   if "secretKeyRef" in one.get("valueFrom", {})}  # fmt: skip
    assert from_secret == {
        "TAXIMETER_AUTH__ADMIN_TOKEN_SHA256": {"name": "admin", "key": "sha256"},
        "TAXIMETER_AUTH__KEYS__0__SHA256": {"name": "first-key", "key": "sha256"},
        "TAXIMETER_REDIS__URL": {"name": "redis", "key": "url"},
        "TAXIMETER_HISTORY__URL": {"name": "history", "key": "url"},
        "NODES_SECRET": {"name": "nodes", "key": "secret"},
    }


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("redis.urll = 'x'", "there is no setting redis.urll; known here: embedded_port, split, url"),
        ("[[upstream]]\nname = 'a'\n[[upstream]]\nmodel = ['*']", "there is no setting upstream.model;"),
        ("[[auth.keys]]\nkey = 'tm-1'", "there is no setting auth.keys.key;"),
        ("[upstreams]", "there is no setting upstreams;"),
        ("auth.mode = 'key'", 'auth.mode = "key"; it is one of keys, open'),
        ("auth = 'keys'", "auth is a table, and not keys"),
        ("[auth\nmode = 'keys'", "config: toml: line 2"),
        ("listen = '0.0.0.0:80'", "listen is set by the chart; see its value `service`"),
        ("workers = 4", "workers is set by the chart; see its value `workers`"),
        ("node = 'a'", "node is set by the chart"),
    ],
)
def test_a_mistake_in_the_settings_fails_the_render(toml: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text(toml)
    assert said in refused("--set-file", f"config={file}")


def test_the_annotated_settings_pass_but_for_what_the_chart_sets(tmp_path: Path) -> None:
    """So the chart knows every setting, and refuses none of them by mistake."""
    text = (REPO / "config/taximeter.toml").read_text()
    kept = [line for line in text.splitlines() if line.split(" ")[0] not in
            {"listen", "admin_listen", "data_dir", "workers", "node"}]  # fmt: skip
    (tmp_path / "t.toml").write_text("\n".join(kept))
    assert rendered("default", "--set-file", f"config={tmp_path}/t.toml")


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("replicas=2", "More than one replica needs redis and history"),
        ("autoscaling.enabled=true", "More than one replica needs redis and history"),
        ("redis.url=redis://a,redis.existingSecret=b", "redis"),
        ("ingress.enabled=true", "hosts"),
        ("service.type=ExternalName", "type"),
        ("replica=2", "replica"),
        ("proxyKey.workspace=a b", "workspace"),
    ],
)
def test_a_mistake_in_the_values_fails_the_render(argument: str, said: str) -> None:
    assert said in refused("--set", argument)


def test_several_pods_may_share_what_the_settings_name(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("redis.url = 'redis://r'\nhistory.url = 'postgresql://u@h/d'")
    assert rendered("default", "--set", "replicas=2", "--set-file", f"config={tmp_path}/t.toml")


# --- monitoring -----------------------------------------------------------------------------------------------------


def test_rules_and_dashboards_are_those_of_the_repository() -> None:
    text = rendered("several")
    [rule] = of_kind(text, "PrometheusRule")
    files = [yaml.safe_load((REPO / f"config/prometheus/{name}.yml").read_text()) for name in ("recording", "alerts")]
    assert rule["spec"]["groups"] == [group for file in files for group in file["groups"]]
    [moved] = of_kind(
        rendered("several", "--set", "prometheusRule.runbooks=https://docs.example/m.html"), "PrometheusRule"
    )
    runbooks = [each["annotations"]["runbook_url"] for group in moved["spec"]["groups"] for each in group["rules"]
                if "alert" in each]  # fmt: skip
    assert len(runbooks) > 15 and all(each.startswith("https://docs.example/m.html#") for each in runbooks)
    boards: dict[str, Any] = {}
    for one in of_kind(text, "ConfigMap"):
        if one["metadata"]["labels"].get("grafana_dashboard") == "1":
            boards |= one["data"]
            assert len(json.dumps(one)) < 1_000_000  # a ConfigMap holds 1 MiB
    there = {file.name: json.loads(file.read_text()) for file in (REPO / "config/grafana/dashboards").glob("*.json")}
    assert {name: json.loads(board) for name, board in boards.items()} == there and len(there) >= 4
    assert not of_kind(rendered("default"), "PrometheusRule") and len(of_kind(rendered("default"), "ConfigMap")) == 1


def test_the_alert_that_a_node_is_down_finds_what_the_operator_scrapes() -> None:
    """Prometheus' `job` would be the Service's name, and up{job="taximeter"} would be of nothing."""
    text = rendered("several")
    [monitor] = of_kind(text, "ServiceMonitor")
    selector = monitor["spec"]["selector"]
    [scraped] = [
        one for one in of_kind(text, "Service")
        if selector["matchLabels"].items() <= one["metadata"]["labels"].items()
        and all(each["key"] in one["metadata"]["labels"] for each in selector["matchExpressions"])
    ]  # fmt: skip
    assert scraped["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "taximeter"
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in scraped["spec"]["ports"]}
    assert endpoint["authorization"]["credentials"] == {"name": "admin", "key": "token"}
