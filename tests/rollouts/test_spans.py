"""Spans are exactly the tokens that hold a character of the text, and none where that cannot be told."""

import types
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.generation.option_tokens import decode
from pipeline.models import encode_chat
from pipeline.paths import PROJECT_ROOT
from pipeline.prompts import render_question
from pipeline.rollouts.spans import stem_span, token_span

BPE = AutoTokenizer.from_pretrained(PROJECT_ROOT / "data/reference/model")
SPECIAL = BPE.all_special_ids
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


def bytes_of(token):
    codes = pre_tokenizers.ByteLevel.alphabet()
    back = {chr(b) if chr(b) in codes else None: b for b in range(256)}
    extra = (b for b in range(256) if chr(b) not in codes)
    back |= {chr(256 + n): b for n, b in enumerate(extra)}
    return b"" if token in SPECIAL else bytes(back[c] for c in BPE.convert_ids_to_tokens(token))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_tokens_are_those_that_hold_a_byte_of_the_characters(data):
    """Words, letters of several bytes, cut anywhere into tokens, with special tokens between them."""
    text = data.draw(st.text(st.sampled_from("Answer: opper€ß→\n"), min_size=1, max_size=12))
    pieces, ids = data.draw(st.lists(st.integers(0, len(text)), max_size=3)), []
    cuts = sorted({0, *pieces, len(text)})
    for start, stop in pairwise(cuts):
        ids += BPE.encode(text[start:stop], add_special_tokens=False)
        ids += data.draw(st.lists(st.sampled_from(SPECIAL), max_size=1))
    assert decode(BPE, ids) == text
    start = data.draw(st.integers(0, len(text) - 1))
    stop = data.draw(st.integers(start + 1, len(text)))
    first, end = len(text[:start].encode()), len(text[:stop].encode())
    held, at = [], 0
    for i, token in enumerate(ids):
        before, at = at, at + len(bytes_of(token))
        if before < end and at > first and at > before:
            held.append(i)
    assert token_span(BPE, ids, (start, stop)) == (held[0], held[-1] + 1)


def test_an_answer_of_several_tokens():
    ids = BPE.encode("so the answer is: school of Orin\n", add_special_tokens=False)
    text = decode(BPE, ids)
    start, stop = token_span(BPE, ids, (text.index("school"), text.index("\n")))
    assert stop - start > 2
    assert decode(BPE, ids[start:stop]).strip() == "school of Orin"


def test_half_characters_that_decode_to_several_replacements():
    vocab = {f"<0x{code:02X}>": code for code in range(256)} | {"a": 256, "b": 257}
    tokenizer = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    fallback = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    ids = [256, *"€".encode(), 257]
    assert decode(fallback, ids) == "a€b"
    assert [token_span(fallback, ids, (at, at + 1)) for at in range(3)] == [(0, 1), (1, 4), (4, 5)]
