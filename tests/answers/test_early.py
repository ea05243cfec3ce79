"""The early look: it warns of what few responses show already, once, and shows some of them."""

import polars as pl
import pyarrow as pa
import pytest

from pipeline.answers.early import FIRST, EarlyLook
from pipeline.generation.generator import LENGTH, PROMPT_TOO_LONG, STOP
from pipeline.rollouts.schemas import ROLLOUTS

GOOD, BAD = ("Answer: B", STOP), ("The correct one\nis \x1b[31mB\u202e.", STOP)
CUT, REFUSED = ("Let us see. " * 40 + "So far", LENGTH), ("", PROMPT_TOO_LONG)
EMPTY = ("prompt_ids", "permutation", "logprobs", "watched_ids", "watched_logprobs")
SCHEMA = {"id": pl.String, "question": pl.String, "options": pl.List(pl.String)}


@pytest.fixture
def look(tiny, caplog):
    """Return a function that shows responses piece by piece and returns what was said after each."""

    def show(*pieces, n_samples=4):
        ids = [f"q{n // n_samples}" for n in range(sum(map(len, pieces)))]
        questions = pl.DataFrame([(name, "Why?", []) for name in dict.fromkeys(ids)], SCHEMA, orient="row")
        early, said, n = EarlyLook("rollouts", questions, tiny.tokenizer), [], 0
        for piece in pieces:
            for start in range(0, len(piece), 20):
                rows = []
                for response, finish_reason in piece[start : start + 20]:
                    rows.append(
                        dict.fromkeys(ROLLOUTS.names)
                        | {name: [] for name in EMPTY}
                        | {"id": ids[n], "sample": n % n_samples, "prompt": ""}
                        | {"response": response, "response_ids": tiny.tokenizer.encode(response)}
                        | {"finish_reason": finish_reason}
                    )
                    n += 1
                frame = pl.DataFrame(pa.Table.from_pylist(rows, schema=ROLLOUTS))
                assert early.see(frame) is frame
                said.append(len(caplog.records))
            early.pause()
            said.append(len(caplog.records))
        return said, [record.getMessage() for record in caplog.records]

    return show


def mixed(n_bad, bad=BAD, n=FIRST):
    return [bad if number * n_bad // n != (number + 1) * n_bad // n else GOOD for number in range(n)]


def test_nothing_is_said_of_a_fifth_or_less(look):
    assert look([*mixed(FIRST // 5), *mixed(30, CUT, 150)])[1] == []


def test_what_is_said_comes_with_the_first_hundred_and_once(look):
    said, (message,) = look([*mixed(49), *mixed(49)], mixed(100))
    assert said[: FIRST // 20 - 1] == [0] * (FIRST // 20 - 1)
    assert set(said[FIRST // 20 - 1 :]) == {1}
    first, *shown = message.splitlines()
    assert first.startswith(f"rollouts: of the first {FIRST} responses 49% state no answer that can be read")
    assert "rollouts.instruction" in first
    assert shown == [r"  'The correct one\nis \x1b[31mB\u202e.' (no_statement)"] * 3


def test_long_responses_are_shortened_to_their_begin_and_end(look):
    message = look(mixed(30, CUT))[1][0]
    assert "30% were cut by the length limit" in message
    assert "enable_thinking" in message
    shown = [line for line in message.splitlines() if line.startswith("  ")]
    assert len(shown) == 3
    assert all(line.startswith("  'Let us see. ") and "So far' (no_statement)" in line for line in shown)
    assert max(map(len, shown)) < 200


def test_each_question_is_shown_once(look):
    lines = look([*[BAD] * 4, *mixed(40, CUT, 96)], n_samples=4)[1][0].splitlines()
    assert sum("correct one" in line for line in lines) == 1


def test_what_only_the_longest_prompts_show_is_said_where_the_piece_ends(look):
    said, (message,) = look([*mixed(0), *[REFUSED] * 60], [BAD] * 200)
    assert said[:9] == [0] * 8 + [1]
    assert f"of the first {FIRST + 60} responses 38% got no response" in message
    assert set(said[9:]) == {1}


def test_small_pieces_are_looked_at_together(look):
    said, (message,) = look([BAD] * 40, [BAD] * 40, [BAD] * 40)
    assert said == [*[0] * 6, 1, 1, 1]
    assert message.startswith("rollouts: of the first 100 responses 100%")
