"""Digests of values do not depend on their order; large files are read when they have changed."""

import hashlib
import subprocess
import sys

import pytest

from pipeline import digests
from pipeline.digests import digest_file, digest_json, digest_unchanged
from pipeline.paths import PROJECT_ROOT

ELSEWHERE = """
import sys
from pathlib import Path
from pipeline import digests
digests.NOTES, digests._LARGE, digests.digest_file = Path(sys.argv[1]), 8, None
sys.stdout.write(digests.digest_unchanged(Path(sys.argv[2])))
"""


def test_a_value_has_one_digest():
    assert digest_json({"b": [1, 2.5], "a": "ü"}) == digest_json({"a": "ü", "b": [1, 2.5]})
    assert digest_json({"a": "ü"}) == hashlib.sha256('{"a":"ü"}'.encode()).hexdigest()
    assert digest_json([1, 2]) != digest_json([2, 1])


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Names of the files that were read."""
    names = []

    def spy(path):
        names.append(path.name)
        return digest_file(path)

    monkeypatch.setattr(digests, "NOTES", tmp_path / "notes")
    monkeypatch.setattr(digests, "_LARGE", 8)
    monkeypatch.setattr(digests, "digest_file", spy)
    return names


def test_a_large_file_is_read_once_and_again_when_it_changed(tmp_path, read):
    path = tmp_path / "weights"
    path.write_bytes(b"0123456789")
    first = digest_unchanged(path)
    assert first == hashlib.sha256(b"0123456789").hexdigest() == digest_unchanged(path)
    assert read == ["weights"]
    path.write_bytes(b"9876543210")
    assert digest_unchanged(path) == hashlib.sha256(b"9876543210").hexdigest()
    assert read == ["weights"] * 2


def test_another_process_does_not_read_it_again(tmp_path, read):
    path = tmp_path / "weights"
    path.write_bytes(b"0123456789")
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "notes"), str(path)]
    found = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert "NoneType" in found.stderr  # nobody has read it yet
    digest = digest_unchanged(path)
    assert subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout == digest


def test_a_small_file_is_read_each_time(tmp_path, read):
    path = tmp_path / "config"
    path.write_bytes(b"0")
    assert digest_unchanged(path) == digest_unchanged(path) == digest_file(path)
    assert read == ["config"] * 2
    assert not (tmp_path / "notes").exists()


@pytest.mark.parametrize("spoil", ["", "[]", "{}", '{"stamp": 1, "digest": "x"}'])
def test_damaged_notes_and_a_folder_that_cannot_be_written_only_cost_time(tmp_path, read, spoil):
    path = tmp_path / "weights"
    path.write_bytes(b"0123456789")
    digest_unchanged(path)
    (note,) = (tmp_path / "notes").iterdir()
    note.write_text(spoil)
    assert digest_unchanged(path) == digest_file(path)
    assert digest_unchanged(path) == digest_file(path)
    assert read == ["weights"] * 2
    digests.NOTES = tmp_path / "weights" / "notes"
    assert digest_unchanged(path) == digest_file(path)
