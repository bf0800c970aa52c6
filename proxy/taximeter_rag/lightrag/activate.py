"""Sets the hooks, once a process, and says in the log what they cover."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from taximeter_rag import clients
from taximeter_rag.lightrag import pipeline, settings
from taximeter_rag.lightrag.dispatch import Dispatcher
from taximeter_rag.lightrag.plugin import Plugin, logger
from taximeter_rag.lightrag.server import Server
from taximeter_rag.middleware import App
from taximeter_rag.reader import ReadError

SERVER = "lightrag.api.lightrag_server"


class Active:
    """What was activated in this process."""

    plugin: Plugin | None = None
    server_hooked = False
    unclaimed: Any = None
    """The application that is being created and has no LightRAG yet."""
    first: Any = None
    """The server's own application; others are its workspaces'."""


def activate(asked: settings.Settings | None = None) -> Plugin | None:
    """Hook the clients and LightRAG; None where no proxy is configured. A second call changes nothing.

    Raises ValueError for settings that cannot be.
    """
    if Active.plugin is not None:
        return Active.plugin
    asked = asked or settings.read(os.environ)
    if not asked.proxy_url:
        logger.warning("taximeter-rag: TAXIMETER_PROXY_URL is not set: nothing is metered")
        return None
    plugin = Plugin(asked)
    hooks = clients.install(asked.proxy_url, key=asked.key)
    Active.plugin = plugin  # not before: one whose calls are not tagged would find nothing used
    logger.info(
        "taximeter-rag: calls to %s are tagged (%s), figures come from %s",
        asked.proxy_url,
        ", ".join(hooks.names) or "no client library found",
        asked.control_url,
    )
    _attach(plugin)
    return plugin


def _attach(plugin: Plugin) -> None:
    misfits = pipeline.attach(plugin, _claim)
    if misfits:
        import lightrag

        logger.warning(
            "taximeter-rag: LightRAG %s lacks %s: documents are not told apart, only workspaces and queries",
            getattr(lightrag, "__version__", "?"),
            "; ".join(misfits),
        )


def register() -> None:
    """The entry point in `lightrag.parsers`: LightRAG's server runs it as it begins to create its application.

    Raises SystemExit with TAXIMETER_STRICT where something would not be metered. Otherwise a setting that cannot be is
    a line in the log, and every answer says that, and why, it has no figures.
    """
    from lightrag.api.config import global_args

    try:
        strict = settings.strict(os.environ)
        plugin = activate()
    except ValueError as error:
        if settings.may_be_strict(os.environ):
            raise SystemExit(f"taximeter-rag: {error}") from None
        logger.error("taximeter-rag: %s: nothing is metered", error)
        plugin, strict = _faulty(str(error)), False
    if plugin is None:
        if strict:
            raise SystemExit("taximeter-rag: TAXIMETER_STRICT is set and TAXIMETER_PROXY_URL is not")
        return
    if not plugin.fault:
        _point(plugin, global_args, strict=strict)
    hook_server()


def _faulty(fault: str) -> Plugin:
    """A plugin that meters nothing, and says so in every answer."""
    if Active.plugin is None:
        Active.plugin = Plugin(settings.Settings(""), fault)
        _attach(Active.plugin)
    return Active.plugin


def _point(plugin: Plugin, args: Any, *, strict: bool) -> None:
    def upstreams() -> Mapping[str, str]:
        try:
            return plugin.reader.upstreams()
        except ReadError as error:
            logger.warning("taximeter-rag: TAXIMETER_POINT=always: %s", error)
            return {}

    missed = settings.point(args, plugin.settings, os.environ, upstreams)
    if missed and strict:
        raise SystemExit(f"taximeter-rag: TAXIMETER_STRICT is set: {'; '.join(each.text for each in missed)}")
    for each in missed:
        logger.warning("taximeter-rag: %s", each.text)
        plugin.missed.setdefault(each.kind, each.host)


def hook_server() -> None:
    """Let the server's applications be made with our layer around them. `python -m` runs it as `__main__`."""
    plugin = Active.plugin
    if Active.server_hooked or plugin is None:
        return
    modules = [_module(name) for name in (SERVER, "__main__")]
    for module in modules:
        if module is not None:
            module.FastAPI = _metered(module.FastAPI, plugin, module)
            Active.server_hooked = True
    if not Active.server_hooked:
        logger.warning("taximeter-rag: LightRAG's server is not where it was: answers show no usage")


def _module(name: str) -> Any:
    """The server's module under this name, if it is what it was when the hooks were written."""
    module = sys.modules.get(name)
    fits = all(hasattr(module, needed) for needed in ("FastAPI", "create_app", "finalize_share_data", "global_args"))
    return module if fits and hasattr(module.FastAPI, "build_middleware_stack") else None  # type: ignore[union-attr]


def _metered(fastapi: Any, plugin: Plugin, module: Any) -> Any:
    class MeteredFastAPI(fastapi):  # type: ignore[misc]
        """FastAPI with our layer outermost."""

        taximeter_rag: Any = None

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            Active.unclaimed = self
            if Active.first is None:
                Active.first = self

        def build_middleware_stack(self) -> App:
            stack: App = super().build_middleware_stack()
            dispatcher = _dispatcher(stack, plugin, module, self) if self is Active.first else None
            return Server(stack, plugin, lambda: self.taximeter_rag, dispatcher)

    return MeteredFastAPI


def _claim(rag: Any) -> None:
    """A LightRAG was made: it belongs to the application that is being created."""
    if Active.unclaimed is not None:
        Active.unclaimed.taximeter_rag, Active.unclaimed = rag, None


def _dispatcher(stack: App, plugin: Plugin, module: Any, app: Any) -> Dispatcher | None:
    asked = plugin.settings
    if not asked.max_workspaces:
        return None
    if "LIGHTRAG_GUNICORN_MODE" in os.environ:
        logger.warning("taximeter-rag: TAXIMETER_WORKSPACES needs one process: not under gunicorn, ignored")
        return None

    def make(workspace: str) -> App:
        args = argparse.Namespace(**vars(module.global_args))
        args.workspace = workspace
        made: App = module.create_app(args)
        return made

    @contextlib.contextmanager
    def hush() -> Iterator[None]:
        """LightRAG's lifespan ends what all its instances share: only the last may."""
        kept, module.finalize_share_data = module.finalize_share_data, lambda: None
        try:
            yield
        finally:
            module.finalize_share_data = kept

    return Dispatcher(asked, stack, lambda: getattr(app.taximeter_rag, "workspace", None), make, hush)
