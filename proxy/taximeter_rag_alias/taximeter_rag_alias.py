"""`lightrag.api.token_tracking` is `taximeter_rag.lightrag`, for code that imports it by that name.

Imported at Python's start, so it imports next to nothing itself; the real module is imported when the name is. Then it
is activated too, because code of that name knows no activation, and LightRAG up to 1.5.4 needs it before one is made.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

NAME = "lightrag.api.token_tracking"


class Alias:
    """Finds and loads one module; asked last, so a real one of that name is stronger."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, Alias()) if name == NAME else None  # type: ignore[arg-type]  # a loader by what it has

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """An ordinary module."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        import contextlib

        from taximeter_rag import lightrag

        module.__doc__ = lightrag.__doc__
        vars(module).update({name: getattr(lightrag, name) for name in lightrag.__all__}, __all__=lightrag.__all__)
        with contextlib.suppress(ValueError):  # a setting that cannot be: who makes a wrapper is told
            lightrag.activate()


if not any(isinstance(finder, Alias) for finder in sys.meta_path):
    sys.meta_path.append(Alias())
