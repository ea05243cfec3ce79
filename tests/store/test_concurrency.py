"""Processes that write, read and repair the same artifacts at once: nobody waits, and nobody sees a half."""

import fcntl
import shutil
import threading

import pytest
from small_store import CATALOGUE, ROWS, start, wait_for, write_lines

from pipeline.store import part as part_module
from pipeline.store.artifact import find_intact
from pipeline.store.part import held


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_an_intact_artifact_is_not_replaced_under_its_readers(store):
    found = write_lines(store)
    before = (found.folder.stat().st_ino, found.written)
    assert write_lines(store).read().equals(ROWS)
    assert (found.folder.stat().st_ino, found.written) == before
    assert names(store.artifacts / "lines") == {"f", ".lock"}


def test_of_many_who_repair_an_artifact_one_replaces_it(store, monkeypatch):
    write_lines(store).path().write_bytes(b"damaged")
    together, errors, replaced = threading.Barrier(4), [], []
    discard = part_module.discard

    def spy(folder):
        replaced.append(find_intact(folder, CATALOGUE["lines"]))
        discard(folder)

    def repair():
        try:
            with store.write("lines", "f", {}, {}) as writer:
                writer.append("lines", ROWS)
                together.wait()
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    monkeypatch.setattr(part_module, "discard", spy)
    threads = [threading.Thread(target=repair) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert replaced == [None]
    assert store.find("lines", "f").read().equals(ROWS)
    assert names(store.artifacts / "lines") == {"f", ".lock"}


@pytest.mark.parametrize("fingerprints", ["ff", "fg"])
def test_two_processes_write_at_once(store, fingerprints):
    store.root.mkdir()
    processes = [start("lines", store.root, name, f"run{i}", 2) for i, name in enumerate(fingerprints)]
    for process in processes:
        assert process.wait(60) == 0, process.stderr.read()
    for i, name in enumerate(fingerprints):
        assert store.run(f"run{i}").require("lines").manifest.fingerprint == name
        assert store.find("lines", name).read().equals(ROWS)
    assert names(store.artifacts / "lines") == {*fingerprints, ".lock"}


def test_what_a_killed_process_left_is_taken_over(store):
    store.root.mkdir()
    process = start("lines", store.root, "f", "killed", 2)
    wait_for((store.root / "killed.ready").exists)
    assert write_lines(store).read().equals(ROWS)  # beside the other
    assert {".f.0.part", "f"} <= names(store.artifacts / "lines")
    process.kill()
    process.wait()
    shutil.rmtree(store.folder("lines", "f"))
    assert write_lines(store).read().equals(ROWS)
    assert names(store.artifacts / "lines") == {"f", ".lock"}


def test_a_lock_that_was_removed_since_it_was_opened_is_none(tmp_path, monkeypatch):
    part, flock = tmp_path / ".f.0.part", fcntl.flock

    def be_late(lock, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        with held(part) as free:  # by another, from begin to end
            assert free
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", be_late)
    with held(part) as first, held(part) as second:
        assert (first, second) == (True, False)


def test_a_reader_never_sees_half_an_artifact(store):
    process = start("many", store.root, 40)
    for number in range(40):
        folder = store.folder("scores", f"f{number}")
        wait_for(lambda folder=folder: folder.exists() or process.poll())
        assert store.find("scores", folder.name).read().height == 2
    assert process.wait(60) == 0, process.stderr.read()
