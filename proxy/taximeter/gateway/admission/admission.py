"""Who may call: proxy keys and their workspaces, hard budgets, breakers, the Host and Origin guard of the data port.

Pure look-ups in memory; a call that needs no budget waits for nothing here.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

from taximeter.breaker.rule import Trips
from taximeter.core.errors import Unauthorized
from taximeter.core.hosts import Hosts
from taximeter.keys.rule import PREFIX, Keys, ProxyKey, bearer

if TYPE_CHECKING:
    from taximeter.budgets.charges import Held
    from taximeter.budgets.rule import Budget
    from taximeter.core.record import Open
    from taximeter.flavors.meter import Flavor, Prepared
    from taximeter.gateway.admission.budget import BudgetGate
    from taximeter.gateway.bounds.readable import Headers

KEY_HEADER = b"x-taximeter-key"
"""For clients whose Authorization is the provider's own and is passed on."""
CREDENTIAL_HEADERS = (KEY_HEADER, b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
"""Where a proxy key may stand, in the order in which they are looked at."""

_PREFIX = PREFIX.encode()


class Admission:
    """The gate of one worker. `keys` may be replaced at any time; the next request sees the new ones."""

    def __init__(self, keys: Keys, hosts: Hosts, *, required: bool, budgets: BudgetGate | None = None) -> None:
        """`required`: every call needs a proxy key (`auth.mode = "keys"`)."""
        self.keys = keys
        self.hosts = hosts
        self.required = required
        self.budgets = budgets
        self.limited: Container[str] = () if budgets is None else budgets.limited()
        """Workspaces with a hard budget or a rate: a call of any other waits for nothing here."""
        self.watched = self.limited
        """Those, and workspaces in which a breaker has stopped something: one look-up for all."""
        self.stopped = Trips()

    def use_budgets(self, budgets: Sequence[Budget]) -> None:
        """These hold from now on."""
        if self.budgets is not None:
            self.budgets.use(budgets)
            self.limited = self.budgets.limited()
            self.use_trips(self.stopped)

    def use_trips(self, trips: Trips) -> None:
        """These stop calls from now on."""
        self.stopped = trips
        self.watched = trips.workspaces if self.budgets is None else self.budgets.limited(trips.workspaces)

    async def hold(
        self, opening: Open, flavor: Flavor, prepared: Prepared, tokenizer: str, headers: Headers
    ) -> Held | None:
        """See BudgetGate.hold."""
        if self.budgets is None:
            return None
        return await self.budgets.hold(opening, flavor, prepared, tokenizer, headers)

    def let_go(self, opening: Open) -> None:
        """See BudgetGate.let_go."""
        if self.budgets is not None:
            self.budgets.let_go(opening)

    def key_of(self, head: Mapping[bytes, bytes]) -> ProxyKey | None:
        """The proxy key a call presents, None where it presents none and needs none. Raises Unauthorized."""
        secret = presented(head)
        if secret is None:
            if self.required:
                raise Unauthorized(
                    "A proxy key is required: send it as 'Authorization: Bearer tm-…' or in 'X-Taximeter-Key'."
                )
            return None
        key = self.keys.find(secret)
        if key is None:
            raise Unauthorized(self.keys.why_not(secret))
        return key


def presented(head: Mapping[bytes, bytes]) -> bytes | None:
    """The proxy key in a request's head (`tm-…`), wherever it stands."""
    for name in CREDENTIAL_HEADERS:
        value = head.get(name)
        if value is None or _PREFIX not in value:
            continue
        secret = bearer(value) if name == b"authorization" else value
        if secret is not None and secret.startswith(_PREFIX):
            return secret
    return None
