"""Alerts of a whole node: mail and webhook, a mail server that is down meanwhile, a restart; `check` and `alerts`."""

import asyncio
import json

import httpx2
import pytest
from click.testing import CliRunner

from faults.running import Node
from mailserver import PASSWORD, USER, MailServer
from receiver import Receiver
from taximeter.cli import main
from waits import HANG_S, happens

pytestmark = pytest.mark.xdist_group("processes")

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 60}


async def test_a_spent_budget_is_told_once_by_mail_and_webhook_whatever_is_down(tmp_path):
    async with Receiver() as backend, MailServer(tmp_path) as mail:
        config = (
            '[[alert]]\nname = "ops"\nemail_to = ["ops@example.org"]\nwebhook = true\n'
            f'[smtp]\nhost = "localhost"\nport = {mail.port}\nusername = "{USER}"\npassword_env = "MAIL_PASSWORD"\n'
            f'sender = "meter@example.org"\nca_file = "{mail.ca_file}"\n'
            f'[webhook]\nurl = "{backend.url}/hook"\nformat = "cloudevents"\n'
        )
        env = {"MAIL_PASSWORD": PASSWORD, "COLUMNS": "200"}

        def alerts():
            return [got.json["data"]["title"] for got in backend.accepted.values() if "alert" in got.json["type"]]

        async with Node(tmp_path / "n", config=config, workers=1, env=env) as node:
            await mail.down()
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}", timeout=HANG_S) as control:
                made = {"workspace": "acme", "limit": "10", "unit": "tokens", "period": "total", "mode": "soft"}
                assert (await control.post("/budgets", json=made)).status_code == 201
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", timeout=HANG_S) as client:
                assert (await client.post("/w/acme/v1/chat/completions", json=CHAT)).status_code == 200
            told = [f"{percent} % of the budget of workspace 'acme' is used" for percent in (50, 80, 100)]
            await happens(lambda: alerts() == told)

            async def refused():
                waiting = (await node.get("/alerts"))["waiting"]
                return len(waiting) == 3 and all("refused" in (each["problem"] or "") for each in waiting)

            await node.until(refused, "the mail to be refused")
            assert await node.metric("taximeter_alert_letters") == 3
            node.kill_everything()
            await mail.up()
            node.start()
            await node.until_ready()
            await happens(lambda: [got["subject"] for got in mail.got] == [f"[taximeter] {each}" for each in told])

            async def sent():
                return (await node.get("/alerts"))["waiting"] == []

            await node.until(sent, "the letter to be off the list")
            listed = (await node.get("/alerts"))["told"]
            assert sorted(each["title"] for each in listed) == sorted(told)
            assert {(each["state"], each["workspace"]) for each in listed} == {("told", "acme")}
            assert alerts() == told

            def cli(*args, **more):
                config = ["--config", str(tmp_path / "n" / "taximeter.toml")]
                return asyncio.to_thread(CliRunner(env=env | more).invoke, main, [*args, *config])

            shown = (await cli("alerts", "list")).stdout
            assert all(each in shown for each in told)
            tried = await cli("alerts", "test")
            assert tried.exit_code == 0, tried.output
            assert tried.stdout == f"ops: email to ops@example.org: taken\nops: webhook to {backend.url}/hook: taken\n"
            assert mail.got[-1]["subject"] == "[taximeter] This is a test" and "This is a test" in alerts()
            assert (await cli("alerts", "test", "--alert", "other")).exit_code == 2
            wrong = await cli("alerts", "test", MAIL_PASSWORD="wrong")
            assert wrong.exit_code == 1 and "SMTPAuthenticationError" in wrong.stdout
            checked = await cli("check")
            assert f"mail server localhost:{mail.port}" in checked.stdout, checked.stdout
            assert "SMTPAuthenticationError" in (await cli("check", MAIL_PASSWORD="wrong")).stdout
            assert json.loads((tmp_path / "n" / "data" / "alerts.json").read_text())["letters"] == []
