"""What a run shows is never removed; what nobody shows is, once it is old and nobody writes it."""

import argparse
import os
import time

import pytest
from small_store import ROWS, write_lines

from pipeline.errors import ArtifactError, CurationError
from pipeline.store.__main__ import list_runs, main, prune, remove, unreferenced, verify


def call(action, store, **options):
    return action(store, argparse.Namespace(**options))


def age(folder, seconds=7200):
    then = time.time() - seconds
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))


def names(store):
    return {path.name for path in (store.artifacts / "lines").iterdir() if path.is_dir()}


@pytest.fixture
def filled(store):
    """Artifact ``shown`` in two runs, ``old`` and ``young`` in none, all but the last old; a part that was cut off."""
    for fingerprint in ("shown", "old", "young"):
        write_lines(store, fingerprint)
    for run in ("a", "b"):
        store.run(run).show("lines", "shown")
    with pytest.raises(KeyboardInterrupt), store.write("lines", "cut", {}, {}) as writer:
        writer.write_shard(0, {"lines": ROWS})
        raise KeyboardInterrupt
    for name in ("shown", "old", ".cut.0.part"):
        age(store.artifacts / "lines" / name)
    return store


def test_list_shows_runs_and_what_none_refers_to(filled, capsys):
    (filled.runs / "not a run's name").mkdir()
    assert call(list_runs, filled) == 0
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert lines == [["a", "1", "artifacts"], ["b", "1", "artifacts"], ["not", "a", "run's"], ["(no", "run)", "3"]]


def test_an_empty_store_is_no_error(store, capsys):
    assert [call(action, store, young=False) for action in (list_runs, prune, verify)] == [0, 0, 0]
    assert "0 artifacts" in capsys.readouterr().out


def test_prune_removes_what_is_old_and_not_shown(filled, capsys):
    assert call(prune, filled, young=False) == 0
    assert names(filled) == {"shown", "young"}
    assert capsys.readouterr().out == (
        "removed store/lines/.cut.0.part\nremoved store/lines/old\n"
        "left 1 that are being written or less than an hour old (--young removes the latter)\n"
    )


def test_prune_removes_young_things_when_asked(filled):
    call(prune, filled, young=True)
    assert names(filled) == {"shown"}
    assert {path.name for path in (filled.artifacts / "lines").iterdir()} == {"shown", ".lock"}
    for run in ("a", "b"):
        assert filled.run(run).require("lines").read().equals(ROWS)


def test_prune_keeps_a_part_that_is_being_written(store):
    with store.write("lines", "f", {}, {}) as first, store.write("lines", "f", {}, {}) as second:
        for writer in (first, second):
            writer.write_shard(0, {"lines": ROWS})
            age(writer.folder)
        call(prune, store, young=True)
        assert names(store) == {".f.0.part", ".f.1.part"}
    assert store.find("lines", "f").read().equals(ROWS)
    assert names(store) == {"f"}


def test_prune_keeps_a_part_whose_last_shard_is_young(filled):
    shard = next((filled.artifacts / "lines" / ".cut.0.part").rglob("shard-*"))
    os.utime(shard)
    call(prune, filled, young=False)
    assert ".cut.0.part" in names(filled)


def test_prune_removes_what_a_killed_process_left_in_a_run_or_store(filled):
    (filled.runs / "a" / ".lines.1234").symlink_to("../../store/lines/old")
    (filled.artifacts / "lines" / ".x.1234.old").mkdir()
    call(prune, filled, young=True)
    assert names(filled) == {"shown"}


def test_a_removed_runs_artifacts_are_pruned_when_the_last_run_that_shows_them_is_gone(filled, capsys):
    for run in ("a", "b"):
        call(prune, filled, young=True)
        assert names(filled) == {"shown"}
        assert call(remove, filled, run=run) == 0
        assert capsys.readouterr().out.endswith(f"removed run {run}\n")
    assert names(filled) == {"shown"}
    assert [folder.name for folder in unreferenced(filled)] == ["shown"]
    call(prune, filled, young=False)
    assert names(filled) == set()


@pytest.mark.parametrize("name", ["c", "..", "a/lines"])
def test_remove_refuses_what_is_no_run(filled, name):
    with pytest.raises(CurationError):
        call(remove, filled, run=name)
    assert filled.run("a").require("lines").read().equals(ROWS)


def test_verify_reads_all_and_finds_a_byte_changed_under_an_old_time(filled, capsys):
    assert call(verify, filled) == 0
    path = filled.find("lines", "old").path()
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert filled.find("lines", "old")
    assert call(verify, filled) == 1
    assert "damaged store/lines/old: materialize 'lines' again\n1 damaged" in capsys.readouterr().out


def test_the_command_line(filled, capsys):
    root = str(filled.root)
    assert main(["remove", "--store", root, "nothing"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no run 'nothing' in ")
    assert main(["list", "--store", root]) == 0
    assert main(["verify", "--store", f"{root}/nowhere"]) == 2
    assert "holds no store" in capsys.readouterr().err
    assert main(["remove", "--store", root, "b"]) == 0
    assert main(["prune", "--store", root]) == 0
    assert names(filled) == {"shown", "young"}
    assert main(["verify", "--store", root]) == 0
    filled.find("lines", "shown").path().unlink()
    assert main(["verify", "--store", root]) == 1
    with pytest.raises(ArtifactError):
        filled.run("a").require("lines").read()
