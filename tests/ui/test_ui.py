"""The Dagster UI in a real browser: one click materializes a slice, and its page shows the plot of the scores.

Takes a minute and more, so it runs where NEURON_OPSD_UI is set (``make test-ui``), which keeps screenshots there.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pipeline.paths import PROJECT_ROOT

SHOTS = os.environ.get("NEURON_OPSD_UI", "")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PRESET = """
raw_pool: {path: data/reference/pool.jsonl, limit: 24}
rollouts: {n_samples: 2, max_new_tokens: 20, instruction: ""}
context_beliefs: {n_samples: 1}
neuron_scores: {top_k: 400}
teacher_contexts: {max_teacher_tokens: 512}
teacher_lift: {n_questions: 0}
distilled_adapter: {steps: 1, trajectories_per_step: 2, micro_batch: 2, max_new_tokens: 20}
rival_adapter: {enabled: false}
model: {path: data/reference/model}
tests: {in_domain_path: data/reference/in_domain_test.jsonl, limit: 8}
predictions: {n_samples: 1}
evaluation: {n_resamples: 100}
"""


def ask(address, query):
    request = urllib.request.Request(f"{address}/graphql", json.dumps({"query": query}).encode())
    request.add_header("Content-Type", "application/json")
    return json.load(urllib.request.urlopen(request, timeout=30))["data"]


def until(found, seconds, what):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if result := found():
                return result
        except OSError:
            pass  # not up yet
        time.sleep(0.5)
    raise AssertionError(f"no {what} within {seconds} s")


@pytest.fixture
def address(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    (tmp_path / "slice.yaml").write_text(PRESET)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "DAGSTER_HOME": str(tmp_path / "home"),
        "NEURON_OPSD_PRESET": str(tmp_path / "slice.yaml"),
        "NEURON_OPSD_RUN": "ui",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "dagster", "dev", "-m", "definitions", "-p", str(port)]
    with (tmp_path / "dev.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: ask(url, "{ version }"), 90, "webserver")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.skipif(not SHOTS, reason="NEURON_OPSD_UI names a folder for screenshots; make test-ui")
def test_one_click_materializes_a_slice_and_the_scores_page_shows_their_plot(address):
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed (Debian: apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test installs it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=False, args=["--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.goto(f"{address}/asset-groups")
        materialize = page.get_by_role("button", name="Materialize all").first
        materialize.wait_for(timeout=60_000)
        materialize.click()

        def ended():
            runs = ask(address, "{ runsOrError { ... on Runs { results { status } } } }")["runsOrError"]["results"]
            states = [run["status"] for run in runs]
            assert "FAILURE" not in states
            return "SUCCESS" in states

        until(ended, 240, "successful run")
        page.reload()
        materialize.wait_for(timeout=60_000)
        page.wait_for_timeout(3_000)
        page.screenshot(path=Path(SHOTS, "ui.png"))
        page.goto(f"{address}/assets/ui/neuron_scores")
        page.wait_for_timeout(2_000)
        page.screenshot(path=Path(SHOTS, "ui-scores.png"))
        page.get_by_placeholder("Filter metadata keys").fill("plot")
        page.get_by_text("Show Markdown").first.click()
        page.locator("img[src^='data:image/png;base64,']").first.wait_for(timeout=60_000)
        browser.close()
