"""The control plane's Litestar application, put together from what it is given; it keeps no state of its own."""

from __future__ import annotations

from litestar import Litestar, Router
from litestar.datastructures import ResponseHeader
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from taximeter import __version__
from taximeter.control import node
from taximeter.control.access import anyone_known
from taximeter.control.analytics import Analytics
from taximeter.control.answers import HANDLERS, Json
from taximeter.control.budgets import BudgetAdmin
from taximeter.control.corrections import reprice_period
from taximeter.control.dashboard import PAGES
from taximeter.control.deadletters import DeadLetterAdmin
from taximeter.control.described import Money, describe
from taximeter.control.gate import Gate
from taximeter.control.keys import KeyAdmin
from taximeter.control.letters import LetterAdmin
from taximeter.control.organization import Organization
from taximeter.control.ports import Services
from taximeter.control.questions import Brackets, question
from taximeter.control.rebuild import rebuild_redis
from taximeter.control.streams import Streams
from taximeter.control.usage import Requests, Usage

BODY_BYTES = 64 * 1024
"""Largest request body: a key or a budget is a few hundred bytes."""

_HEADERS = (
    ResponseHeader(name="cache-control", value="no-store"),  # figures move, and are not for shared caches
    ResponseHeader(name="x-content-type-options", value="nosniff"),
)


def create(services: Services) -> Litestar:
    """The application. It starts and stops nothing: who built the services runs and closes them."""

    in_turn = services.in_turn()

    async def provide() -> Services:
        return in_turn

    app = Litestar(
        route_handlers=[
            Usage,
            Requests,
            Analytics,
            Streams,
            Organization,
            KeyAdmin,
            BudgetAdmin,
            LetterAdmin,
            DeadLetterAdmin,
            reprice_period,
            rebuild_redis,
            *node.HANDLERS,
            *PAGES,
        ],
        dependencies={"services": Provide(provide), "asked": Provide(question)},
        middleware=[
            Gate(services.hosts, services.door),
            Brackets(),
        ],
        exception_handlers=HANDLERS,
        response_class=Json,
        response_headers=_HEADERS,
        openapi_config=_schema(),
        request_max_body_size=BODY_BYTES,
        logging_config=None,
        debug=False,
        signature_types=[Services],
        plugins=[Money()],
    )
    describe(app)
    return app


def _schema() -> OpenAPIConfig:
    """OpenAPI at /schema, as JSON and YAML: pages that load scripts from elsewhere would need a network."""
    return OpenAPIConfig(
        title="Taximeter control API",
        version=__version__,
        description="Usage and cost by workspace, track, document, task and model; keys; the node's state.",
        path="/schema",
        render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"]), YamlRenderPlugin()],
        openapi_router=Router("/schema", route_handlers=[], guards=[anyone_known], include_in_schema=False),
        components=Components(
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer", description="Admin token or key.")}
        ),
        security=[{"bearer": []}],
        use_handler_docstrings=True,
    )
