"""A stated answer is exactly the tokens that hold a character of it."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.answers.spans import token_span
from pipeline.models import decode
from pipeline.paths import PROJECT_ROOT

BPE = AutoTokenizer.from_pretrained(PROJECT_ROOT / "data/reference/model")
SPECIAL = BPE.all_special_ids


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
