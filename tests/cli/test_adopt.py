import pytest
from click.testing import CliRunner

from journals import call, files, journal, opening, records
from taximeter.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner(env={"TAXIMETER_DATA_DIR": str(tmp_path / "mine")}).invoke(main, ["adopt", *args])


@pytest.mark.parametrize("named", ["lost", "lost/journal"])
def test_the_journals_of_a_lost_node_are_moved_here(run, tmp_path, named):
    writer = journal(tmp_path / "lost" / "journal")
    call(writer, "r1")
    writer.shutdown()
    assert run(str(tmp_path / named)).output.startswith("Moved 1 journal of ")
    assert [each.request_id for each in records(tmp_path / "mine" / "journal")] == ["r1"]
    assert files(tmp_path / "lost" / "journal") == []
    assert run(str(tmp_path / named)).output.startswith("Moved 0 journals of ")


def test_a_node_that_still_writes_is_refused(run, tmp_path):
    writer = journal(tmp_path / "lost" / "journal")
    writer.open(opening("r1"))
    done = run(str(tmp_path / "lost"))
    assert done.exit_code == 1 and "still being written" in done.stderr
    assert len(files(tmp_path / "lost" / "journal")) == 1
    writer.shutdown()
