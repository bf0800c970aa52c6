"""The control plane's Litestar application, put together from what it is given; it keeps no state of its own."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, Response, Router
from litestar.datastructures import ResponseHeader
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from taximeter import __version__
from taximeter.alerts.api import AlertAdmin
from taximeter.billing.api import BillingAdmin
from taximeter.breaker.api import BreakerAdmin
from taximeter.budgets.api import BudgetAdmin
from taximeter.control.answers.encoding import HANDLERS, Json, unknown
from taximeter.control.answers.openapi import Money, describe
from taximeter.control.api import node
from taximeter.control.api.analytics import Analytics
from taximeter.control.api.audit import AuditAdmin
from taximeter.control.api.corrections import reprice_period
from taximeter.control.api.deadletters import DeadLetterAdmin
from taximeter.control.api.evidence import Evidence
from taximeter.control.api.focus import FocusExport
from taximeter.control.api.grouped import ManyGroups
from taximeter.control.api.letters import LetterAdmin
from taximeter.control.api.organization import Organization
from taximeter.control.api.organizations import Organizations
from taximeter.control.api.owed import owed
from taximeter.control.api.parameters import Brackets, usage_parameters
from taximeter.control.api.rebuild import rebuild_redis
from taximeter.control.api.spend_limits import SpendLimits
from taximeter.control.api.streams import Streams
from taximeter.control.api.usage import Requests, Usage
from taximeter.control.dashboard import PAGES, unknown_page
from taximeter.control.door.access import anyone_known
from taximeter.control.door.gate import Gate
from taximeter.control.services.services import Services
from taximeter.keys.api import KeyAdmin
from taximeter.reconcile.api import ReconcileAdmin

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
            ManyGroups,
            Streams,
            FocusExport,
            Organization,
            Organizations,
            SpendLimits,
            KeyAdmin,
            BudgetAdmin,
            BillingAdmin,
            AlertAdmin,
            BreakerAdmin,
            ReconcileAdmin,
            LetterAdmin,
            DeadLetterAdmin,
            owed,
            AuditAdmin,
            Evidence,
            reprice_period,
            rebuild_redis,
            *node.HANDLERS,
            *PAGES,
        ],
        dependencies={"services": Provide(provide), "asked": Provide(usage_parameters)},
        middleware=[
            Gate(services.hosts, services.door),
            Brackets(),
        ],
        exception_handlers={**HANDLERS, NotFoundException: _nowhere},
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


def _nowhere(request: Request[Any, Any, Any], error: NotFoundException) -> Response[Any]:
    """A path that is none: a page for browsers, else as every error."""
    return unknown_page(request, error) or unknown(request, error)


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
