"""`keys.json`, as every process that has it open sees it (node/stored_list.py)."""

import stat

import pytest

from taximeter.config import AuthSettings, KeySettings
from taximeter.core.errors import DataDirError
from taximeter.keys.rule import ProxyKey, digest
from taximeter.keys.store import KeyStore

ONE = ProxyKey(id="k1", sha256=digest("tm-one"), workspace="acme", models=("gpt-*",), created_at=7)


def store(tmp_path, auth=None):
    return KeyStore(tmp_path, auth or AuthSettings())


def test_no_file_means_no_keys(tmp_path):
    assert store(tmp_path).stored() == [] and not any(tmp_path.iterdir())


def test_what_was_taken_in_is_stored_and_only_its_owner_can_read_it(tmp_path):
    one = store(tmp_path)
    one.absorb([ONE])
    assert one.stored() == store(tmp_path).stored() == [ONE]
    assert stat.S_IMODE(one.path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]


def test_another_process_sees_that_the_file_changed(tmp_path):
    writer, reader = store(tmp_path), store(tmp_path)
    assert not reader.changed()
    writer.absorb([ONE])
    assert reader.changed()
    assert reader.in_force().find("tm-one") == ONE and not reader.changed()
    writer.path.unlink()
    assert reader.changed() and reader.stored() == []


def test_a_broken_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "keys.json").write_text("{")
    with pytest.raises(DataDirError, match=r"keys\.json: cannot be read"):
        store(tmp_path)
    with pytest.raises(DataDirError, match=r"keys\.json: cannot be written"):
        store(tmp_path / "absent").absorb([ONE])


def test_keys_of_the_configuration_and_of_the_file_both_open_the_door(tmp_path):
    auth = AuthSettings(keys=[KeySettings(id="conf", sha256=digest("tm-conf").upper(), workspace="beta", models=["m"])])
    stored = store(tmp_path, auth)
    stored.absorb([ONE])
    keys = stored.in_force()
    assert keys.find("tm-one") == ONE
    assert keys.find("tm-conf").workspace == "beta"
    assert len(keys) == 2
