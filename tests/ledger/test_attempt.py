"""Records of attempts: kept while they go on, whatever ends them, and beside others at the same time."""

import json
import logging
import subprocess
import sys
import time

import pytest

from pipeline.ledger import attempt, usage
from pipeline.ledger.attempt import Recording, read_attempts
from pipeline.ledger.meter import count_tokens, metered
from pipeline.ledger.usage import Cost, Usage, costs_of_process, keep_cost
from pipeline.paths import PROJECT_ROOT

WORKER = """
import sys, time
from pathlib import Path
from pipeline.ledger import attempt
from pipeline.ledger.meter import count_tokens

attempt.UPDATE_SECONDS = 0.05
with attempt.Recording(Path(sys.argv[1]), "rollouts", "f", None, sys.argv[2]):
    count_tokens(read=int(sys.argv[3]), generated=7)
    sum(range(5_000_000))
    print("counted", flush=True)
    sys.stdin.read()
"""


def recording(folder, **changes):
    return Recording(folder, **{"stage": "rollouts", "fingerprint": "f", "objective": None, "run": "r"} | changes)


def attempts(folder):
    return read_attempts(sorted(folder.glob("*/*")))


def start(folder, run, read):
    command = [sys.executable, "-c", WORKER, str(folder), run, str(read)]
    worker = subprocess.Popen(command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "counted\n"
    return worker


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_what_is_counted_within_a_block_is_recorded_and_nothing_else(tmp_path):
    count_tokens(read=100)
    with recording(tmp_path, objective="opsd") as record:
        count_tokens(read=3, generated=2)
        count_tokens(read=4, trained=5)
        [now] = attempts(tmp_path)
        assert (now.state, now.read_tokens) == ("running", 0)
    count_tokens(read=100)
    [found] = attempts(tmp_path)
    assert found == record.attempt
    assert (found.state, found.stage, found.objective, found.run) == ("done", "rollouts", "opsd", "r")
    assert (found.read_tokens, found.generated_tokens, found.trained_tokens) == (7, 2, 5)
    assert found.seconds > 0
    assert found.gpu_seconds == found.peak_gpu_memory == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_attempt_that_an_error_ends_is_recorded_with_what_it_cost(tmp_path, error):
    with pytest.raises(error), recording(tmp_path):
        count_tokens(generated=2)
        raise error
    [found] = attempts(tmp_path)
    assert (found.state, found.generated_tokens) == ("failed", 2)


def test_attempts_at_once_are_recorded_apart_and_a_killed_one_by_what_is_known(tmp_path):
    one, other = start(tmp_path, "one", 10), start(tmp_path, "other", 20)
    wait_for(lambda: [found.read_tokens for found in attempts(tmp_path)] == [10, 20])
    assert {found.state for found in attempts(tmp_path)} == {"running"}
    one.kill()
    one.wait()
    other.communicate()
    killed, done = attempts(tmp_path)
    assert (killed.run, killed.state, killed.read_tokens, killed.generated_tokens) == ("one", "killed", 10, 7)
    assert (done.run, done.state, done.read_tokens, done.generated_tokens) == ("other", "done", 20, 7)
    assert killed.processor_seconds > 0
    assert killed.peak_memory > 0


def test_costs_add_up_and_of_peaks_the_larger_counts():
    one = Cost(seconds=1, read_tokens=2, peak_memory=30, peak_gpu_memory=4)
    other = Cost(seconds=0.5, read_tokens=1, trained_tokens=6, peak_memory=20, peak_gpu_memory=5)
    assert one + other == Cost(seconds=1.5, read_tokens=3, trained_tokens=6, peak_memory=30, peak_gpu_memory=5)
    unknown = Cost(peak_memory=None)
    assert (one + unknown).peak_memory == (unknown + one).peak_memory == 30
    assert (unknown + unknown).peak_memory is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"stage": "rollouts"}', b"\xff"])
def test_a_damaged_record_is_said_in_one_line_and_left_out(tmp_path, caplog, content):
    with recording(tmp_path):
        pass
    (tmp_path / "rollouts" / "f" / "bad.json").write_bytes(content)
    for _ in range(2):
        assert [found.state for found in attempts(tmp_path)] == ["done"]
    assert caplog.messages == [
        f"{tmp_path}/rollouts/f/bad.json cannot be read and is left out of the ledger: remove it"
    ]


def test_a_record_that_cannot_be_written_is_said_in_one_line_and_the_cost_is_told(tmp_path, caplog):
    (tmp_path / "rollouts").write_text("in the way")
    with recording(tmp_path) as record:
        count_tokens(read=3)
    assert (record.attempt.state, record.attempt.read_tokens) == ("done", 3)
    [message] = caplog.messages
    assert message == f"what 'rollouts' costs is not recorded: {tmp_path}/rollouts/f (Not a directory)"


def test_a_disk_that_is_full_later_is_said_once(tmp_path, caplog, monkeypatch):
    if not (full := attempt.Path("/dev/full")).exists():
        pytest.skip("no /dev/full")
    with recording(tmp_path) as record:
        record._file.close()
        record._file = full.open("wb", buffering=0)
        record._update("running")
        record._update("running")
    assert [found.state for found in attempts(tmp_path)] == ["killed"]
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "No space left on device" in caplog.text


PEAKS = """
import json, sys
from pathlib import Path
import numpy as np
from pipeline.ledger import usage
from pipeline.ledger.meter import Meter

if len(sys.argv) > 1:
    usage._CLEAR_REFS = Path(sys.argv[1])
before = np.ones(300_000_000, dtype=np.uint8)
del before
small = usage.Usage(Meter())
held = np.ones(100_000_000, dtype=np.uint8)
peaks = [small.cost().peak_memory]
large = [held, np.ones(400_000_000, dtype=np.uint8)]
peaks.append(small.cost().peak_memory)
del held, large
peaks.append(usage.Usage(Meter()).cost().peak_memory)
print(json.dumps(peaks))
"""


@pytest.mark.parametrize("resets", [True, False])
def test_the_peak_of_memory_is_that_of_the_block_or_unknown(tmp_path, resets):
    """In a process of its own: one that has done much may hold free memory, which a block then takes for nothing."""
    if not usage._CLEAR_REFS.exists():
        pytest.skip("Linux only")
    missing = [] if resets else [str(tmp_path / "missing" / "clear_refs")]
    command = [sys.executable, "-c", PEAKS, *missing]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    small, large, idle = json.loads(done.stdout)
    if resets:
        assert 80e6 < small - idle < 250e6
    else:
        assert small is None  # it had been higher before
        assert large > 500e6


CHILD = """
import sys
from pathlib import Path
from pipeline.ledger.meter import count_tokens, metered
from pipeline.ledger.usage import Usage, keep_cost

with metered() as meter:
    usage = Usage(meter)
    count_tokens(trained=11)
    sum(range(20_000_000))
    keep_cost(usage.cost(), Path(sys.argv[1]))
    print("kept", flush=True)
    sys.stdin.read()
"""


def test_a_process_that_was_started_counts_while_it_runs_and_when_it_has_ended(tmp_path):
    keep_cost(Cost(trained_tokens=1000), tmp_path)
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with metered() as meter:
        own = Usage(meter)
        with costs_of_process(tmp_path):
            assert own.cost().trained_tokens == 0
            child = subprocess.Popen(
                command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert child.stdout.readline() == "kept\n"
            running, kept = own.cost(), Cost.model_validate_json((tmp_path / "cost-0.json").read_bytes())
            child.communicate()
        (tmp_path / "cost-0.json").unlink()
        ended = own.cost()
    assert running.trained_tokens == ended.trained_tokens == 11
    assert running.processor_seconds >= kept.processor_seconds > 0.1
    assert ended.processor_seconds > running.processor_seconds  # its start counts, too
    assert running.peak_memory >= kept.peak_memory > 0


def test_processes_of_one_training_add_up(tmp_path, monkeypatch):
    with metered() as meter:
        own = Usage(meter)
        with costs_of_process(tmp_path):
            for rank in ("0", "1"):
                monkeypatch.setenv("RANK", rank)
                keep_cost(
                    Cost(trained_tokens=5, gpu_seconds=2, peak_memory=10, peak_gpu_memory=7 + int(rank)), tmp_path
                )
        cost = own.cost()
    assert (cost.trained_tokens, cost.gpu_seconds, cost.peak_gpu_memory) == (10, 4, 8)
    assert cost.peak_memory > 20
