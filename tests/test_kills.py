"""The whole chain, killed at random moments of its stages and gone on with: the bytes of an uninterrupted run.

Takes minutes, so it runs where NEURON_OPSD_KILLS says how many times (``make test-kills``); single stages are killed in
``tests/rollouts``, ``tests/store`` and ``tests/training`` every time.

The ledger tells which stage is at work, and in which one a kill fell. While an adapter is trained three things can be
struck: the chain, the process that trains, or both; or the chain alone, while that process is kept from noticing, so
that the next run meets it alive.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from pipeline.ledger.attempt import read_attempts
from pipeline.paths import PROJECT_ROOT
from pipeline.stages import STAGES, open_store

KILLS = int(os.environ.get("NEURON_OPSD_KILLS", "0"))
STEPS = 12
TRAINED = ("rival_adapter", "distilled_adapter")
LEFT_BEHIND = "chain, the trainer left behind"
VICTIMS = ("chain", "trainer", "both", LEFT_BEHIND)
SETTINGS = (
    *("raw_pool.limit=40", "rollouts.n_samples=2", "context_beliefs.n_samples=1", "teacher_lift.n_samples=1"),
    *("tests.limit=12", "predictions.n_samples=2", "evaluation.n_resamples=100", "distilled_adapter.micro_batch=4"),
    *("distilled_adapter.trajectories_per_step=4", "rival_adapter.trajectories_per_step=4"),
    *(f"{name}.{setting}" for name in TRAINED for setting in (f"steps={STEPS}", "checkpoint_every=1")),
    "rival_adapter.micro_batch=2",
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif(not KILLS, reason="NEURON_OPSD_KILLS says how often the chain is killed; make test-kills"),
]


def start(root, log=None):
    """Start the chain, which writes what it says beside its store, or where ``log`` says."""
    log = log or root
    changes = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [sys.executable, "-m", "assets", "--store", str(root), *changes]
    with log.with_suffix(".out").open("w") as out, log.with_suffix(".err").open("a") as err:
        return subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def finish(root):
    """Run the chain to its end; return the artifacts that it computed."""
    status = start(root).wait()
    assert status == 0, root.with_suffix(".err").read_text()
    shown = root.with_suffix(".out").read_text().splitlines()
    return {Path(line.split()[1]).parts[-2] for line in shown if line.startswith("computed ")}


def found(root):
    """Return the artifacts that stand in a run."""
    run = open_store(root).run("reference")
    names = [name for spec in STAGES if not spec.optional for name in spec.artifacts]
    return {name: artifact for name in names if (artifact := run.find(name))}


def artifacts(root):
    """Return the artifacts of a run, all of them."""
    standing = found(root)
    assert set(standing) == {name for spec in STAGES if not spec.optional for name in spec.artifacts}
    return standing


def digests(root):
    """Return the digests of all files of all artifacts; reports and cards name the store that they lie in."""
    return {
        (name, file): digest
        for name, artifact in artifacts(root).items()
        for file, digest in artifact.manifest.digests.items()
        if not file.endswith(".md")
    }


def attempts(root):
    return read_attempts((root / "ledger").glob("*/*"))


def at_work(root):
    return next((attempt.stage for attempt in attempts(root) if attempt.state == "running"), None)


def steps_kept(root, stage):
    """Return the last step of which the training of an adapter that is not whole has a checkpoint."""
    found = (root / "store" / stage).glob(".*.part/.work/output/checkpoints/step-*")
    return max((int(path.name.removeprefix("step-")) for path in found), default=0)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def trainers_of(process):
    """Return the processes that train for a chain."""
    found = []
    for pid in " ".join(map(read, Path(f"/proc/{process.pid}/task").glob("*/children"))).split():
        found += [int(pid)] * ("training.run" in read(Path(f"/proc/{pid}/cmdline")))
    return found


def read(path):
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # a process that has ended meanwhile
        return ""


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store in which the chain was not disturbed, and the digests of its files."""
    root = tmp_path_factory.mktemp("whole") / "store"
    finish(root)
    return root, digests(root)


def plan(root, draw):
    """Draw stages to strike, in the order in which they run, and the share of its work after which each is struck.

    An adapter is struck while it starts and then after some steps, ascending, as it goes on where it was.
    """
    order = list(dict.fromkeys(attempt.stage for attempt in attempts(root)))
    each = min(len(VICTIMS), max(1, KILLS // 5))
    others = [name for name in order if name not in TRAINED]
    n_others = max(0, KILLS - each * len(TRAINED))
    struck = draw.sample(others * (1 + n_others // len(others)), n_others) + [*TRAINED] * each
    steps = {name: [0, *sorted(draw.sample(range(1, STEPS - 3), each - 1))] for name in TRAINED}
    return [
        (stage, steps[stage].pop(0) if stage in TRAINED else 0, draw.random())
        for stage in sorted(struck, key=order.index)
    ], order


class Strikes:
    """Kills a chain, stage by stage."""

    def __init__(self, whole, draw):
        self.targets, self.order = plan(whole, draw)
        self.seconds = {attempt.stage: attempt.seconds for attempt in attempts(whole)}
        self.victims = dict(zip(TRAINED, ([*VICTIMS], [*reversed(VICTIMS)]), strict=True))
        self.fell, self.steps, self.left = Counter(), {name: [] for name in TRAINED}, None

    def strike(self, root):
        """Start the chain and kill it in the stage that comes next; return whether it was still at work then."""
        stage, step, share = self.targets[0]
        process = start(root)
        if self.left:
            self._meet(process)
        until(lambda: process.poll() is not None or self._has_come(root, stage, step), 300)
        time.sleep(share * (0.2 if step else 0.8 * self.seconds[stage]))
        if process.poll() is not None:
            assert process.returncode == 0, root.with_suffix(".err").read_text()
            return False
        now = at_work(root)
        self._kill(process, now if now in TRAINED else None)
        ended = attempts(root)[-1]
        assert ended.state != "running"
        self.fell[ended.stage if ended.state in ("killed", "failed") else "between stages"] += 1
        if now in TRAINED:
            self.steps[now].append(steps_kept(root, now))
        self.targets.pop(0)
        return True

    def _has_come(self, root, stage, step):
        now = at_work(root)
        is_later = now is not None and self.order.index(now) > self.order.index(stage)
        return is_later or (now == stage and steps_kept(root, stage) >= step)

    def _kill(self, process, adapter):
        trainers = trainers_of(process) if adapter else []
        victim = self.victims[adapter].pop(0) if trainers and self.victims[adapter] else "chain"
        if victim == LEFT_BEHIND:
            # Its standard input stays open, or it would end; stopped before, it would be hung up on as an orphan.
            self.left = (trainers[0], os.open(f"/proc/{trainers[0]}/fd/0", os.O_WRONLY))
        for pid in trainers if victim in ("trainer", "both") else ():
            os.kill(pid, signal.SIGKILL)
        if victim != "trainer":
            process.kill()
        assert process.wait() in (-signal.SIGKILL, 2)  # 2: the chain says that the process which trains was killed
        if self.left:
            os.kill(self.left[0], signal.SIGSTOP)
        else:
            until(lambda: not any(map(is_alive, trainers)), 30)

    def _meet(self, process):
        """Let what was left behind go on, and end, when the next one has come to train into the same folder."""
        until(lambda: process.poll() is not None or trainers_of(process), 120)
        time.sleep(5)  # until it looks at the folder; it waits there for half a minute
        pid, held = self.left
        assert is_alive(pid)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.2)  # it trains on
        os.close(held)
        until(lambda: not is_alive(pid), 30)
        self.left = None


def test_a_chain_killed_in_the_midst_of_its_stages_ends_with_the_same_bytes(whole, tmp_path):
    (root, expected), chains = whole, 0
    strikes = Strikes(root, random.Random(0))
    while strikes.targets:
        chains += 1
        killed = tmp_path / f"killed-{chains}"
        while strikes.targets and strikes.strike(killed):
            pass
        if strikes.left:
            process = start(killed)
            strikes._meet(process)
            process.wait()
        finish(killed)
        assert digests(killed) == expected
        assert all(artifact.is_intact(thorough=True) for artifact in artifacts(killed).values())
    sys.stdout.write(f"\n{sum(strikes.fell.values())} kills in {chains} chains: {dict(strikes.fell)}\n")
    sys.stdout.write(f"training was struck after steps {strikes.steps}\n")
    for name in TRAINED:
        assert any(0 < step < STEPS for step in strikes.steps[name]) or KILLS < 10
        assert strikes.fell[name]
    assert sum(strikes.fell.values()) == KILLS


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turn_a_bit(path):
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])


def test_torn_foreign_changed_and_lost_files_are_noticed_and_made_again(whole):
    (root, expected), made = whole, artifacts(whole[0])
    cut_off(made["distilled_adapter"].folder / "adapter_model.safetensors")
    turn_a_bit(made["neuron_scores"].files("stem_states")[0])
    (foreign,) = made["rival_predictions"].files("in_domain")
    made["base_predictions"].files("in_domain")[0].write_bytes(foreign.read_bytes())
    made["gold_labels"].path().unlink()
    of_raw_pool = {"raw_pool", "gold_labels", "quarantine"}
    assert finish(root) == of_raw_pool | {"distilled_adapter", "neuron_scores", "base_predictions"}
    assert digests(root) == expected
    assert all(artifact.is_intact(thorough=True) for artifact in artifacts(root).values())


def test_a_chain_that_fills_its_disk_again_and_again_goes_on_and_ends_with_the_same_bytes(whole, small_disk, tmp_path):
    (_, expected), (disk, resize), log = whole, small_disk, tmp_path / "log"
    root, stopped = disk / "store", []
    for kilobytes in (60, 200, 800, 2_500, 100_000):
        resize(kilobytes)
        status = start(root, log).wait()
        said = log.with_suffix(".err").read_text().splitlines()[-1]
        assert status == (2 if kilobytes < 100_000 else 0), said
        if status:
            assert said.startswith("error: ")
            assert re.search(r" cannot be written \(.*No space left on device.*\): make room", said)
            stopped.append(attempts(root)[-1].stage)
        assert all(artifact.is_intact(thorough=True) for artifact in found(root).values())
    sys.stdout.write(f"\nfull while at work on {stopped}\n")
    assert len(set(stopped)) > 2
    assert not {*TRAINED}.isdisjoint(stopped)
    assert digests(root) == expected
