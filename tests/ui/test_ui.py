"""The Dagster UI in a real browser: one click materializes a slice, and pages show plots, lineage, and text as text.

Takes a minute and more, so it runs where NEURON_OPSD_UI is set (``make test-ui``), which keeps screenshots there.
"""

import json
import os
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
STRANGE = (
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 2'>",
    "![seen](http://spy.invalid/seen.png)",
    "[click](javascript:window.pwned=3)",
)
"""What a stranger writes into a file of questions."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(not SHOTS, reason="NEURON_OPSD_UI names a folder for screenshots; make test-ui"),
]
PRESET = """
raw_pool: {path: POOL, limit: 28}
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


@pytest.fixture(scope="module")
def address(browser, tmp_path_factory):
    """Address of a webserver whose pool holds what a stranger wrote: a question first, and a row that is refused."""
    folder = tmp_path_factory.mktemp("ui")
    (folder / "home").mkdir()
    (folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    strange = [{"question": f"Is {text} it?", "options": [text, "b"], "domain": text} for text in STRANGE]
    rows = [json.dumps(row) for row in [*strange, strange[0] | {"options": [STRANGE[0]]}]]
    rows += (PROJECT_ROOT / "data/reference/pool.jsonl").read_text().splitlines()[:24]
    (folder / "pool.jsonl").write_text("\n".join(rows))
    (folder / "slice.yaml").write_text(PRESET.replace("POOL", str(folder / "pool.jsonl")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "DAGSTER_HOME": str(folder / "home"),
        "NEURON_OPSD_PRESET": str(folder / "slice.yaml"),
        "NEURON_OPSD_RUN": "ui",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "dagster", "dev", "-m", "definitions", "-p", str(port)]
    with (folder / "dev.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: ask(url, "{ version }"), 180, "webserver")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:  # how long Dagster takes to end is not what is tested
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def page(browser, address):
    """The page of the graph, where one click has materialized all."""
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

    until(ended, 900, "successful run")
    page.reload()
    materialize.wait_for(timeout=60_000)
    page.wait_for_timeout(3_000)
    page.screenshot(path=Path(SHOTS, "ui.png"))
    return page


def show(page, key):
    """Have a Markdown entry of an asset's metadata shown; a short one is shown at once."""
    page.get_by_placeholder("Filter metadata keys").fill(key)
    page.get_by_role("cell", name=key, exact=True).first.wait_for(timeout=60_000)
    if page.get_by_text("Show Markdown").count():
        page.get_by_text("Show Markdown").first.click()


def test_one_click_materializes_a_slice_and_the_scores_page_shows_their_plot(page, address):
    page.goto(f"{address}/assets/ui/neuron_scores")
    page.wait_for_timeout(2_000)
    page.screenshot(path=Path(SHOTS, "ui-scores.png"))
    show(page, "plot")
    page.locator("img[src^='data:image/png;base64,']").first.wait_for(timeout=60_000)


def test_a_column_says_what_it_is_made_from(page, address):
    page.goto(f"{address}/assets/ui/pseudo_labels")
    page.get_by_text("made from answers.answer, answers.answer_index").first.wait_for(timeout=60_000)


@pytest.mark.parametrize(
    ("asset", "key"),
    [("raw_pool", "preview"), ("raw_pool", "by_domain"), ("quarantine", "preview"), ("pool", "preview")],
)
def test_what_a_stranger_wrote_is_shown_as_text_and_nothing_of_it_runs(page, address, asset, key):
    asked, spoken = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (spoken.append(dialog.message), dialog.dismiss()))
    page.goto(f"{address}/assets/ui/{asset}")
    show(page, key)
    shown = page.get_by_text("<script>window.pwned = 1</script>").first
    shown.wait_for(timeout=60_000)
    page.wait_for_timeout(1_000)
    page.screenshot(path=Path(SHOTS, f"ui-strange-{asset}-{key}.png"))
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src='x'], img[src*='spy.invalid'], a[href^='javascript:']").count() == 0
    assert not spoken
    assert not [url for url in asked if "spy.invalid" in url]
