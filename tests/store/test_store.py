"""Artifacts are whole or absent, found by content, shown by runs, and noticed when changed."""

import json
import os
import re
import shutil
import threading
from pathlib import Path

import polars as pl
import pytest
from small_store import CATALOGUE, ROWS, make, write_lines

from pipeline.errors import ArtifactError, ConfigError
from pipeline.store import artifact as artifact_module
from pipeline.store.store import Store


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_what_is_written_is_read(store):
    found = write_lines(store)
    assert found.read().equals(ROWS)
    assert found.scan("lines").collect().equals(ROWS)
    manifest = found.manifest
    assert (manifest.name, manifest.fingerprint, manifest.rows) == ("lines", "f", {"lines": 2})
    assert (manifest.settings, manifest.provenance) == ({"limit": 1}, {"inputs": {}})
    assert manifest.sizes == {"lines.parquet": found.path().stat().st_size}
    assert store.find("lines", "other") is None


def test_same_rows_same_bytes_whatever_the_fingerprint(tmp_path):
    first, second = (write_lines(Store(tmp_path / fingerprint, CATALOGUE), fingerprint) for fingerprint in "fg")
    assert first.path().read_bytes() == second.path().read_bytes()
    assert first.manifest.digest == second.manifest.digest


def test_files_notes_and_subfolders_are_part_of_an_artifact_and_hidden_ones_are_not(store):
    with store.write("lines", "f", {}, {}) as writer:
        for name in ("README.md", "adapter/manifest.json", ".scratch/half", ".hidden"):
            path = writer.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("x")
        writer.notes["n"] = 1
    found = store.find("lines", "f")
    assert found.manifest.digests.keys() == {"README.md", "adapter/manifest.json", "lines.parquet"}
    assert found.manifest.notes == {"n": 1}
    assert names(found.folder) == {"README.md", "adapter", "lines.parquet", "manifest.json"}
    assert found.read().is_empty()
    (found.folder / "adapter" / "manifest.json").write_text("y")
    assert store.find("lines", "f") is None


def test_an_error_leaves_the_other_artifacts_and_nothing_else(store):
    write_lines(store)
    with pytest.raises(RuntimeError), store.write("lines", "g", {}, {}) as writer:
        writer.append("lines", ROWS)
        (writer.folder / "adapter").mkdir()
        raise RuntimeError
    assert store.find("lines", "f")
    assert names(store.artifacts / "lines") == {"f", ".lock"}


def test_hidden_folders_are_there_again_after_an_error(store):
    for attempt in range(2):
        with pytest.raises(RuntimeError), store.write("lines", "f", {}, {}) as writer:
            checkpoint = writer.folder / ".checkpoints" / "state"
            assert checkpoint.exists() == bool(attempt)
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.write_text("x")
            raise RuntimeError


def test_a_discarded_artifact_leaves_nothing(store):
    with store.write("lines", "f", {}, {}) as writer:
        writer.append("lines", ROWS)
        (writer.folder / ".scratch").mkdir()
        writer.discarded = True
    assert store.find("lines", "f") is None
    assert names(store.artifacts / "lines") == set()


def test_going_back_to_an_earlier_fingerprint_finds_it(store):
    run = store.run("main")
    for fingerprint in "fg":
        write_lines(store, fingerprint, ROWS.with_columns(text=pl.lit(fingerprint)))
        run.show("lines", fingerprint)
    assert run.require("lines").read()["text"].to_list() == ["g", "g"]
    run.show("lines", "f")
    assert run.require("lines").read()["text"].to_list() == ["f", "f"]
    assert store.find("lines", "g")


def test_several_runs_share_an_artifact(store):
    write_lines(store)
    runs = [store.run(name) for name in ("a", "b")]
    for run in runs:
        run.show("lines", "f")
    assert len({run.require("lines").folder for run in runs}) == 1
    runs[0].hide("lines")
    runs[0].hide("lines")
    assert runs[0].find("lines") is None
    assert runs[1].require("lines").read().equals(ROWS)


def test_what_a_run_lacks_is_named(store):
    for fill in (lambda: None, lambda: shutil.rmtree(write_lines(store).folder)):
        fill()
        assert store.run("main").find("lines") is None
        with pytest.raises(ArtifactError, match="main/lines has no finished artifact: materialize 'lines' first"):
            store.run("main").require("lines")
    with pytest.raises(ArtifactError, match="materialize 'lines' first"):
        store.run("main").show("lines", "f")


def test_the_data_folder_can_be_moved_and_reached_by_a_link(store, tmp_path):
    write_lines(store)
    (tmp_path / "link").symlink_to(store.root)
    linked = Store(tmp_path / "link", CATALOGUE)
    linked.run("main").show("lines", "f")
    assert os.readlink(store.runs / "main" / "lines") == "../../store/lines/f"
    (tmp_path / "link").unlink()
    store.root.rename(tmp_path / "moved")
    assert Store(tmp_path / "moved", CATALOGUE).run("main").require("lines").read().equals(ROWS)


def test_a_link_is_replaced_at_once(store):
    run, stop, missed = store.run("main"), threading.Event(), []
    for fingerprint in "fg":
        write_lines(store, fingerprint)
    run.show("lines", "f")

    def watch():
        while not stop.is_set():
            missed.extend([1] if run.find("lines") is None else [])

    watcher = threading.Thread(target=watch)
    watcher.start()
    for fingerprint in "gf" * 100:
        run.show("lines", fingerprint)
    stop.set()
    watcher.join()
    assert not missed
    assert names(run.folder) == {"lines"}


@pytest.mark.parametrize("is_folder", [True, False])
def test_something_else_in_a_links_place_is_refused_by_name(store, is_folder):
    write_lines(store)
    place = store.runs / "main" / "lines"
    place.parent.mkdir(parents=True)
    place.mkdir() if is_folder else place.write_text("mine")
    with pytest.raises(ArtifactError, match=r"main/lines is no link to an artifact: remove it, .*--run"):
        store.run("main").show("lines", "f")
    assert names(store.runs / "main") == {"lines"}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden", "-x", "a b", "x" * 101, "a\n"])
def test_bad_names_of_runs_are_refused(store, name):
    with pytest.raises(ConfigError, match="is not a name"):
        store.run(name)


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"file/data.* cannot be written \(.*--store"):
        write_lines(Store(tmp_path / "file" / "data", CATALOGUE))
    store = Store(tmp_path, CATALOGUE)
    write_lines(store)
    store.runs.write_text("")
    with pytest.raises(ArtifactError, match=r"runs.* cannot be written \(.*--store"):
        store.run("main").show("lines", "f")


@pytest.mark.parametrize("full", ["lines.parquet", "lines.parquet/shard-00000.part", "manifest.json"])
def test_a_full_disk_is_named_and_leaves_nothing(store, full):
    with pytest.raises(ArtifactError) as caught, store.write("lines", "f", {}, {}) as writer:
        (writer.folder / full).parent.mkdir(exist_ok=True)
        (writer.folder / full).symlink_to("/dev/full")
        writer.write_shard(0, {"lines": ROWS}) if "/" in full else writer.append("lines", ROWS)
    assert "\n" not in str(caught.value)
    found = re.search(
        r"(\S+) cannot be written \(No space left on device, .* MB are free\): make room, or", str(caught.value)
    )
    assert found[1].startswith(str(store.artifacts / "lines"))
    assert names(store.artifacts / "lines") <= {".lock"}
    assert write_lines(store).read().equals(ROWS)


def test_other_errors_of_the_system_are_not_taken_for_a_full_disk(store):
    with pytest.raises(FileNotFoundError), store.write("lines", "f", {}, {}):
        Path("/nowhere/at/all").read_text()


def test_the_check_of_what_stands_reads_no_content(store, monkeypatch):
    make(store, {f"q{number}": "k" for number in range(9)}, "f")
    write_lines(store)
    read = []
    monkeypatch.setattr(artifact_module, "digest_file", read.append)
    assert store.find("scores", "f")
    assert store.find("lines", "f")
    assert read == []


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


CHANGES = {
    "another byte": flip,
    "another size": lambda path: path.write_bytes(b"damaged"),
    "missing": Path.unlink,
    "one more": lambda path: path.with_name("copy.parquet").write_bytes(path.read_bytes()),
    "no manifest": lambda path: path.with_name("manifest.json").unlink(),
    "half a manifest": lambda path: path.with_name("manifest.json").write_text("{"),
    "manifest without sizes": lambda path: drop_sizes(path.with_name("manifest.json")),
}


def drop_sizes(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sizes": {}}))


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_counts_as_not_there_and_is_made_again(store, change):
    path = write_lines(store).path()
    CHANGES[change](path)
    assert store.find("lines", "f") is None
    assert write_lines(store).read().equals(ROWS)
    assert names(store.artifacts / "lines") == {"f", ".lock"}


def test_a_touched_file_is_read_and_found_unchanged(store):
    os.utime(write_lines(store).path(), (2**33, 2**33))
    assert store.find("lines", "f")


def test_a_byte_changed_under_an_old_time_is_found_by_reading_all(store):
    found = write_lines(store)
    status = found.path().stat()
    flip(found.path())
    os.utime(found.path(), ns=(status.st_atime_ns, status.st_mtime_ns))
    assert found.is_intact()
    assert not found.is_intact(thorough=True)


def test_damage_that_a_reader_meets_is_named(store):
    found = write_lines(store)
    content = found.path().read_bytes()
    found.path().write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    with pytest.raises(ArtifactError, match=r"lines\.parquet .*materialize 'lines' again"):
        found.read()
    found.path().write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="missing or not Parquet: materialize 'lines' again"):
        found.read()
    ROWS.rename({"text": "other"}).write_parquet(found.path())
    with pytest.raises(ArtifactError, match="does not have the declared schema: materialize 'lines' again"):
        found.scan()


def test_the_youngest_artifact_of_a_recipe_comes_first(store):
    for fingerprint in "gfh":
        make(store, {"q": "k"}, fingerprint)
    make(store, {"q": "k"}, "e", recipe="other")
    os.utime(store.folder("scores", "f") / "manifest.json", (2**33, 2**33))
    recipe = store.find("scores", "f").manifest.recipes["scores"]
    assert [found.manifest.fingerprint for found in store.of_recipe("scores", recipe)] == ["f", "h", "g"]
    assert store.of_recipe("scores", "none") == store.of_recipe("lines", recipe) == []
