"""One attempt to send an alert by e-mail, by the standard library's smtplib. Blocking: it wants a thread of its own."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from pathlib import Path

from taximeter import __version__
from taximeter.alerts.rule import Letter
from taximeter.config.settings import SmtpSettings
from taximeter.core.errors import ConfigError
from taximeter.core.visible import visible

LONGEST_TITLE = 150
"""Characters of a subject line; names come from outside."""


def password(settings: SmtpSettings, environ: Mapping[str, str]) -> str:
    """The password that the settings name; "" where there is none. Raises ConfigError where it is not there."""
    if settings.password_env:
        if not environ.get(settings.password_env):
            raise ConfigError(f"smtp.password_env: the environment variable {settings.password_env} is not set.")
        return environ[settings.password_env]
    if settings.password_file:
        try:
            found = Path(settings.password_file).read_text().strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"smtp.password_file: {settings.password_file} cannot be read: {error}.") from error
        if not found:
            raise ConfigError(f"smtp.password_file: {settings.password_file} is empty.")
        return found
    return ""


class Mailer:
    """By the settings."""

    def __init__(self, settings: SmtpSettings, secret: str, node: str) -> None:
        """`secret`: the password."""
        self._settings = settings
        self._secret = secret
        self._node = node

    def send(self, letter: Letter) -> tuple[list[str], str]:
        """Send it; returns who has not got it, and why ("": everybody has). Raises nothing."""
        try:
            with self._connected() as server:
                refused = server.send_message(self.message(letter), to_addrs=letter.to)
        except smtplib.SMTPRecipientsRefused as error:
            return list(error.recipients), _problem(next(iter(error.recipients.values())))
        except (smtplib.SMTPException, OSError, ValueError) as error:
            return letter.to, f"{type(error).__name__}: {error}"
        return list(refused), _problem(next(iter(refused.values()))) if refused else ""

    def try_out(self) -> None:
        """Connect, secure the connection, and log in; nothing is sent. Raises OSError."""
        try:
            with self._connected() as server:
                server.noop()
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise OSError(f"{type(error).__name__}: {error}") from None

    def message(self, letter: Letter) -> EmailMessage:
        """The letter as an e-mail; its Message-ID is the same at each attempt."""
        settings = self._settings
        message = EmailMessage()
        message["Subject"] = f"[taximeter] {visible(letter.title)}"[:LONGEST_TITLE]
        message["From"] = settings.sender
        message["To"] = ", ".join(letter.to)
        message["Date"] = format_datetime(datetime.fromtimestamp(letter.created_at // 1_000_000, UTC))
        host = parseaddr(settings.sender)[1].rpartition("@")[2] or "taximeter"
        message["Message-ID"] = f"<{letter.id.replace(':', '.')}@{host}>"
        message["Auto-Submitted"] = "auto-generated"
        message["User-Agent"] = f"taximeter/{__version__}"
        about = f"\nWorkspace: {letter.workspace}" if letter.workspace else ""
        lines = "\n".join(visible(line) for line in letter.text.split("\n"))
        message.set_content(f"{visible(letter.title)}\n\n{lines}\n\nNode: {self._node}{about}\nAlert: {letter.alert}\n")
        return message

    def _connected(self) -> smtplib.SMTP:
        settings = self._settings
        trust = ssl.create_default_context(cafile=settings.ca_file or None) if settings.security != "none" else None
        server: smtplib.SMTP
        if settings.security == "tls":
            server = smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout_s, context=trust)
        else:
            server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s)
        try:
            if settings.security == "starttls":
                server.starttls(context=trust)
            if settings.username:
                server.login(settings.username, self._secret)
        except BaseException:
            server.close()
            raise
        return server


def _problem(answer: tuple[int, bytes]) -> str:
    return f"{answer[0]} {visible(answer[1].decode('utf-8', 'replace'))}"
