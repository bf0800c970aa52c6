import msgspec
import pytest

from taximeter.config import Settings
from taximeter.config.checks import before_serving, check
from taximeter.core.errors import ConfigError

MAIL = {"host": "mail.example.org", "sender": "Taximeter <meter@example.org>"}
HOOK = {"url": "https://billing.example.org/hook", "format": "cloudevents"}


def settings(alert, **more):
    return msgspec.convert({"alert": [{"name": "ops", **alert}], **more}, Settings)


def test_what_can_be_meant_is_taken():
    alert = {"email_to": ["ops@example.org"], "webhook": True}
    check(settings(alert, smtp={**MAIL, "username": "u", "password_env": "MAIL"}, webhook=HOOK), lambda path: "t.toml")


@pytest.mark.parametrize(
    ("alert", "more", "path"),
    [
        ({}, {}, "alert[0].email_to"),
        ({"email_to": ["ops"]}, {"smtp": MAIL}, "alert[0].email_to[0]"),
        ({"email_to": ["a@b.c\nBcc: x@y.z"]}, {"smtp": MAIL}, "alert[0].email_to[0]"),
        ({"email_to": ["ops@example.org"]}, {}, "smtp.host"),
        ({"webhook": True}, {}, "alert[0].webhook"),
        ({"webhook": True}, {"webhook": {**HOOK, "format": "segments"}}, "alert[0].webhook"),
        ({"webhook": True, "on": []}, {"webhook": HOOK}, "alert[0].on"),
        ({"webhook": True, "name": "no good"}, {"webhook": HOOK}, "alert[0].name"),
        ({"email_to": ["ops@example.org"]}, {"smtp": {"host": "mail"}}, "smtp.sender"),
        ({"email_to": ["a@b.c"]}, {"smtp": {**MAIL, "username": "u"}}, "smtp.username"),
        ({"email_to": ["a@b.c"]}, {"smtp": {**MAIL, "username": "u", "password_env": "hunter 2"}}, "smtp.password_env"),
        (
            {"email_to": ["a@b.c"]},
            {"smtp": {**MAIL, "username": "u", "password_env": "A", "password_file": "b"}},
            "smtp.password_file",
        ),
        (
            {"email_to": ["a@b.c"]},
            {"smtp": {**MAIL, "username": "u", "password_env": "A", "security": "none"}},
            "smtp.security",
        ),
        ({"email_to": ["a@b.c"]}, {"smtp": {**MAIL, "ca_file": "/no/such"}}, "smtp.ca_file"),
    ],
)
def test_what_cannot_be_meant_is_refused(alert, more, path):
    with pytest.raises(ConfigError) as caught:
        check(settings(alert, **more), lambda path: "t.toml")
    assert path in str(caught.value) and "hunter" not in str(caught.value)


def test_a_password_that_is_not_there_is_found_before_serving(tmp_path):
    mail = {**MAIL, "username": "u"}
    for more in ({"password_env": "MAIL_PASSWORD"}, {"password_file": str(tmp_path / "none")}):
        with pytest.raises(ConfigError, match=r"smtp\.password"):
            before_serving(settings({"email_to": ["a@b.c"]}, smtp={**mail, **more}), {})
    before_serving(settings({"email_to": ["a@b.c"]}, smtp={**mail, "password_env": "MAIL"}), {"MAIL": "x"})
