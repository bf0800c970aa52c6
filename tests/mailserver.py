"""A mail server for tests, on a real socket: with STARTTLS, login, TLS, or down, as told; it keeps what it got."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "taximeter", "s3cret"


class Silent(asyncio.Protocol):
    """Takes a connection, and says nothing."""

    def __init__(self, opened: set[asyncio.BaseTransport]) -> None:
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opened.add(transport)


class Conversation(SMTP):
    """One whose connection is closed with the server."""

    def __init__(self, opened: set[asyncio.BaseTransport], *args: Any, **options: Any) -> None:
        self._opened = opened
        super().__init__(*args, **options)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opened.add(transport)
        super().connection_made(transport)


class MailServer:
    """`async with MailServer(folder) as server`; its certificate is signed by `ca_file`, for localhost."""

    def __init__(self, folder: Path, *, security: str = "starttls", login: bool = True) -> None:
        authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(self._tls)
        self._security = security
        self._login = login
        self.got: list[EmailMessage] = []
        self.to: list[list[str]] = []
        self.logins: list[str] = []
        self.refuses: set[str] = set()
        """Addresses it has no mailbox for."""
        self.silent = False
        """It takes connections, and says nothing."""
        self.port = 0
        self._open: set[asyncio.BaseTransport] = set()

    async def __aenter__(self) -> MailServer:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        """Listen; on the same port as before, after `down`."""
        loop = asyncio.get_running_loop()
        tls = self._tls if self._security == "tls" else None
        self._server = await loop.create_server(self._protocol, "localhost", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        self._server.close()
        for transport in self._open:
            transport.close()
        self._open.clear()
        await self._server.wait_closed()

    def _protocol(self) -> asyncio.BaseProtocol:
        if self.silent:
            return Silent(self._open)
        starttls = self._security == "starttls"
        return Conversation(
            self._open,
            self,
            hostname="localhost",
            tls_context=self._tls if starttls else None,
            require_starttls=starttls,
            authenticator=self._authenticate if self._login else None,
            auth_required=self._login,
            auth_require_tls=starttls,
            loop=asyncio.get_running_loop(),
        )

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        self.logins.append(data.login.decode() if right else "refused")
        return AuthResult(success=right, handled=False)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refuses:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.got.append(message)
        self.to.append([str(each) for each in envelope.rcpt_tos])
        return "250 OK"
