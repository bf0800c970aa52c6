"""The chart, rendered by the real helm: without a cluster, or with a stand-in for its API to look things up in."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.tools import BRINGS, HELM, KUBERNETES_VALIDATE, REPO

CHART = REPO / "helm/taximeter"
VALUES = Path(__file__).parent / "values"
CASES = ("default", "keys", "several")
Manifest = dict[str, Any]
KINDS = {
    "v1": ["ConfigMap", "Pod", "Secret", "Service"],
    "apiregistration.k8s.io/v1": ["APIService"],
    "apps/v1": ["StatefulSet"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "monitoring.coreos.com/v1": ["PrometheusRule", "ServiceMonitor"],
    "networking.k8s.io/v1": ["Ingress", "NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
}
"""What the cluster serves."""

with_helm = pytest.mark.skipif(not HELM.exists(), reason=f"helm is not there; {BRINGS}")
with_schemas = pytest.mark.skipif(
    not KUBERNETES_VALIDATE.exists(), reason=f"kubernetes-validate is not there; {BRINGS}"
)


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HELM), *map(str, arguments)], capture_output=True, text=True, check=False)


@cache
def rendered(case: str, *arguments: str) -> str:
    """What helm makes of `values/<case>.yaml`, as it prints it; of the same arguments once."""
    return made(case, *arguments)


def made(case: str, *arguments: str) -> str:
    """The same, anew."""
    done = helm("template", "t", CHART, "-f", VALUES / f"{case}.yaml", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*arguments: str) -> str:
    """Why helm does not render the chart with these arguments."""
    done = helm("template", "t", CHART, *arguments)
    assert done.returncode != 0, done.stdout
    return done.stderr


def manifests(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(text: str, kind: str) -> list[Manifest]:
    return [document for document in manifests(text) if document["kind"] == kind]


def named(text: str, kind: str, name: str) -> Manifest:
    [found] = [document for document in of_kind(text, kind) if document["metadata"]["name"] == name]
    return found


def pod(text: str) -> Manifest:
    """The pods' specification."""
    [found] = of_kind(text, "StatefulSet")
    return found["spec"]["template"]["spec"]


def container(text: str) -> Manifest:
    return pod(text)["containers"][0]


class Cluster:
    """As much of a cluster's API as helm asks for when it renders: its kinds, and Secrets."""

    def __init__(self) -> None:
        self.secrets: dict[str, Manifest] = {}
        self.url = ""

    def answer(self, path: str) -> tuple[int, Manifest]:
        groups = [
            {"name": one.partition("/")[0], "versions": [version], "preferredVersion": version}
            for one in KINDS if "/" in one
            for version in [{"groupVersion": one, "version": one.partition("/")[2]}]
        ]  # fmt: skip
        known: dict[str, Manifest] = {
            "/version": {"major": "1", "minor": "35", "gitVersion": "v1.35.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "groups": groups},
        }
        for version, kinds in KINDS.items():
            resources = [
                {"name": f"{kind.lower()}s", "singularName": kind.lower(), "namespaced": True, "kind": kind,
                 "verbs": ["get"]}
                for kind in kinds
            ]  # fmt: skip
            where = f"/apis/{version}" if "/" in version else f"/api/{version}"
            known[where] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        if path in known:
            return 200, known[path]
        kept = self.secrets.get(path.removeprefix("/api/v1/namespaces/default/secrets/"))
        if kept:
            return 200, kept
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    def rendered(self, case: str, *arguments: str) -> str:
        """With look-ups here; helm's own validation, which needs a cluster's whole OpenAPI document, is off."""
        there = ("--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", self.url)
        return made(case, *there, *arguments)

    def take(self, text: str) -> None:
        """Its Secrets are installed, as helm marks what a release has installed."""
        for document in of_kind(text, "Secret"):
            self.keep(document["metadata"]["name"], document["data"])

    def keep(self, name: str, data: dict[str, str]) -> None:
        owner = {"meta.helm.sh/release-name": "t", "meta.helm.sh/release-namespace": "default"}
        labels = {"app.kubernetes.io/managed-by": "Helm"}
        metadata = {"name": name, "namespace": "default", "annotations": owner, "labels": labels}
        self.secrets[name] = {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": data}


@contextmanager
def cluster() -> Iterator[Cluster]:
    played = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, answer = played.answer(self.path.partition("?")[0])
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    played.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield played
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
