"""The whole chain, killed again and again at random moments and gone on with: the bytes of an uninterrupted run.

Takes minutes, so it runs where NEURON_OPSD_KILLS says how many times (``make test-kills``); single stages are killed in
``tests/rollouts``, ``tests/store`` and ``tests/training`` every time.
"""

import os
import random
import signal
import subprocess
import sys

import pytest

from pipeline.paths import PROJECT_ROOT
from pipeline.stages import STAGES, open_store

KILLS = int(os.environ.get("NEURON_OPSD_KILLS", "0"))
SETTINGS = (
    *("raw_pool.limit=40", "rollouts.n_samples=2", "context_beliefs.n_samples=1", "teacher_lift.n_samples=1"),
    *("distilled_adapter.steps=4", "distilled_adapter.trajectories_per_step=4", "distilled_adapter.micro_batch=4"),
    *("distilled_adapter.checkpoint_every=1", "rival_adapter.steps=4", "rival_adapter.trajectories_per_step=4"),
    *("rival_adapter.micro_batch=2", "rival_adapter.checkpoint_every=1", "tests.limit=12", "predictions.n_samples=2"),
    *("evaluation.n_resamples=100",),
)


def start(root):
    changes = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [sys.executable, "-m", "assets", "--store", str(root), *changes]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=PROJECT_ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def digests(root):
    """Return the digests of all files of all artifacts; reports and cards name the store that they lie in."""
    run = open_store(root).run("reference")
    names = [name for spec in STAGES if not spec.optional for name in spec.artifacts]
    return {
        (name, file): digest
        for name in names
        for file, digest in run.require(name).manifest.digests.items()
        if not file.endswith(".md")
    }


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.skipif(not KILLS, reason="NEURON_OPSD_KILLS says how often the chain is killed; make test-kills")
def test_a_chain_killed_at_random_moments_ends_with_the_same_bytes(tmp_path):
    draw, kills, attempt, struck = random.Random(0), 0, 0, set()
    start(tmp_path / "whole").communicate()
    expected = digests(tmp_path / "whole")
    while kills < KILLS:
        attempt += 1
        root = tmp_path / f"killed-{attempt}"
        finished = False
        while not finished:
            process = start(root)
            try:
                process.communicate(timeout=draw.uniform(4, 24) if kills < KILLS else None)
                assert process.returncode == 0
                finished = True
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
                stands = sum(open_store(root).run("reference").find(spec.name) is not None for spec in STAGES)
                struck.add(stands)
        assert digests(root) == expected
        assert all(artifact.is_intact(thorough=True) for artifact in shown(root))
    sys.stdout.write(f"{kills} kills in {attempt} chains, with {sorted(struck)} stages standing\n")


def shown(root):
    run = open_store(root).run("reference")
    return [run.require(name) for spec in STAGES if not spec.optional for name in spec.artifacts]
