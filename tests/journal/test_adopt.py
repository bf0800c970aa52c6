"""Taking over another directory's journals."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from journals import call, closing, files, journal, opening, records, settled, written
from taximeter.core.errors import JournalError
from taximeter.core.lines import Line
from taximeter.journal.adopt import adopt

ID = "0123456789abcdef" * 2


def test_every_journal_and_status_moves_and_can_be_recovered(tmp_path: Path) -> None:
    writer = journal(tmp_path / "dead")
    call(writer, "a")
    writer.open(opening("b"))
    writer.shutdown()
    (name,) = [path.stem for path in files(tmp_path / "dead")]
    assert adopt(tmp_path / "dead", tmp_path / "mine") == [name]
    assert list((tmp_path / "dead").iterdir()) == []
    assert len(list((tmp_path / "mine").glob("*.status"))) == 1
    assert settled(tmp_path / "mine" / f"{name}.jsonl") == 1
    assert [each.request_id for each in records(tmp_path / "mine")] == ["a", "b"]
    assert adopt(tmp_path / "dead", tmp_path / "mine") == []


def test_across_file_systems_files_are_copied_whole_and_then_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "dead", [closing(ID, 1)], ID)
    data, rename = path.read_bytes(), Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.parent != target.parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    adopt(tmp_path / "dead", tmp_path / "mine")
    assert (tmp_path / "mine" / path.name).read_bytes() == data
    assert not path.exists()
    assert [each.name for each in (tmp_path / "mine").iterdir() if each.is_file()] == [path.name]


def test_a_journal_still_being_written_is_refused_and_nothing_moved(tmp_path: Path) -> None:
    written(tmp_path / "dead", [closing(ID, 1)], ID)
    writer = journal(tmp_path / "dead")
    with pytest.raises(JournalError, match="is still being written; stop the node"):
        adopt(tmp_path / "dead", tmp_path / "mine")
    assert len(files(tmp_path / "dead")) == 2
    assert files(tmp_path / "mine") == []
    writer.shutdown()


def test_a_second_try_after_a_crash_does_not_take_a_journal_twice(tmp_path: Path) -> None:
    dead, mine = (
        written(tmp_path / where, [closing(ID, 1), Line(open=opening("open"))], ID) for where in ("dead", "mine")
    )
    with dead.open("ab") as file:
        file.write(b'{"tick":')
    settled(mine)
    assert adopt(tmp_path / "dead", tmp_path / "mine") == [ID]
    assert not dead.exists()
    assert [each.request_id for each in records(tmp_path / "mine")] == ["r1", "open"]


def test_another_journal_of_the_same_name_is_not_overwritten(tmp_path: Path) -> None:
    written(tmp_path / "dead", [closing(ID, 1)], ID)
    mine = written(tmp_path / "mine", [closing(ID, 1, "another")], ID)
    kept = mine.read_bytes()
    with pytest.raises(JournalError, match="exists already and is not a copy"):
        adopt(tmp_path / "dead", tmp_path / "mine")
    assert mine.read_bytes() == kept
    assert len(files(tmp_path / "dead")) == 1


def test_nonsense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is not a directory"):
        adopt(tmp_path / "none", tmp_path)
    with pytest.raises(JournalError, match="own journal"):
        adopt(tmp_path, tmp_path / ".")
