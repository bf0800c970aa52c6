"""A short-lived child that compiles the prices: it takes 41 MB and half a second, which nobody else has to.

The file is kept in the data directory and made again only when what it was made of has changed.
"""

from __future__ import annotations

import logging
import os
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from taximeter import __version__
from taximeter.config import Settings
from taximeter.core.errors import TaximeterError
from taximeter.node.audit import AuditLog
from taximeter.node.child import REFUSED, Child
from taximeter.pricebook import compile as compiling
from taximeter.pricebook import compile_prices
from taximeter.pricebook.catalog import FORMAT

log = logging.getLogger("taximeter.prices")


def ensure(settings: Settings, path: Path, node: str = "", *, in_force: bool = True) -> bool:
    """Compile into `path` unless it is current; returns whether it had to. Raises ConfigError.

    `in_force`: these are the prices from now on, and not those of settings that may be refused yet.
    """
    key_file = path.with_name(f"{path.name}.key")
    key = _key(settings)
    if path.is_file() and key_file.is_file() and key_file.read_text() == key:
        return False
    known = key_file.read_text() if path.is_file() and key_file.is_file() else ""
    key_file.unlink(missing_ok=True)
    compile_prices(settings, path)
    key_file.write_text(key)
    if known and in_force:
        note_change(path.parent, node, settings, known, key)
    return True


def note_change(data_dir: Path, node: str, settings: Settings, before: str, after: str) -> None:
    """Write down that another price list is in force. `before`, `after`: their digests."""
    own = compiling.own_file(settings)
    now = {"taximeter": __version__, "genai_prices": version("genai-prices"), "digest": after[:12]}
    target = str(own or "shipped prices")
    AuditLog(data_dir, node=node).note("prices.change", target, before={"digest": before[:12]}, after=now)


def _key(settings: Settings) -> str:
    """Digest of everything the compiled prices depend on."""
    files = [file for file in (compiling.own_file(settings), compiling.shipped_file()) if file]
    environ = [os.environ.get(name, "") for name in (compiling.LLM_INPUT, compiling.LLM_OUTPUT, compiling.EMBEDDING)]
    parts = [__version__, str(FORMAT), version("genai-prices"), *environ]
    listed = [sha256(file.read_bytes()).digest() for file in files]
    return sha256(b"\0".join([*(part.encode() for part in parts), *listed])).hexdigest()


def main() -> None:
    """Run as `python -m taximeter.supervisor.prices` by the supervisor."""
    child = Child("prices")
    boot = child.wait()
    try:
        ensure(boot.settings, Path(boot.prices_file), boot.node, in_force=not child.slot.hold)
    except (TaximeterError, OSError) as error:
        log.critical("The prices cannot be used: %s", error)
        child.answer(REFUSED, f"The prices cannot be used: {error}")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
