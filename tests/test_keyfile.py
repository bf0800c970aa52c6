import stat

import pytest

from taximeter.config import Auth, Key
from taximeter.core.errors import DataDirError
from taximeter.keys import file as keyfile
from taximeter.keys.file import KeyFile
from taximeter.keys.rule import ProxyKey, digest

ONE = ProxyKey(id="k1", sha256=digest("tm-one"), workspace="acme", models=("gpt-*",), created_at=7)


def test_no_file_means_no_keys(tmp_path):
    assert KeyFile(tmp_path).load() == []


def test_what_was_saved_is_loaded_and_only_its_owner_can_read_it(tmp_path):
    file = KeyFile(tmp_path)
    file.save([ONE])
    assert file.load() == [ONE]
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]


def test_another_process_sees_that_the_file_changed(tmp_path):
    writer, reader = KeyFile(tmp_path), KeyFile(tmp_path)
    assert reader.load() == [] and not reader.changed()
    writer.save([ONE])
    assert reader.changed()
    assert reader.load() == [ONE] and not reader.changed()
    writer.path.unlink()
    assert reader.changed()


def test_a_broken_file_is_an_error_that_names_it(tmp_path):
    file = KeyFile(tmp_path)
    file.path.write_text("{")
    with pytest.raises(DataDirError, match=r"keys\.json: cannot read the proxy keys"):
        file.load()
    with pytest.raises(DataDirError, match="cannot write"):
        KeyFile(tmp_path / "absent").save([])


def test_keys_of_the_configuration_and_of_the_file_both_open_the_door():
    auth = Auth(keys=[Key(id="conf", sha256=digest("tm-conf").upper(), workspace="beta", models=["m"])])
    keys = keyfile.in_force(auth, [ONE])
    assert keys.find("tm-one") == ONE
    assert keys.find("tm-conf").workspace == "beta"
    assert len(keys) == 2
