"""Bugs sown on purpose: does the simulation find them?

Each is one change of one function's text, or of a script's, made as the program runs. One whose text is no longer there
is an error: the list follows the product.
"""

from __future__ import annotations
import __future__

import contextlib
import hashlib
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from simulation.sown.mutant import Mutant
from taximeter.sinks.redis.client import Script


@contextlib.contextmanager
def sown(mutant: Mutant) -> Iterator[None]:
    """The product with this bug, for the length of a block. Raises LookupError where its text is not there."""
    path, _, name = mutant.where.partition(":")
    module = importlib.import_module(f"taximeter.{path}")
    owner: Any = module
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    found = owner.__dict__[last]
    if isinstance(found, Script):
        with _script(found, mutant):
            yield
        return
    other = _changed(module, found, last, mutant)
    places = [(owner, last)]
    if not outer:  # whoever imported it by name has it, too
        places = [
            (each, attribute)
            for each_name, each in list(sys.modules.items())
            if each_name.startswith(("taximeter", "simulation"))
            for attribute, value in list(vars(each).items())
            if value is found
        ]
    for place, attribute in places:
        setattr(place, attribute, other)
    try:
        yield
    finally:
        for place, attribute in places:
            setattr(place, attribute, found)


def _changed(module: Any, function: Any, name: str, mutant: Mutant) -> Any:
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(mutant.text) == 0:
        raise LookupError(f"{mutant.where} has no {mutant.text!r} any more: {mutant.name}")
    code = compile(
        source.replace(mutant.text, mutant.instead), f"<{mutant.name}>", "exec", __future__.annotations.compiler_flag
    )
    made: dict[str, Any] = {}
    exec(code, vars(module), made)
    return made[name]


@contextlib.contextmanager
def _script(script: Script, mutant: Mutant) -> Iterator[None]:
    before = script.source, script.sha
    text, instead = mutant.text.encode(), mutant.instead.encode()
    if text not in script.source:
        raise LookupError(f"{mutant.where} has no {mutant.text!r} any more: {mutant.name}")
    script.source = script.source.replace(text, instead)
    script.sha = hashlib.sha1(script.source, usedforsecurity=False).hexdigest()
    try:
        yield
    finally:
        script.source, script.sha = before
