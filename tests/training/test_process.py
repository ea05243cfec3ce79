"""The training process as a child: its failure is an error, and it does not outlive an interrupt."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.adapters.process import CrashError, run_process
from pipeline.errors import TrainingError
from pipeline.paths import PROJECT_ROOT

PARENT = """
import sys
from pipeline.adapters import process
process._SECONDS_TO_END = float(sys.argv[1])
process.run_process([sys.executable, "-c", sys.argv[2], sys.argv[3]])
"""
CHILD = """
import os, pathlib, signal, sys, time
{setup}
started = pathlib.Path(sys.argv[1])
started.with_suffix(".part").write_text(str(os.getpid()))
started.with_suffix(".part").rename(started)
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    started.with_name("tidied").touch()
"""

TORCHRUN = """
import sys; from training.distributed import launch
launch([sys.argv[1], sys.argv[2]], 2)
"""
MEMBER = """
import os, pathlib, signal, sys, time
from training.parent import end_with_input
end_with_input()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1] + os.environ["RANK"]).write_text(f"{os.getpid()} {os.getppid()}")
time.sleep(60)
"""


def test_a_process_that_ends_well_is_silent(capfd):
    run_process([sys.executable, "-c", "pass"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("raise SystemExit(3)", CrashError, r"^the training process ended with code 3: it said nothing$"),
        (
            "import sys; print('error: too few questions: add some', file=sys.stderr); sys.exit(2)",
            TrainingError,
            "^too",
        ),
        (
            "import sys\n[print(f'step {i}', file=sys.stderr) for i in range(9)]\n1 / 0",
            CrashError,
            r"code 1: its last lines: .*step 8 \| Traceback .*\| ZeroDivisionError: division by zero$",
        ),
        ("import os; os.kill(os.getpid(), 9)", CrashError, r"^the training process was ended by SIGKILL \(the system"),
        ("import os; os.abort()", CrashError, "was ended by SIGABRT: "),
    ],
)
def test_a_process_that_fails_is_an_error_that_says_why(capfd, code, kind, message):
    with pytest.raises(TrainingError, match=message) as caught:
        run_process([sys.executable, "-c", code])
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    said = capfd.readouterr().err
    assert said.count("step") == (9 if "step" in code else 0)


@pytest.mark.parametrize(
    ("setup", "seconds", "tidied"),
    [
        ("signal.signal(signal.SIGTERM, signal.default_int_handler)", 30, True),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 0.2, False),
    ],
)
def test_an_interrupt_gives_the_process_time_to_end_and_then_ends_it(tmp_path, setup, seconds, tidied):
    started = tmp_path / "started"
    command = [sys.executable, "-c", PARENT, str(seconds), CHILD.format(setup=setup), str(started)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, start_new_session=True, stderr=subprocess.PIPE) as parent:
        deadline = time.monotonic() + 60
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(parent.pid, signal.SIGINT)  # what a terminal does
        _, complaint = parent.communicate(timeout=30)
    assert b"KeyboardInterrupt" in complaint
    assert (tmp_path / "tidied").exists() == tidied
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


@pytest.mark.parametrize("kill", [True, False])
def test_a_process_that_heeds_its_input_ends_with_its_parent_or_by_itself(tmp_path, kill):
    setup = "from training.parent import end_with_input; end_with_input()"
    child = CHILD.format(setup=setup) if kill else f"{setup}\nimport pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
    started = tmp_path / "started"
    command = [sys.executable, "-c", PARENT, "1", child, str(started)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, start_new_session=True) as parent:
        deadline = time.monotonic() + 60
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        if not kill:
            assert parent.wait(30) == 0
            return
        os.kill(parent.pid, signal.SIGKILL)
    pid = int(started.read_text())
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists() and "Z" not in _state(pid):
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or "Z" in _state(pid)


FAMILY = """
import os, pathlib, signal, subprocess, sys
folder = pathlib.Path(sys.argv[1])
grandchild = (
    "import os, pathlib, signal, sys, time; {heed}signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "pathlib.Path(sys.argv[1], f'{{os.getpid()}}.pid').touch(); time.sleep(60)"
)
children = [
    subprocess.Popen([sys.executable, "-c", grandchild, str(folder)], start_new_session={session}) for _ in range(2)
]
while len(list(folder.glob("*.pid"))) < 2:
    pass
(folder / f"{{os.getpid()}}.pid").touch()
(folder / "all").touch()
{end}
"""
HEED = "from training.parent import end_with_input; end_with_input();"


@pytest.mark.parametrize("session", [False, True], ids=["same session", "own session"])
@pytest.mark.parametrize("end", ["interrupt", "kill", "fail", "finish"])
def test_nothing_of_a_tree_of_processes_is_left_whatever_ends_it(tmp_path, session, end):
    """Children that ignore SIGTERM; in a session of their own, as torchrun starts them, where they heed their input."""
    ends = {"fail": "sys.exit(3)", "finish": "", "interrupt": "signal.pause()", "kill": f"{HEED} signal.pause()"}
    heed = HEED if session or end == "kill" else ""
    tree = FAMILY.format(heed=heed, session=session, end=ends[end])
    command = [sys.executable, "-c", PARENT, "0.2", tree, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, start_new_session=True, stderr=subprocess.PIPE) as parent:
        deadline = time.monotonic() + 60
        while not (tmp_path / "all").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        if end in ("interrupt", "kill"):
            os.kill(parent.pid, signal.SIGINT if end == "interrupt" else signal.SIGKILL)
        complaint = parent.communicate(timeout=60)[1]
    assert (b"ended with code 3" in complaint) == (end == "fail")
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert len(pids) == 3
    while time.monotonic() < deadline and any(_state(pid) != "Z" for pid in pids):
        time.sleep(0.02)
    assert [_state(pid) for pid in pids] == ["Z"] * 3


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_the_processes_that_torchrun_started_end_with_their_parent(tmp_path, end):
    """torchrun gives each a session of its own, where no signal to the group arrives; and these ignore its SIGTERM."""
    member, started = tmp_path / "member.py", tmp_path / "started"
    member.write_text(MEMBER)
    parent_program = PARENT.replace("sys.argv[3]]", "*sys.argv[3:]]")
    command = [sys.executable, "-c", parent_program, "1", TORCHRUN, str(member), str(started)]
    env = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=env, start_new_session=True, stderr=subprocess.DEVNULL
    ) as parent:
        deadline = time.monotonic() + 120
        files = [tmp_path / f"started{rank}" for rank in (0, 1)]
        while time.monotonic() < deadline and not all(path.exists() and path.read_text() for path in files):
            time.sleep(0.05)
        os.killpg(parent.pid, end)
    tree = {int(pid) for path in files for pid in path.read_text().split()}
    assert len(tree) == 3
    while time.monotonic() < deadline and any(_state(pid) != "Z" for pid in tree):
        time.sleep(0.05)
    assert {_state(pid) for pid in tree} == {"Z"}


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"
