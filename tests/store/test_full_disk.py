"""A disk that is full, really: a small one is mounted, and made larger when the run has stopped."""

import json
import re

from assets.__main__ import main
from pipeline.chain import materialize
from pipeline.presets import load_config
from pipeline.stages import open_store, stage_of


def test_a_full_disk_stops_a_run_which_goes_on_with_the_same_bytes_when_there_is_room(small_disk, tmp_path, capfd):
    (disk, resize), source, spec = small_disk, tmp_path / "pool.jsonl", stage_of("raw_pool")
    rows = [{"question": f"What is {n} squared?", "options": [f"{n * n + k}" for k in range(4)]} for n in range(1_500)]
    source.write_text("\n".join(map(json.dumps, rows)))
    run = open_store(disk).run("one")
    command = ["--select", "raw_pool", "--set", f"raw_pool.path={source}", "--run", "one", "--store", str(disk)]
    for kilobytes in (4, 48):
        resize(kilobytes)
        assert main(command) == 2
        said = capfd.readouterr().err.splitlines()[-1]
        found = re.fullmatch(
            r"error: (\S+) cannot be written \(No space left on device, (\S+) MB are free\): (.*)", said
        )
        assert re.fullmatch(rf"{disk}/store/raw_pool/\.\w+\.0\.part/raw_pool\.parquet", found[1])
        assert float(found[2]) < kilobytes / 1e3
        assert found[3] == "make room, or name another folder by --store"
        assert [run.find(name) for name in spec.artifacts] == [None] * 3
    resize(10_000)
    assert main(command) == 0
    whole, config = open_store(tmp_path / "data").run("one"), load_config(overrides=[f"raw_pool.path={source}"])
    made = materialize(spec, config.raw_pool, config.model, whole).artifacts
    assert {name: run.require(name).manifest.digests for name in spec.artifacts} == {
        name: artifact.manifest.digests for name, artifact in made.items()
    }
    assert all(run.require(name).is_intact(thorough=True) for name in spec.artifacts)
