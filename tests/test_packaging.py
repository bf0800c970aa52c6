"""What is shipped beside the code: the image, the chart and the documents say what the code does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from install.checkout import checkout
from install.conftest import pins
from taximeter import __version__, config
from taximeter.cli import VERBS
from taximeter.config import checks

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm/taximeter"
TEMPLATES = sorted(file for file in (CHART / "templates").rglob("*") if file.is_file())
FREE_FORM = (".resources", ".dashboards.labels", ".dashboards.annotations")
"""Tables of the chart's values whose keys are not the chart's."""


def values() -> dict[str, Any]:
    return yaml.safe_load((CHART / "values.yaml").read_text())


def schema() -> dict[str, Any]:
    return json.loads((CHART / "values.schema.json").read_text())


def names(tree: Any, path: str = "") -> set[str]:
    """Every path of a value, tables that are free-form not looked into."""
    if not isinstance(tree, dict) or not tree or path in FREE_FORM:
        return {path}
    return {name for key, value in tree.items() for name in names(value, f"{path}.{key}")}


def declared(part: dict[str, Any], path: str = "") -> set[str]:
    """The same of the schema."""
    if "$ref" in part:
        part = schema()["definitions"][part["$ref"].rsplit("/", 1)[1]]
    if "properties" not in part:
        return {path}
    return {name for key, value in part["properties"].items() for name in declared(value, f"{path}.{key}")}


def test_the_charts_schema_declares_each_value_and_no_other() -> None:
    assert declared(schema()) - {".global"} == names(values())


def test_the_templates_use_values_that_exist() -> None:
    used = {name for file in TEMPLATES for name in re.findall(r"\.Values((?:\.\w+)+)", file.read_text())}
    known = names(values())
    assert used
    assert [name for name in used if not any(name == one or one.startswith(f"{name}.") for one in known)] == []


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_a_templates_blocks_are_closed(file: Path) -> None:
    text = file.read_text()
    assert text.count("{{") == text.count("}}")
    opened = re.findall(r"\{\{-?\s*(?:if|with|range|define)\b", text)
    assert len(opened) == len(re.findall(r"\{\{-?\s*end\s*-?\}\}", text))


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["appVersion"], chart["apiVersion"], chart["name"]) == (__version__, "v2", "taximeter")


def test_the_charts_settings_are_settings(tmp_path: Path) -> None:
    """Variables as the templates set them, and its settings file; tests/deploy has helm render all of it."""
    text = (CHART / "templates/_helpers.tpl").read_text()
    told = {
        "TAXIMETER_LISTEN": "0.0.0.0:8000",
        "TAXIMETER_ADMIN_LISTEN": "0.0.0.0:8001",
        "TAXIMETER_DATA_DIR": "/data",
        "TAXIMETER_WORKERS": str(values()["workers"]),
        "TAXIMETER_NODE": "taximeter-0",
        "TAXIMETER_CONTROL__ALLOWED_HOSTS": '["taximeter","taximeter.default"]',
        "TAXIMETER_AUTH__ADMIN_TOKEN_SHA256": "ab" * 32,
        "TAXIMETER_AUTH__MODE": "keys",
        "TAXIMETER_AUTH__KEYS__0__ID": "first",
        "TAXIMETER_AUTH__KEYS__0__WORKSPACE": "default",
        "TAXIMETER_AUTH__KEYS__0__SHA256": "cd" * 32,
        "TAXIMETER_PRICES_FILE": str(ROOT / "config/prices.toml"),
        "TAXIMETER_REDIS__URL": "redis://redis:6379/0",
        "TAXIMETER_HISTORY__URL": "postgresql://taximeter@postgres/taximeter",
    }
    for template, written in (("{{ $number }}", ("0",)), ("{{ $name }}", ("REDIS", "HISTORY"))):
        text = "".join(text.replace(template, one) for one in written)
    assert set(re.findall(r"- name: (TAXIMETER_\w+)", text)) == told.keys()
    file = tmp_path / "taximeter.toml"
    file.write_text(values()["config"])
    settings = config.load(file, told)
    checks.before_serving(settings, {})


def test_the_chart_knows_the_settings_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """If not: `make reference`."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from reference.chart import chart_settings

    assert (CHART / "files/settings.json").read_text() == chart_settings()


def test_the_images_variables_are_settings() -> None:
    text = (ROOT / "Dockerfile").read_text()
    told = dict(re.findall(r"(TAXIMETER_\w+)=(\S+)", text))
    settings = config.load(ROOT / "config/taximeter.toml", told)
    assert (settings.listen, settings.data_dir) == ("0.0.0.0:8000", "/data")
    checks.before_serving(settings, {})


def test_the_image_copies_only_what_there_is_and_what_its_build_is_given() -> None:
    ignored = (ROOT / ".dockerignore").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            path = source.removeprefix("./")
            assert {f"!{path}", f"!{path.split('/')[0]}"} & set(ignored.splitlines()), source


def test_each_extra_has_a_lock_for_the_image_that_agrees_with_the_others() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    run, dev = (pins(ROOT / f"requirements{name}.lock") for name in ("", "-dev"))
    assert set(told) == {"otel", "parquet", "pdf", "s3"}
    for extra, wanted in told.items():
        assert f" requirements-{extra}.lock" in dockerfile
        locked = pins(ROOT / f"requirements-{extra}.lock")
        assert run.items() < locked.items() <= dev.items()
        assert {re.split("[>=<]", one)[0] for one in wanted} <= locked.keys()


def test_every_setting_is_in_the_operations_guide_or_the_annotated_file() -> None:
    told = (ROOT / "config/taximeter.toml").read_text() + (ROOT / "docs/operations.md").read_text()
    for section in (config.Settings, *[kind for kind in vars(config).values() if _is_section(kind)]):
        for name in section.__struct_fields__:
            assert re.search(rf"\b{name}\b", told), f"{section.__name__}.{name}"


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, config.Section) and kind is not config.Section


def test_every_verb_is_in_the_operations_guide() -> None:
    told = (ROOT / "docs/operations.md").read_text()
    assert [verb for verb in VERBS if f"`{verb}`" not in told and f"taximeter {verb}" not in told] == []


def test_links_between_the_documents_lead_somewhere() -> None:
    for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name} -> {target}"


def test_the_ci_script_is_bash_that_parses() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci/run")], check=True)
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_hosted_ci_does_what_the_script_does_and_nothing_else() -> None:
    told = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert set(told[True]) == {"push", "pull_request"}  # YAML 1.1 reads `on` as true
    [job] = told["jobs"].values()
    assert job["runs-on"].startswith("ubuntu-")
    assert [step.get("run", step.get("uses", "").partition("@")[0]) for step in job["steps"]] == [
        "actions/checkout",
        "sudo .ci/run",
    ]


def test_hooks_before_a_commit_are_the_checks_with_the_locked_tools() -> None:
    """No repository of hooks, so nothing is fetched; and no tool that `make check` does not run."""
    [repo] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
    entries = {hook["entry"].removesuffix(" --force-exclude") for hook in repo["hooks"]}
    makefile = (ROOT / "Makefile").read_text().replace("$(BIN)", ".venv/bin")
    checks = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert checks
    assert entries == {re.sub(r" proxy tests .*", "", line.strip()) for line in checks[1].splitlines()}


PROJECTS = (".", "proxy/taximeter_rag")


def built(sources: Path, into: Path, *, umask: int, **environ: str) -> dict[str, bytes]:
    """Name -> bytes of every distribution of a checkout, as `make dist` builds them."""
    for project in PROJECTS:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(into)]
        subprocess.run(
            build, cwd=sources / project, check=True, capture_output=True, umask=umask,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1795348800", **environ},
        )  # fmt: skip
    return {file.name: file.read_bytes() for file in into.iterdir()}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return built(checkout(tmp_path_factory.mktemp("one")), tmp_path_factory.mktemp("dist"), umask=0o022)


def test_whoever_builds_a_release_wherever_gets_the_same_bytes(distributions: dict[str, bytes], tmp_path: Path) -> None:
    """In another folder, with other times and modes of the files, another umask, zone, language and hash seed."""
    (tmp_path / "another place").mkdir()
    sources = checkout(tmp_path / "another place")
    for number, file in enumerate(sorted(sources.rglob("*"), reverse=True)):
        os.utime(file, (1_000_000_000 + number, 1_000_000_000 + number))
        if file.is_file():
            file.chmod(file.stat().st_mode & 0o700)
    other = {"TZ": "Pacific/Apia", "LC_ALL": "C", "PYTHONHASHSEED": "7", "HOME": str(tmp_path), "USER": "other"}
    again = built(sources, tmp_path / "dist", umask=0o077, **other)
    assert len(distributions) == 4 and again.keys() == distributions.keys()
    assert [name for name in again if again[name] != distributions[name]] == []


def test_a_wheel_holds_its_package_and_nothing_that_runs_by_itself(
    distributions: dict[str, bytes], tmp_path: Path
) -> None:
    """No `.pth`, which Python runs at every start, nothing compiled, nothing beside the package."""
    for name, content in distributions.items():
        if not name.endswith(".whl"):
            continue
        package = name.split("-")[0]
        (tmp_path / name).write_bytes(content)
        files = zipfile.ZipFile(tmp_path / name).namelist()
        told = package, f"{package}-{__version__}.dist-info"
        assert len(files) > 5 and [file for file in files if file.split("/")[0] not in told] == []
        kinds = {Path(file).suffix for file in files if file.startswith(f"{package}/")}
        assert kinds <= {".py", ".typed", ".toml", ".lua", ".css", ".js", ".html", ".svg", ".json", ".woff2"}, kinds
