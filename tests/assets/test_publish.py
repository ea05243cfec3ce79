"""What stands in tables and notes is shown as text."""

import pytest

from assets.publish import _details
from pipeline.stages import stage_of

STRANGE = ("<script>alert(1)</script>", "![seen](http://spy.invalid/seen.png)", "[click](javascript:alert(1))", "a | b")


@pytest.mark.parametrize("name", ["raw_pool", "quarantine"])
def test_what_data_say_is_no_markup_link_or_picture(run, put, name):
    rows = [{"question": text, "domain": text} if name == "raw_pool" else {"raw": text} for text in STRANGE]
    notes = {"by_domain": f"| domain |\n|---|\n| {STRANGE[1]} |", "families": [{"template": STRANGE[2]}]}
    shown = _details(stage_of(name), put(run, name, notes=notes, **{name: rows}), run.name)
    texts = [shown[key].value for key in ("preview", "by_domain", "families")]
    assert not [text for text in texts if "<script" in text or "](" in text]
    assert "![seen]&#40;http://spy.invalid/seen.png)" in texts[1]
    assert len({line.count("|") for line in texts[0].splitlines()}) == 1
    assert shown["plot"].value.startswith("![plot](data:image/png;base64,")
