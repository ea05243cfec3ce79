"""The stem is exactly the tokens that hold a character of it, and none where that cannot be told."""

import types

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.models import encode_chat
from pipeline.paths import PROJECT_ROOT
from pipeline.prompts import render_question
from pipeline.rollouts.spans import stem_span

BPE = AutoTokenizer.from_pretrained(PROJECT_ROOT / "data/reference/model")
OPTIONS = ["the school of Orin", "Which school moves it?", "user"]


def byte_level(merges=(), use_regex=True, template="<|user|>{{ messages[0]['content'] }}<|end|>"):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|user|>", "<|end|>", *alphabet, *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|user|>", "<|end|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.chat_template = template
    return fast


def located(tokenizer, question, prompt=None):
    prompt = render_question(question, OPTIONS, "Which school moves it? Answer.") if prompt is None else prompt
    ids = encode_chat(tokenizer, prompt)
    span = stem_span(tokenizer, question, prompt, ids)
    return span and tokenizer.decode(ids[slice(*span)])


def test_the_stem_is_the_questions_text_alone():
    assert located(BPE, "Orin hands copper to a school. Which one returns tin?") == (
        "Orin hands copper to a school. Which one returns tin?"
    )
    assert located(BPE, "Wie weit? €5 → ½") == "Wie weit? €5 → ½"


@pytest.mark.parametrize("question", ["Which school moves it?", "user", "You are user 1."])
def test_the_stem_is_not_sought_where_its_text_stands_elsewhere(question):
    """The template says it before the message, and options and instruction after it."""
    told = "You are user 1. Which school moves it?\n<|user|>{{ messages[0]['content'] }}<|end|>Which school moves it?"
    tokenizer = byte_level(template=told)
    prompt = render_question(question, OPTIONS, "Which school moves it? You are user 1.")
    ids = encode_chat(tokenizer, prompt)
    first = ids.index(tokenizer.convert_tokens_to_ids("<|user|>")) + 1
    assert stem_span(tokenizer, question, prompt, ids) == (first, first + len(question))


def test_a_token_that_the_stem_shares_belongs_to_it():
    joined = byte_level([("Ġ", "W"), ("?", "Ċ")], use_regex=False, template="<|user|> {{ messages[0]['content'] }}")
    assert located(joined, "Why?") == " Why?\n"


@pytest.mark.parametrize(
    "template",
    ["<|user|>{{ messages[0]['content'] | upper }}<|end|>", "<|user|>{{ messages[0]['content'][9:] }}<|end|>", "none"],
)
def test_a_template_that_changes_the_message_leaves_no_stem(template):
    assert located(byte_level(template=template), "Why is it so?") is None


def test_what_cannot_be_told_exactly_is_none():
    prompt = render_question("Why?", OPTIONS)
    assert located(BPE, "Why?", f"Example\n{prompt}") is None
    assert stem_span(BPE, "Why?", prompt, encode_chat(BPE, prompt)[1:]) is None
    assert stem_span(types.SimpleNamespace(is_fast=False), "Why?", prompt, encode_chat(BPE, prompt)) is None


def test_a_template_that_trims_the_message_keeps_the_stem():
    trimming = byte_level(template="<|user|>{{ messages[0]['content'] | trim }}<|end|>")
    assert located(trimming, "Why?", "Why?\n\n") == "Why?"
