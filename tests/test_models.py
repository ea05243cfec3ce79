"""Loading a model: what is wrong is said in one line."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from pipeline.errors import ConfigError, ModelError
from pipeline.model_config import ModelConfig
from pipeline.model_fingerprint import model_fingerprint
from pipeline.models import decode, encode_chat, has_special_tokens, load_model, load_tokenizer
from pipeline.section import parse_section

SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]


def test_unknown_model_path():
    with pytest.raises(ModelError, match=r"no/such-model.*cannot be loaded") as caught:
        load_model(ModelConfig(path="no/such-model"))
    assert "\n" not in str(caught.value)


def test_tokenizer_without_chat_template(tiny, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    for file in tmp_path.glob("chat_template*"):
        file.unlink()
    with pytest.raises(ModelError, match="no chat template"):
        load_model(ModelConfig(path=str(tmp_path)))


def test_pickled_weights_are_not_loaded(tiny, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    torch.save(tiny.model.state_dict(), tmp_path / "pytorch_model.bin")
    load_model(ModelConfig(path=str(tmp_path)))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        load_model(ModelConfig(path=str(tmp_path)))


def test_code_beside_a_model_is_never_run(tiny, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    proof = tmp_path / "ran"
    (tmp_path / "modeling.py").write_text(f"open({str(proof)!r}, 'w')\nclass Model: ...\nclass Config: ...\n")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Model", "AutoConfig": "modeling.Config"}
    path.write_text(json.dumps(config))
    load_model(ModelConfig(path=str(tmp_path)))  # by transformers' own class for its model_type
    path.write_text(json.dumps(config | {"model_type": "unheard_of"}))
    with pytest.raises(ModelError):
        load_model(ModelConfig(path=str(tmp_path)))
    assert not proof.exists()


def test_changed_weights_under_one_name_are_noticed(tiny, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    config = ModelConfig(path=str(tmp_path))
    before = model_fingerprint(config)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert model_fingerprint(config) != before


HOSTILE = "\"\\ \n%} {{ messages }} {% if %} {# \u00e9 \U0001f600 '"


def told(tiny, **options):
    """Save the tiny model with a template that says what it is told, and load it with the given options."""

    def load(folder):
        tiny.tokenizer.save_pretrained(folder)
        tiny.model.save_pretrained(folder)
        (folder / "chat_template.jinja").write_text(
            "\n{% macro shown() %}{{ enable_thinking }}|{{ effort }}{% endmacro %}"
            "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>[{{ shown() }}]{% endfor %}"
        )
        return ModelConfig(path=str(folder), chat_template=options)

    return load


def rendered(tokenizer):
    return tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (False, "False"),
        (3, "3"),
        (-0.5, "-0.5"),
        (1e-9, "1e-09"),
        ("low", "low"),
        (HOSTILE, HOSTILE),
        ("", ""),
    ],
)
def test_options_of_the_chat_template_are_set_for_whoever_renders_it(tiny, tmp_path, value, shown):
    config = told(tiny, enable_thinking=True, effort=value)(tmp_path)
    tokenizer = load_tokenizer(config)
    assert rendered(tokenizer) == f"\n<|user|>x<|end|>[True|{shown}]"
    tokenizer.save_pretrained(tmp_path / "saved")
    assert rendered(AutoTokenizer.from_pretrained(tmp_path / "saved")) == rendered(tokenizer)
    plain = config.model_copy(update={"chat_template": {}})
    assert rendered(load_tokenizer(plain)) == "\n<|user|>x<|end|>[False|]"
    assert model_fingerprint(config) != model_fingerprint(plain)


@pytest.mark.parametrize(
    "name", ["enable_thoughts", "a b", "x = 1 %}{{ y }}{% set z", "", "in", "messages", "m", "shown", "range"]
)
def test_a_name_that_the_template_never_reads_is_refused(tiny, tmp_path, name):
    with pytest.raises(ModelError, match=r"model.chat_template: .* it reads effort, enable_thinking$") as caught:
        load_tokenizer(told(tiny, **{name: 1})(tmp_path))
    assert repr(name) in str(caught.value)


def with_template(tiny, folder, text, **options):
    """Return the configuration of a folder that holds the tiny tokenizer with another template."""
    tiny.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(text)
    return ModelConfig(path=str(folder), chat_template=options)


def test_a_template_without_options_and_one_that_is_broken_are_named(tiny, tmp_path):
    plain = "{% for m in messages %}{{ bos_token }}{{ m['content'] }}{% endfor %}"
    assert rendered(load_tokenizer(with_template(tiny, tmp_path, plain))) == "x"
    with pytest.raises(ModelError, match=r"never reads 'enable_thinking'; it has no options"):
        load_tokenizer(with_template(tiny, tmp_path, plain, enable_thinking=False))
    with pytest.raises(ModelError, match=r"line 2 of the chat template cannot be read") as caught:
        load_tokenizer(with_template(tiny, tmp_path, "{% for m in messages %}\n{{ m }}{% endif %}"))
    assert "\n" not in str(caught.value)


THINKING = {
    "Qwen3": (
        "{%- if tools %}{{ raise_exception('no tools') }}{%- endif %}{%- set ns = namespace(last=messages|length) %}"
        "{%- for message in messages %}{{- '<|user|>' + message.content + '<|end|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- if enable_thinking is defined and enable_thinking is "
        "false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
    ),
    "one that sets its own default": (
        "{%- if enable_thinking is not defined %}{%- set enable_thinking = true %}{%- endif %}"
        "{%- for message in messages %}{{- '<|user|>' + message.content + '<|end|>' }}{%- endfor %}"
        "<|assistant|>{% generation %}{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endgeneration %}"
    ),
}


@pytest.mark.parametrize("name", THINKING)
def test_a_model_that_can_think_answers_at_once_unless_it_is_told_otherwise(tiny, tmp_path, name):
    def asked(**options):
        tokenizer = load_tokenizer(with_template(tiny, tmp_path, THINKING[name], **options))
        return decode(tokenizer, encode_chat(tokenizer, "x"))

    assert asked() == asked(enable_thinking=False) == "x<think>\n\n</think>\n\n"
    assert asked(enable_thinking=True) == "x"


def test_what_the_template_gets_tells_models_apart(tiny, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    text = THINKING["Qwen3"]
    silent, thinking = (with_template(tiny, tmp_path, text, **options) for options in ({}, {"enable_thinking": True}))
    first = model_fingerprint(silent)
    assert model_fingerprint(thinking) != first
    with_template(tiny, tmp_path, text.replace("enable_thinking", "think"))
    assert model_fingerprint(silent) != first


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, ["x"]])
def test_a_value_that_is_no_literal_is_refused(value):
    with pytest.raises(ConfigError, match="chat_template"):
        parse_section(ModelConfig, {"chat_template": {"x": value}}, "model")


def test_the_templates_own_tokens_are_special_whatever_their_role(tiny):
    assert all(has_special_tokens(tiny.tokenizer, f"x {token} y") for token in SPECIAL)
    assert not has_special_tokens(tiny.tokenizer, "x <|user> |assistant| y")
