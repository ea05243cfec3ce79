"""The page of a run as a file: what it says, what it leaves out, and that data in it stay data."""

import base64
import hashlib
import json
import re
import subprocess
import sys

import polars as pl
import pytest
from told_run import HOSTILE, N_CHOSEN, N_QUESTIONS, predictions, put_curation, put_evaluation

from pipeline.errors import CurationError
from pipeline.harness.schemas import HARNESS_FILE
from pipeline.paths import PROJECT_ROOT
from pipeline.report.blocks import Estimate
from pipeline.report.outcome import evaluation, headline
from pipeline.report.page import render, visible
from pipeline.report.questions import CHOSEN
from pipeline.report.real_tasks import real_tasks
from pipeline.report.run_page import run_page, write_run_page
from pipeline.report.shown import Shown
from pipeline.stages import open_store

SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)


@pytest.fixture(scope="module")
def html(whole):
    return render(run_page(whole))


def data_of(html):
    return json.loads(SCRIPT.findall(html)[0])


def text_of(html):
    """Return what stands outside scripts and style sheet."""
    return re.sub(r"<(script|style)[^>]*>.*?</\1>", "", html, flags=re.DOTALL)


def test_hostile_text_stays_text(html):
    assert [len(SCRIPT.findall(html)), html.count("</script>")] == [3, 3]  # the data, and the page's own two
    assert "<img" not in text_of(html)
    assert set(re.findall(r'(?:href|src)="([^"]?)', text_of(html))) == {"#"}
    assert not set(html) & set("\x1b\x00\u202e\u202c")
    assert "{{ 7 * 7 }} {% raw %} &amp;lt; www" in text_of(html)
    rows = data_of(html)["explorers"]["questions"]["rows"]
    assert rows[0][0] == visible(f"What is thing 0? {HOSTILE}")
    assert "␛[31mred" in rows[0][0]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x1b[0m\x00\r", "␛[0m␀␍"),
        ("\x85\x9b", "⟨U+0085⟩⟨U+009B⟩"),
        ("a\u202eb\u2066c", "a⟨U+202E⟩b⟨U+2066⟩c"),
        ("Grüße, 漢字, שלום, 🦉", "Grüße, 漢字, שלום, 🦉"),
    ],
)
def test_what_steers_a_terminal_or_turns_text_is_made_visible(text, seen):
    assert visible(text) == seen


def test_the_policy_lets_nothing_in_but_the_two_scripts(html):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in SCRIPT.findall(html)[1:]
    ]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-eval' {allowed}"


def test_the_story_is_told_in_order_with_what_came_of_it(html):
    text = text_of(html)
    titles = re.findall(r"<h2[^>]*>(?:<span[^>]*>\d+</span>)?([^<]+)</h2>", text)
    assert titles == [
        "Result", "What came in", "Answers and votes", "Neurons", "Selection", "Teacher&#39;s examples", "Training",
        "Evaluation", "Published tasks", "Every question", "Beside the chain", "Costs", "Checks", "How it was made",
    ]  # fmt: skip
    verdict = re.search(r'<p class="verdict">([^<]*)', text)[1]
    assert verdict.startswith(
        "In-domain, the distilled model answers 90.0 % of 20 questions right: 40.0 points more than"
    )
    assert "Warning.</strong> It is told." in text
    assert "distilled was stopped at step 5: entropy rose; step 3 was kept." in text
    assert "ceiling_adapter was left out: ceiling_adapter.enabled is false" in text
    assert re.search(r"The same at every step: [^<]*\bentropy 0.5\b", text)
    assert "This run has no causal_check: materialize it" in text
    assert "<strong>" not in re.sub("<strong>Warning", "", text)  # no Markdown in data


def test_every_row_says_what_became_of_it_and_why(html):
    explorer = data_of(html)["explorers"]["questions"]
    fates = [row[1] for row in explorer["rows"]]
    assert fates[:N_CHOSEN] == [CHOSEN] * N_CHOSEN
    assert fates.count("not chosen") == N_QUESTIONS - N_CHOSEN
    assert fates[N_QUESTIONS:] == ["dropped: near duplicate", "refused: not json"]
    details = dict(explorer["rows"][0][3])
    assert details["why"].startswith("rank 1: ")
    assert details["teacher sees"][0].startswith("What is thing 29?")
    assert details["answers"] == ["2 x " + visible(HOSTILE[:120])]
    assert explorer["rows"][0][2] == [0.5, 0.1, 1, 5.5]
    assert dict(explorer["rows"][N_QUESTIONS][3])["because of"] == "q00, similarity 0.95"
    tests = data_of(html)["explorers"]["tests"]
    assert tests["columns"] == ["untouched", "sft", "distilled"]
    assert [row[2] for row in tests["rows"][9:12]] == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]


def calibration_of(run):
    """Return the names of the pictures and the rows of the tables of a run's evaluation that tell of calibration."""
    shown = Shown(run)
    _, pictures, further, *_ = evaluation(shown).blocks
    tables = [*headline(shown.find("evaluation").read("metrics")), *further.blocks]
    named = {row[0] for table in tables if hasattr(table, "rows") for row in table.rows}
    return {plot.name for plot in pictures.plots}, named


def test_p_true_is_a_third_confidence_where_it_was_asked_for(whole, put, run):
    put_evaluation(put, run, predictions(p_true=False))
    (plots, rows), (others, fewer) = calibration_of(whole), calibration_of(run)
    assert plots - others == {
        f"{name}_p_true" for name in ("reliability_in_domain", "reliability_out_of_domain", "risk")
    }
    assert others == {name.replace("p_true", kind) for name in plots - others for kind in ("option", "vote")}
    added = {row.partition(" ")[2] for row in rows - fewer}
    assert added > {"ECE, P(True)", "Brier, P(True)", "AUROC of right answers, P(True)"}
    assert {name.replace("P(True)", "vote share") for name in added} <= {row.partition(" ")[2] for row in fewer}
    ((_, *cells),) = [row for row in headline(whole.require("evaluation").read("metrics"))[1].rows
                      if row[0] == "In-domain ECE, P(True)"]  # fmt: skip
    assert cells[0].value == "0.750"  # off by .775 on average where right (q < 10 of 20), by .725 where wrong


def test_tasks_of_the_harness_stand_beside_the_evaluation(whole, html, put, run):
    (section,) = real_tasks(Shown(whole))
    plots, table, made = section.blocks
    assert [plot.title for plot in plots.plots] == [
        "exact_match", "exact_match, differences", "word_perplexity", "word_perplexity, differences",
    ]  # fmt: skip
    assert table.header == ["", "untouched", "sft", "distilled", "distilled - untouched", "documents"]
    schools, prose = table.rows
    assert schools[1:] == [
        Estimate("0.400", "[0.302, 0.498]"), Estimate("0.440", "[0.342, 0.538]"), Estimate("0.550", "[0.452, 0.648]"),
        Estimate("+0.150", "[+0.052, +0.248]"), 100,
    ]  # fmt: skip
    assert prose[0] == "Out-of-domain, prose: word_perplexity"
    assert prose[1] == Estimate("20.000", "")  # no standard error, no interval
    assert made.text == f"Made by: python -m pipeline.harness --in-domain '{HOSTILE}'"
    assert "Published tasks" in text_of(html)
    assert set(data_of(html)["plots"]) > {plot.name for plot in plots.plots}


def test_tasks_of_an_earlier_adapter_or_other_code_are_told_apart(whole, put, run):
    put(run, "rival_adapter", notes={"label": "sft"})
    put(run, "distilled_adapter", notes={"label": "opsd"})
    assert real_tasks(Shown(run)) == []
    path = run.folder / HARNESS_FILE
    path.write_bytes((whole.folder / HARNESS_FILE).read_bytes())
    (section,) = real_tasks(Shown(run))
    assert section.blocks[0].text.startswith("The run has since got another adapter than was asked: sft, distilled.")
    for content, message in ((b"", "cannot be read"), (None, "is of other code")):
        if content is None:
            pl.DataFrame({"model": ["untouched"]}).write_parquet(path)
        else:
            path.write_bytes(content)
        (section,) = real_tasks(Shown(run))
        ((text, kind),) = [(block.text, block.kind) for block in section.blocks]
        assert (message in text, "ask python -m pipeline.harness again" in text, kind) == (True, True, "warning")


def test_a_page_is_bounded_and_says_what_it_leaves_out(whole, put, tmp_path):
    run = open_store(tmp_path).run("large")
    put_curation(put, run, n=400)
    html = render(run_page(run, n_rows=20))
    explorer = data_of(html)["explorers"]["questions"]
    assert [row[4] for row in explorer["rows"][:20]] == [f"q{number:02}" for number in range(20)]
    assert (len(explorer["rows"]), explorer["total"]) == (22, 402)
    assert "380 of 402 rows are left out" in text_of(html)
    longer = len(render(run_page(run, n_rows=40))) - len(html)
    assert longer < 20 * 20_000
    assert len(html) - len(render(run_page(whole, n_rows=20))) < 50_000


def test_a_run_in_the_making_says_what_is_not_there(put, run):
    with pytest.raises(CurationError, match="holds no artifacts: make the run first"):
        run_page(run)
    put_curation(put, run)
    run.hide("teacher_contexts")
    run.hide("neuron_scores")
    text = text_of(render(run_page(run)))
    for name in ("teacher_contexts", "neuron_scores", "evaluation", "distilled_adapter"):
        assert f"This run has no {name}: materialize it" in text
    assert "This run has no evaluation yet" in text
    put_curation(put, run.store.run("other"), n=3)
    for name in ("pool", "rollouts", "answers", "pseudo_labels", "curated_subset", "raw_pool"):
        run.hide(name)
    assert "This run has no pool" in text_of(render(run_page(run)))


def test_verdicts_of_checks_stand_with_failures_first(put, run):
    put(run, "raw_pool", notes={"read": 0, "refused": 0})
    assert "No verdicts of checks are kept here." in render(run_page(run))
    rows = [("row_counts", "passed", "as many"), ("echo", "failed", HOSTILE), ("lift", "nothing to judge", "")]
    names = ["check", "state", "message"]
    table = pl.DataFrame(rows, schema=names, orient="row").with_columns(
        stage=pl.lit("pool"), severity=pl.lit("warning")
    )
    table.write_parquet(run.folder / "checks.parquet")
    text = text_of(render(run_page(run)))
    assert text.index("✗ echo") < text.index("✓ row counts")
    assert not re.search(r"[✗✓] lift", text)


def test_the_command_makes_the_same_page_twice(whole, tmp_path):
    command = [sys.executable, "-m", "pipeline.report", "--run", "whole", "--store", str(whole.store.root)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "a.html")], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.html").read_bytes() == write_run_page(whole).read_bytes()
    done = subprocess.run([*command, "--run", "none"], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "make the run first, or name another with --run" in done.stderr
