"""What documentation says of the tests."""

import re

import pytest

from pipeline.paths import PROJECT_ROOT

CITED = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", (PROJECT_ROOT / "docs/security.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "test"), CITED)
def test_what_shows_that_a_line_about_trust_holds_is_there(file, test):
    text = (PROJECT_ROOT / "tests" / file).read_text(encoding="utf-8")
    assert f"def {test or 'test_'}" in text
