"""Loading a model: what is wrong is said in one line."""

import pytest
import torch

from pipeline.errors import ModelError
from pipeline.model_config import ModelConfig
from pipeline.model_fingerprint import model_fingerprint
from pipeline.models import load_model


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


def test_changed_weights_under_one_name_are_noticed(tiny, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    config = ModelConfig(path=str(tmp_path))
    before = model_fingerprint(config)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert model_fingerprint(config) != before
