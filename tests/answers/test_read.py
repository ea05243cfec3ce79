"""Answers as stored: in the source's order of options, with their tokens and the options' probabilities there."""

import math
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pytest
import torch

from pipeline.answers import read
from pipeline.answers.extract import Extraction
from pipeline.answers.option_tokens import OptionTokens, option_forms
from pipeline.answers.read import read_answers
from pipeline.answers.schemas import ANSWERS
from pipeline.errors import ArtifactError
from pipeline.generation.generator import LENGTH, PROMPT_TOO_LONG, STOP
from pipeline.prompts import LETTERS
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.sample import Asking, sample_rollouts
from pipeline.rollouts.schemas import SPECIAL_TOKEN_IN_PROMPT
from pipeline.table import conform

OPTIONS = ["red", "blue", "green"]
ROWS = pa.schema(
    [
        ("id", pa.large_string()),
        ("sample", pa.int32()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("permutation", pa.list_(pa.int32())),
        ("response_ids", pa.list_(pa.int32())),
        ("response", pa.large_string()),
        ("finish_reason", pa.large_string()),
        ("watched_ids", pa.list_(pa.int32())),
        ("watched_logprobs", pa.list_(pa.float32())),
    ]
)
HELD = pl.DataFrame({"id": ["q"], "question": ["Which colour?"], "options": [OPTIONS]})
OPEN = HELD.with_columns(options=pl.lit([], pl.List(pl.String)))


@dataclass
class Said:
    """A response that was said to options in some order, and what its watched tokens' probabilities are."""

    text: str
    order: tuple[int, ...] = (0, 1, 2)
    finish_reason: str = STOP
    id: str = "q"
    prompt: str = "Which?"

    def row(self, sample, tokenizer):
        ids = tokenizer.encode(self.text)
        watched = option_forms(tokenizer)(tuple(OPTIONS[index] for index in self.order)).token_ids
        logprobs = [
            math.log(0.001 * (1 + at + 10 * rank))
            for at, token in enumerate(ids)
            if token in watched
            for rank in range(len(watched))
        ]
        return {
            "id": self.id,
            "sample": sample,
            "prompt_ids": tokenizer.encode(self.prompt),
            "permutation": self.order,
            "response_ids": ids,
            "response": self.text,
            "finish_reason": self.finish_reason,
            "watched_ids": watched,
            "watched_logprobs": logprobs,
        }


def answers(said, lm, questions=HELD):
    rows = [each.row(sample, lm.tokenizer) for sample, each in enumerate(said)]
    got = read_answers(pl.DataFrame(pa.Table.from_pylist(rows, schema=ROWS)), questions, lm.tokenizer)
    conform(got, ANSWERS, "answers")
    return got


@pytest.mark.parametrize("form", ["letter", "text"])
def test_option_probs_are_normalised_mass_of_the_options_tokens(tiny, form):
    options = ("red", "blue")
    tokens = (
        OptionTokens.by_letter(tiny.tokenizer, 2) if form == "letter" else OptionTokens.by_text(tiny.tokenizer, options)
    )
    probs = {token: (1.0 + i) / 100 for i, token in enumerate(tokens.options)}
    logprobs = {token: math.log(prob) for token, prob in probs.items()}
    stated = next(token for token, option in tokens.options.items() if option == 1)
    found = tokens.option_probs(stated, logprobs, 2)
    mass = [sum(probs[token] for token, option in tokens.options.items() if option == i) for i in (0, 1)]
    assert found == pytest.approx([m / sum(mass) for m in mass])
    assert tokens.option_probs(-1, logprobs, 2) is None
    unlikely = {token: logprob - 2_000 for token, logprob in logprobs.items()}
    assert tokens.option_probs(stated, unlikely, 2) == pytest.approx(found)


def test_options_that_begin_alike_have_no_text_probabilities(tiny):
    assert not OptionTokens.by_text(tiny.tokenizer, ("red", "rose")).options


def test_answers_to_permuted_options_are_counted_in_the_sources_order(tiny):
    """Shown as green, red, blue, so that letter B is the first of the source."""
    row = answers([Said("Answer: B\n", order=(2, 0, 1))], tiny).row(0, named=True)
    assert (row["answer"], row["answer_index"]) == ("red", 0)
    (plain,) = answers([Said("Answer: B\n")], tiny)["option_probs"].to_list()
    assert len(set(plain)) == 3
    assert row["option_probs"] == pytest.approx([plain[1], plain[2], plain[0]])


@pytest.mark.parametrize(
    ("prompt", "text", "read"),
    [
        ("Which?<|assistant|><think>\n", "The answer is B. But", "unfinished_thought"),
        ("Which?<|assistant|><think>\n", "The answer is B.\n</think>\n\nThe answer is C.", "green"),
        ("Which?<|assistant|><think>\n", "The answer is B.\n</think>\n\nThe", "no_statement"),
        ("Which?<|assistant|><think>\n\n</think>\n\n", "The answer is B.", "blue"),
        ("Close <think>\nas here?<|assistant|>", "The answer is B.", "blue"),
    ],
)
def test_a_thought_that_the_prompt_opens_holds_no_answer(tiny, prompt, text, read):
    row = answers([Said(text, prompt=prompt)], tiny).row(0, named=True)
    assert read == (row["answer"] or row["extraction"])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_probabilities_are_those_recorded_where_the_answer_begins(tiny, order):
    """Watched tokens stand before the statement and after it."""
    shown = [OPTIONS[index] for index in order]
    for text, stated in (("A or B, red? Answer: C\n\nBBB", "C"), (f"Answer: {shown[2]}\n\nbrg", shown[2])):
        said = Said(text, order)
        recorded, row = said.row(0, tiny.tokenizer), answers([said], tiny).row(0, named=True)
        at = len(text[: text.index("Answer: ") + len("Answer: ")].encode())
        n_before = sum(token in recorded["watched_ids"] for token in recorded["response_ids"][:at])
        width = len(recorded["watched_ids"])
        there = recorded["watched_logprobs"][n_before * width : (n_before + 1) * width]
        probs = {
            tiny.tokenizer.decode(token): math.exp(p) for token, p in zip(recorded["watched_ids"], there, strict=True)
        }
        names = "ABC" if len(stated) == 1 else [option[0] for option in shown]
        mass = {OPTIONS[index]: probs[name] for index, name in zip(order, names, strict=True)}
        assert row["option_probs"] == pytest.approx([mass[o] / sum(mass.values()) for o in OPTIONS], rel=1e-5)
        assert row["answer"] == shown[2]
        assert (row["answer_start"], row["answer_stop"]) == (at, at + len(stated))


def test_rows_are_those_of_the_rollouts_by_id_and_sample(tiny):
    said = [Said("Answer: B\n", id="z"), Said("no idea"), Said("Answer: A\n", id="a")]
    held = pl.concat(HELD.with_columns(id=pl.lit(name)) for name in ("z", "other", "q", "a"))
    got = answers(said, tiny, held)
    assert got.select("id", "sample", "answer").rows() == [("a", 2, "red"), ("q", 1, None), ("z", 0, "blue")]
    assert got["extraction"][1] == "no_statement"
    assert got.row(1)[2:4] == (None, None)
    assert got.row(1)[5:] == (None, None, None)


def test_a_rollout_without_response_says_why(tiny):
    for reason in (PROMPT_TOO_LONG, SPECIAL_TOKEN_IN_PROMPT):
        row = answers([Said("", finish_reason=reason)], tiny).row(0, named=True)
        assert row == {**dict.fromkeys(ANSWERS.names), "id": "q", "sample": 0, "extraction": reason}
    assert answers([Said("")], tiny)["extraction"].to_list() == ["empty"]


def test_an_answer_cut_by_the_limit_is_none(tiny):
    cut, whole = answers([Said("Answer: B", finish_reason=LENGTH), Said("Answer: B")], tiny).iter_rows(named=True)
    assert (cut["answer"], cut["extraction"]) == (None, "unfinished_answer")
    assert whole["answer"] == "blue"


def test_open_answers_have_a_place_but_no_option(tiny):
    row = answers([Said("So the answer is 42.\n", order=())], tiny, OPEN).row(0, named=True)
    assert (row["answer"], row["answer_index"], row["option_probs"]) == ("42", None, None)
    assert (row["answer_start"], row["answer_stop"]) == (17, 19)


def test_a_rollout_of_an_unknown_question_is_refused(tiny):
    with pytest.raises(ArtifactError, match="'other' of the rollouts is not among the questions"):
        answers([Said("Answer: B", id="other")], tiny)


def test_no_rollouts_give_no_answers(tiny):
    assert answers([], tiny).is_empty()


@pytest.mark.parametrize("form", ["letter", "text"])
@pytest.mark.parametrize("permute", [False, True])
def test_option_probs_are_those_of_a_forward_pass_where_the_answer_stands(tiny, monkeypatch, form, permute):
    """The first capital letter of a random response, or the first letter of an option, is taken as its statement."""

    def first_stated(response, options, *_):
        names = LETTERS[: len(options)] if form == "letter" else [option[0] for option in options]
        at = next((i for i, character in enumerate(response) if character in names), None)
        if at is None:
            return Extraction(None, None, "no_statement", None)
        index = names.index(response[at])
        return Extraction(options[index], index, "test", (at, at + 1))

    monkeypatch.setattr(read, "extract_answer", first_stated)
    config = RolloutsConfig(
        n_samples=2, temperature=2.0, top_p=1.0, max_new_tokens=12, instruction="", permute_options=permute
    )
    frame = pl.DataFrame(
        {"id": f"q{i:02}", "question": "x" * (i * 3), "options": OPTIONS, "permutation": [0, 1, 2]} for i in range(48)
    )
    rollouts = pl.concat(sample_rollouts(frame, tiny, Asking.of(config, config)))
    got = rollouts.join(read_answers(rollouts, frame, tiny.tokenizer), on=["id", "sample"])
    stated = got.filter(pl.col("answer").is_not_null())
    assert len(stated) >= 5
    for row in stated.iter_rows(named=True):
        shown = [OPTIONS[index] for index in row["permutation"]]
        names = list("ABC") if form == "letter" else [option[0] for option in shown]
        ids = torch.tensor([row["prompt_ids"] + row["response_ids"][: row["answer_start"]]])
        with torch.inference_mode():
            probs = tiny.model(ids).logits[0, -1, tiny.tokenizer.convert_tokens_to_ids(names)].double().softmax(-1)
        expected = dict(zip(shown, probs.tolist(), strict=True))
        assert row["option_probs"] == pytest.approx([expected[option] for option in OPTIONS], abs=1e-4)
        assert row["answer"] == OPTIONS[row["answer_index"]]


def test_the_stated_answer_is_kept_as_tokens(tiny, monkeypatch):
    found, nothing = Extraction("red", 0, "rule", (1, 3)), Extraction(None, None, "empty", None)
    monkeypatch.setattr(
        read,
        "extract_answer",
        lambda response, *_, **__: found if response.isascii() and len(response) > 2 else nothing,
    )
    config = RolloutsConfig(n_samples=2, temperature=0.8, top_p=0.9, max_new_tokens=6)
    frame = pl.DataFrame(
        {"id": f"q{i:02}", "question": "x" * (5 * i), "options": OPTIONS, "permutation": [0, 1, 2]} for i in range(12)
    )
    rollouts = pl.concat(sample_rollouts(frame, tiny, Asking.of(config, config)))
    got = rollouts.join(read_answers(rollouts, frame, tiny.tokenizer), on=["id", "sample"])
    assert 0 < got["answer"].null_count() < len(got)
    for row in got.iter_rows(named=True):
        if row["answer"] is None:
            assert row["answer_start"] is row["answer_stop"] is None
        else:
            stated = row["response_ids"][row["answer_start"] : row["answer_stop"]]
            assert tiny.tokenizer.decode(stated, skip_special_tokens=True) == row["response"][1:3]
