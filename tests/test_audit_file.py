"""The audit log's file: nothing is lost while it is brought into the history, whoever writes meanwhile."""

import logging
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from taximeter.core.audit import Actor
from taximeter.core.errors import Forbidden, NotFound
from taximeter.node.audit import AuditLog, acting_as, command_log
from taximeter.node.logs import FIELDS


def test_an_entry_says_who_what_and_how_it_ended(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    log = AuditLog(tmp_path, node="n1", now_us=lambda: 7)
    with acting_as(Actor(name="key key_1", address="10.0.0.1", user="ops")), log.act("key.create") as change:
        change.target, change.after = "key_2", {"workspace": "acme"}
    with pytest.raises(NotFound), log.act("key.revoke", "key_3"):
        raise NotFound("No key 'key_3'.")
    with pytest.raises(Forbidden), log.act("key.revoke", "conf"):
        raise Forbidden("It is declared.")
    with pytest.raises(ZeroDivisionError), log.act("redis.rebuild"):
        raise ZeroDivisionError("by zero")
    told = [(each.actor, each.user, each.action, each.target, each.outcome, each.problem) for each in log.waiting()]
    assert told == [
        ("key key_1", "ops", "key.create", "key_2", "ok", ""),
        ("system", "", "key.revoke", "key_3", "failed", "No key 'key_3'."),
        ("system", "", "key.revoke", "conf", "refused", "It is declared."),
        ("system", "", "redis.rebuild", "", "failed", "ZeroDivisionError: by zero"),
    ]
    assert caplog.records[0].getMessage() == "key.create key_2 by key key_1 (ops) from 10.0.0.1"
    assert getattr(caplog.records[0], FIELDS)["audit"]["after"] == {"workspace": "acme"}
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_entries_written_while_others_are_taken_are_there_the_next_time(tmp_path):
    log = AuditLog(tmp_path)
    taken: list[str] = []

    def write(number):
        AuditLog(tmp_path).note("sign_in", str(number))

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, number) for number in range(200)]
        while len(taken) < 200:
            taken += [each.target for each in log.taken()]
            log.let_go()
            assert not any(each.done() and each.exception() for each in writing)
    assert sorted(map(int, taken)) == list(range(200))


def test_what_was_taken_and_not_let_go_is_taken_again(tmp_path):
    log = AuditLog(tmp_path)
    log.note("sign_in", "one")
    (first,) = log.taken()
    log.note("sign_in", "two")
    assert AuditLog(tmp_path).taken() == [first]  # as after a crash
    assert [each.target for each in log.waiting()] == ["one", "two"]
    log.let_go()
    assert [each.target for each in log.taken()] == ["two"]


def test_a_torn_line_costs_itself_alone(tmp_path, caplog):
    log = AuditLog(tmp_path)
    log.note("sign_in", "one")
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"id": "torn\n')
    log.note("sign_in", "two")
    assert [each.target for each in log.taken()] == ["one", "two"]
    assert "is no entry of the audit log" in caplog.text


def test_what_cannot_be_written_is_in_the_log_which_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    AuditLog(tmp_path / "absent").note("sign_in", "one")
    assert "sign_in one" in caplog.text and "stands in the log alone" in caplog.text


def test_a_command_acts_as_who_runs_it(tmp_path, monkeypatch):
    from taximeter.config import Settings

    monkeypatch.setenv("LOGNAME", "alice")
    (tmp_path / "node").write_text("node-1\n")
    command_log(Settings(data_dir=str(tmp_path))).note("journal.adopt", "/old")
    (entry,) = AuditLog(tmp_path).waiting()
    assert (entry.actor, entry.user, entry.node) == ("command", "alice", "node-1")
