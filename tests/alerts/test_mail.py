"""E-mail to a real SMTP server: secured, logged in, whole; and what is said where it is not taken."""

import asyncio
from typing import Any

import pytest

from mailserver import PASSWORD, USER, MailServer
from taximeter.alerts.mail import Mailer, password
from taximeter.alerts.rule import Letter
from taximeter.config.settings import SmtpSettings
from taximeter.core.errors import ConfigError


def letter(**more):
    told: dict[str, Any] = {
        "id": "ab12:7:email", "alert": "ops", "channel": "email", "kind": "sink", "subject": "n1:redis",
        "title": "redis is down on node n1", "text": "It has not got what ended 400 s ago.", "workspace": "acme",
        "over": False, "to": ["ops@example.org", "boss@example.org"], "created_at": 1_793_707_200_000_000,
    }  # fmt: skip
    return Letter(**(told | more))


def mailer(server, secret=PASSWORD, **more):
    told = {"host": "localhost", "port": server.port, "username": USER, "sender": "Taximeter <meter@example.org>"}
    return Mailer(SmtpSettings(**(told | {"ca_file": str(server.ca_file), "timeout_s": 10.0} | more)), secret, "n1")


async def test_a_letter_arrives_secured_logged_in_and_whole(server):
    assert await asyncio.to_thread(mailer(server).send, letter()) == ([], "")
    (got,) = server.got
    assert server.to == [["ops@example.org", "boss@example.org"]] and server.logins == [USER]
    assert got["subject"] == "[taximeter] redis is down on node n1" and got["from"] == "Taximeter <meter@example.org>"
    assert got["message-id"] == "<ab12.7.email@example.org>" and got["auto-submitted"] == "auto-generated"
    assert got["date"] == "Tue, 03 Nov 2026 12:00:00 +0000"
    text = got.get_content()
    assert "400 s ago" in text and "Workspace: acme" in text and "Node: n1" in text


async def test_tls_from_the_start_and_a_server_without_login(tmp_path):
    async with MailServer(tmp_path, security="tls", login=False) as server:
        sender = mailer(server, security="tls", username="")
        assert await asyncio.to_thread(sender.send, letter()) == ([], "") and len(server.got) == 1
    async with MailServer(tmp_path, security="none", login=False) as server:
        plain = mailer(server, security="none", username="")
        assert await asyncio.to_thread(plain.send, letter()) == ([], "") and len(server.got) == 1
        secured = mailer(server, username="")
        missing, problem = await asyncio.to_thread(secured.send, letter())
        assert missing == letter().to and "STARTTLS" in problem and len(server.got) == 1


async def test_what_names_from_outside_hold_moves_no_header(server):
    odd = letter(title="x\r\nBcc: evil@example.org\u202e" + "y" * 500, text="a\x1b[31m\nb")
    assert await asyncio.to_thread(mailer(server).send, odd) == ([], "")
    (got,) = server.got
    assert got["bcc"] is None and r"x\r\nBcc: evil@example.org\u202e" in got["subject"]
    assert server.to == [letter().to] and r"a\x1b[31m" in got.get_content()


@pytest.mark.parametrize(
    ("more", "secret", "why"),
    [
        ({}, "wrong", "SMTPAuthenticationError"),
        ({"ca_file": ""}, PASSWORD, "SSLCertVerificationError"),
        ({"port": 1}, PASSWORD, "ConnectionRefusedError"),
        ({"security": "tls"}, PASSWORD, "SSLError"),
    ],
)
async def test_a_letter_that_is_not_taken_says_why_and_nothing_is_sent(server, more, secret, why):
    missing, problem = await asyncio.to_thread(mailer(server, secret, **more).send, letter())
    assert missing == letter().to and why in problem and PASSWORD not in problem and server.got == []
    with pytest.raises(OSError, match=why):
        await asyncio.to_thread(mailer(server, secret, **more).try_out)


async def test_who_was_refused_stays_to_be_told(server):
    server.refuses = {"boss@example.org"}
    missing, problem = await asyncio.to_thread(mailer(server).send, letter())
    assert missing == ["boss@example.org"] and "no such mailbox" in problem and len(server.got) == 1
    server.refuses.add("ops@example.org")
    missing, problem = await asyncio.to_thread(mailer(server).send, letter())
    assert sorted(missing) == sorted(letter().to) and "550" in problem


async def test_a_silent_server_is_given_up_after_its_time(server):
    server.silent = True
    missing, problem = await asyncio.to_thread(mailer(server, timeout_s=0.2).send, letter())
    assert missing == letter().to and "timed out" in problem


def test_the_password_comes_from_where_the_settings_say(tmp_path):
    file = tmp_path / "secret"
    file.write_text("from-file\n")
    assert password(SmtpSettings(), {}) == ""
    assert password(SmtpSettings(password_env="MAIL"), {"MAIL": "from-env"}) == "from-env"
    assert password(SmtpSettings(password_file=str(file)), {}) == "from-file"
    file.write_text("\n")
    for settings in (
        SmtpSettings(password_env="MAIL"),
        SmtpSettings(password_file=str(file)),
        SmtpSettings(password_file="no"),
    ):
        with pytest.raises(ConfigError, match=r"smtp\.password"):
            password(settings, {})
