"""`lightrag.api.token_tracking` is `taximeter_rag.lightrag`, for code that imports it by that name.

Imported at Python's start, so it imports next to nothing itself; the real module is imported when the name is.
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
        from taximeter_rag import lightrag

        module.__doc__ = lightrag.__doc__
        vars(module).update({name: getattr(lightrag, name) for name in lightrag.__all__}, __all__=lightrag.__all__)


if not any(isinstance(finder, Alias) for finder in sys.meta_path):
    sys.meta_path.append(Alias())
