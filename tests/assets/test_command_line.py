"""The command line: what it says, how it ends, and that it leaves nothing running."""

import os
import signal
import subprocess
import sys
import time

import pytest

from assets.__main__ import _selection, main
from pipeline.config import Config
from pipeline.paths import PROJECT_ROOT
from pipeline.stages import CATALOGUE, STAGES

QUESTIONS = '{"question": "q", "options": ["a", "b"]}\n{"question": "r", "options": ["a", "b"]}\n'


def select(text):
    return _selection(Config(), text)


def test_selections_name_artifacts_without_the_run():
    everything = select(None)
    assert everything == {name for spec in STAGES if not spec.optional for name in spec.artifacts}
    assert select("causal_check") == {"causal_check"}
    assert select("*pool") == {"raw_pool", "pool"}
    assert select("key:tests or key:test_labels") == {"tests", "test_labels"}
    assert select("group:training") == {"distilled_adapter", "rival_adapter", "ceiling_adapter"}
    assert select("*") == set(CATALOGUE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "raw_pol.path=x"], "did you mean 'raw_pool'"),
        (["--select", "raw_pool", "--set", "raw_pool.path=/missing.jsonl"], "/missing.jsonl"),
        (["--select", "nothing_such"], "nothing_such"),
        (["--select", "group:sources"], "selects nothing"),
        (["--select", "(("], "(("),
        (["--select", "pool"], "materialize 'raw_pool' first"),
        (["--run", "a/b"], "a/b"),
        (["--preset", "nothing_such"], "nothing_such"),
    ],
)
def test_user_errors_are_one_line(tmp_path, capfd, arguments, message):
    assert main([*arguments, "--store", str(tmp_path)]) == 2
    shown = capfd.readouterr().err
    errors = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in shown


@pytest.mark.parametrize("row", ["{broken", '{"question": "q", "options": ["a", "b"]}\n{broken'])
def test_refused_rows_are_one_line_on_the_console(tmp_path, capfd, row):
    source = tmp_path / "pool.jsonl"
    source.write_text(row)
    arguments = ["--select", "raw_pool", "--set", f"raw_pool.path={source}", "--store", str(tmp_path)]
    assert main(arguments) == 2
    assert "rows refused" in capfd.readouterr().err.splitlines()[-1]


def test_what_another_run_has_made_is_unchanged_under_the_name_of_each(tmp_path, capfd):
    source = tmp_path / "pool.jsonl"
    source.write_text(QUESTIONS)
    for run, state in (("one", "computed"), ("two", "unchanged")):
        arguments = ["--select", "raw_pool", "--set", f"raw_pool.path={source}", "--store", str(tmp_path), "--run", run]
        assert main(arguments) == 0
        shown = capfd.readouterr().out.splitlines()
        assert shown[0].split() == [state, str(tmp_path / "runs" / run / "raw_pool" / "raw_pool.parquet")]
        assert ("Nothing changed: nothing was recomputed." in shown) == (state == "unchanged")
        assert (tmp_path / "runs" / run / "raw_pool" / "raw_pool.parquet").is_file()


def test_what_was_spent_is_a_table_at_the_end_and_nothing_where_nothing_was(tmp_path, capfd):
    source = tmp_path / "pool.jsonl"
    source.write_text(QUESTIONS)
    arguments = ["--select", "*pool", "--set", f"raw_pool.path={source}", "--store", str(tmp_path), "--run", "one"]
    assert main(arguments) == 0
    shown = capfd.readouterr().out
    path = tmp_path / "runs" / "one" / "ledger.parquet"
    assert f"ledger     {path}\n" in shown
    lines = shown[shown.index(str(path)) :].splitlines()[2:]
    assert lines[0].split()[:3] == ["attempts", "seconds", "processor"]
    assert [line.split()[0] for line in lines[1:]] == ["raw_pool", "pool", "spent"]
    assert lines[-1].split()[:4] == ["spent", "this", "time", "2"]
    assert main([*arguments, "--set", "pool.ngram_size=1"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].split()[:4] == ["spent", "this", "time", "1"]
    assert main(arguments) == 0
    assert "spent this time" not in capfd.readouterr().out


RUN = """
import os, pathlib, sys, time
import pipeline.pool.run

def run(task):
    if sys.argv[2] == "process":
        task.launch([sys.executable, "-c", CHILD, sys.argv[1]])
    else:
        exec(CHILD)

CHILD = '''
import os, pathlib, sys, time
started = pathlib.Path(sys.argv[1], "started")
started.with_suffix(".part").write_text(str(os.getpid()))
started.with_suffix(".part").rename(started)
time.sleep(60)
'''
pipeline.pool.run.run = run
from assets.__main__ import main
sys.exit(main(["--select", "raw_pool", "--set", f"raw_pool.path={sys.argv[1]}/pool.jsonl", "--store", sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("where", "number"), [("process", signal.SIGINT), ("process", signal.SIGHUP), ("code", signal.SIGINT)]
)
def test_an_interrupt_is_one_line_and_leaves_no_process(tmp_path, where, number):
    (tmp_path / "pool.jsonl").write_text(QUESTIONS)
    started = tmp_path / "started"
    command = [sys.executable, "-c", RUN, str(tmp_path), where]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True) as run:
        deadline = time.monotonic() + 60
        while not started.exists() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(run.pid, number)  # what a terminal does
        _, shown = run.communicate(timeout=30)
    assert shown.splitlines() == ["interrupted: what is finished is kept, go on with the same command"]
    assert run.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
