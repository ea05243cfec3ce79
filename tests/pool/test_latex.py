"""Mangled LaTeX is put back where it is certain, and nothing else is touched."""

import json
from pathlib import Path

import pytest

from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Ingestion
from pipeline.pool.latex import mend_latex


@pytest.mark.parametrize(
    "command",
    [
        *(r"\beta", r"\bullet m", r"\frac{1}{2}", r"\forall x", r"\theta", r"\times 3", r"\text{cm}", r"\textphi"),
        *(r"\rightarrow b", r"\nabla f", r"\begin{array}", r"\textit{in vivo}"),
    ],
)
def test_a_command_written_with_one_backslash_is_put_back(command):
    mangled = json.loads(f'"${command}$"')
    assert mangled != f"${command}$"
    assert mend_latex(mangled) == f"${command}$"
    assert mend_latex([1, {"text": [mangled, "x"]}]) == [1, {"text": [f"${command}$", "x"]}]


@pytest.mark.parametrize(
    "text", ["a\tb", "a\nu", "one\nnot two", "a\textra", "line\r\nhome", "\x08xyz", "\x0cx", "\rho"]
)
def test_what_may_have_been_meant_is_left_alone(text):
    assert mend_latex(text) is text


def test_python_knows_two_more_such_letters():
    assert mend_latex("30 \angle 10, \vert x\vert, \alpha") == r"30 \angle 10, \vert x\vert, \alpha"


def test_mended_rows_are_kept_and_counted(tmp_path: Path):
    path = tmp_path / "pool.jsonl"
    rows = [
        '{"question": "What is \\\\beta?", "options": ["a", "b"]}',
        '{"question": "\\beta?", "options": ["\\frac12", "b"]}',
    ]
    path.write_text("\n".join(rows) + "\n")
    ingestion = Ingestion(RawPoolConfig(path=str(path)))
    (batch,) = list(ingestion)
    assert batch.raw_pool["question"].to_list() == [r"What is \beta?", r"\beta?"]
    assert batch.raw_pool["options"][1].to_list() == [r"\frac12", "b"]
    assert (ingestion.counts.kept, ingestion.counts.rows()["latex_mended"]) == (2, 1)
