"""Makes a site of the documentation, in site/; what `make docs` calls.

    python scripts/docs.py            # install the generator (its own environment and lock), gather the pages, build
    python scripts/docs.py --serve    # and show the site at 127.0.0.1:8090

The pages stay plain Markdown where they are, with links that work in the repository. Here they are gathered in .docs/,
the root's documents beside those of docs/, and links between them are written for their new places. A link or an anchor
that leads nowhere fails the build, as does a page that would load something from another host: the site works offline.
Standard library only.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from install import ROOT

VENV = ROOT / ".venv-docs"
LOCK = ROOT / "requirements-docs.lock"
GATHERED = ROOT / ".docs"
SITE = ROOT / "site"
PORT = 8090

MOVED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Pages of the root, and what they are called in the site."""
FILES = ("LICENSE", "Dockerfile", "compose.yaml", "config/taximeter.toml", "config/prices.toml")
"""What pages link to besides pages; taken along as it is."""

LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]+)?\)")
LOADED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)[^>]*>""")
FONT = re.compile(r"""url\(["']?((?:https?:)?//[^"')]+)""")


class Broken(Exception):
    """What is wrong with the documentation, one line each."""


def main() -> None:
    """Install, gather, build, look."""
    parser = argparse.ArgumentParser(description="Make a site of the documentation.")
    parser.add_argument("--serve", action="store_true", help=f"show it at 127.0.0.1:{PORT} until interrupted")
    asked = parser.parse_args()
    install = [sys.executable, str(ROOT / "scripts/install.py"), "--venv", str(VENV), "--lock", str(LOCK)]
    subprocess.run(install, check=True)
    try:
        gather(ROOT, GATHERED)
        build()
        look(SITE)
    except Broken as error:
        sys.exit(f"docs: {error}")
    print(f"docs: {sum(1 for _ in SITE.rglob('*.html'))} pages in {SITE.relative_to(ROOT)}/")
    if asked.serve:
        serve()


def gather(root: Path, to: Path) -> None:
    """Every page and file of `root` to its place in `to`. Raises Broken where a link leads to nothing gathered."""
    places = placed(root)
    shutil.rmtree(to, ignore_errors=True)
    wrong = []
    for source, place in places.items():
        target = to / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            text, missing = moved(root, source, places)
            target.write_text(text, encoding="utf-8")
            wrong += [f"{source}: {link} is no page of the site, nor in FILES of scripts/docs.py" for link in missing]
        else:
            shutil.copyfile(root / source, target)
    if wrong:
        raise Broken("\n      ".join(wrong))


def placed(root: Path) -> dict[str, str]:
    """Path in the repository -> path in the site, of all that is taken along."""
    pages = [str(each.relative_to(root)) for each in sorted((root / "docs").rglob("*")) if each.is_file()]
    return {**MOVED, **{page: page.removeprefix("docs/") for page in pages}, **{file: file for file in FILES}}


def moved(root: Path, source: str, places: dict[str, str]) -> tuple[str, list[str]]:
    """A page with its links as they are in the site, and those that lead to nothing in it."""
    missing: list[str] = []

    def link(found: re.Match[str]) -> str:
        target = os.path.relpath((root / source).parent / found[1], root)
        if target not in places:
            missing.append(found[1])
            return found[0]
        return f"]({os.path.relpath(places[target], Path(places[source]).parent)}{found[2] or ''})"

    return LINK.sub(link, (root / source).read_text(encoding="utf-8")), missing


def build() -> None:
    """From zensical.toml, strictly. Raises Broken; its own lines say why."""
    shutil.rmtree(SITE, ignore_errors=True)
    if subprocess.run([str(VENV / "bin/zensical"), "build", "--clean", "--strict"], cwd=ROOT, check=False).returncode:
        raise Broken("the site could not be built; the lines above say why")


def look(site: Path) -> None:
    """Raises Broken where a page would load a script, a style, a font or a picture from another host."""
    found = {
        f"{page.relative_to(site)} loads {url}" for page in site.rglob("*.html") for url in loads(page.read_text())
    }
    for style in site.rglob("*.css"):
        found |= {f"{style.relative_to(site)} loads {url}" for url in FONT.findall(style.read_text())}
    if found:
        raise Broken("\n      ".join(sorted(found)))


def loads(page: str) -> list[str]:
    """What an HTML page takes from other hosts. A canonical address and the like are told, not loaded."""
    told = ('rel="canonical"', "rel=canonical")
    return [found[1] for found in LOADED.finditer(page) if not any(each in found[0] for each in told)]


def serve() -> None:
    """Until interrupted."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", PORT), handler) as server:
        print(f"docs: http://127.0.0.1:{PORT}/, ctrl-c ends", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
