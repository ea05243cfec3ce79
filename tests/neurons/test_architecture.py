"""The right modules of many families are found by structure, and what is uncertain is refused by name."""

import pytest
import torch
from families import FAMILIES, SHAPE, UNGATED, D, L, M, V, build
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForSeq2SeqLM

from pipeline.errors import UnsupportedModelError
from pipeline.neurons.architecture import find_mlp_stack
from pipeline.neurons.collector import collect_activations, collect_residual


@pytest.mark.parametrize("family", FAMILIES)
def test_stack_reproduces_each_mlp(family):
    """W_down times the input of the down projection is the MLP's output; act_fn is the activation of something."""
    model = build(family, **FAMILIES[family])
    stack = find_mlp_stack(model)
    assert (stack.n_layers, stack.d_mlp) == (L, M)
    assert stack.W_U.shape == (V, D)
    assert stack.W_U.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    written, read, activated, residual = [], {}, {}, []
    for down in stack.down_projections:
        down.register_forward_hook(
            lambda module, _, output: written.append(output - (0 if module.bias is None else module.bias))
        )
    ids = torch.randint(V, (2, 7))
    with torch.no_grad():
        with collect_activations(stack, "down_proj_input", read.__setitem__):
            stack.backbone(input_ids=ids, use_cache=False)
        with (
            collect_activations(stack, "act_fn", activated.__setitem__),
            collect_residual(stack, lambda *states: residual.extend(states)),
        ):
            stack.backbone(input_ids=ids, use_cache=False)
    assert [tuple(states.shape) for states in residual] == [(2, 7, D)] * 2
    assert not torch.equal(*residual)
    for layer in range(L):
        torch.testing.assert_close(read[layer] @ stack.W_down[layer].T, written[layer], atol=1e-6, rtol=1e-5)
        assert torch.equal(activated[layer], read[layer]) == (family in UNGATED)
        assert activated[layer].min() >= -0.3  # the floor of silu and gelu: it is an activation function's output
        assert activated[layer].max() > 0


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma", "olmo2", "phi3", "smollm3", "gpt_neox", "gpt2", "opt"])
def test_unembedding_is_the_one_that_makes_logits(family, tied):
    """Also where the vocabulary was padded beyond the tokenizer's, as checkpoints often are."""
    model = build(family, tie_word_embeddings=tied, **FAMILIES[family])
    model.resize_token_embeddings(V + 14)
    stack = find_mlp_stack(model)
    assert stack.W_U.shape == (V + 14, D)
    assert torch.equal(stack.W_U, model.get_input_embeddings().weight) == tied
    ids = torch.tensor([[V + 13, 0, 1, 2]])
    with torch.no_grad():
        torch.testing.assert_close(
            model(input_ids=ids).logits, stack.backbone(input_ids=ids).last_hidden_state @ stack.W_U.T
        )


@pytest.mark.parametrize(("family", "vision"), [("gemma3", "siglip_vision_model"), ("mistral3", "pixtral")])
def test_the_language_model_of_a_composite_is_found(family, vision):
    """The vision tower comes first and has as many layers: it must not be taken for the language model."""
    text = AutoConfig.for_model("gemma3_text" if family == "gemma3" else "ministral3", **SHAPE)
    tower = {"hidden_size": D, "intermediate_size": D, "num_hidden_layers": L, "num_attention_heads": 2, "head_dim": 8}
    config = AutoConfig.for_model(
        family, text_config=text, vision_config={"model_type": vision, "image_size": 28, "patch_size": 14} | tower
    )
    model = AutoModelForImageTextToText.from_config(config).eval()
    stack, ids = find_mlp_stack(model), torch.randint(V, (1, 4))
    assert (stack.n_layers, stack.d_mlp, tuple(stack.W_U.shape)) == (L, M, (V, D))
    with torch.no_grad(), collect_activations(stack, "act_fn", lambda *_: None):
        logits = model(input_ids=ids).logits
        torch.testing.assert_close(logits, stack.backbone(input_ids=ids).last_hidden_state @ stack.W_U.T)


EXPERTS = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_intermediate_size": M}


@pytest.mark.parametrize(
    "family",
    ["qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "gpt_oss", "llama4_text", "deepseek_v2", "granitemoe", "doge"],
)
def test_mixture_of_experts_is_refused_by_name(family):
    with torch.device("meta"):
        model = build(family, is_moe=True, **EXPERTS, shared_expert_intermediate_size=M)
    with pytest.raises(
        UnsupportedModelError, match=rf"{type(model).__name__}: model.*, is part of a mixture of experts"
    ):
        find_mlp_stack(model)


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("mamba", {}, r"layer 0: looked for one MLP .* found 0 in MambaBlock \(norm, mixer\)"),
        ("rwkv", {}, "layer 0: looked for one MLP .* found 0 in RwkvBlock"),
        ("nemotron_h", {"layer_types": ["mamba", "attention", "mlp"]}, "layer 0: .* found 0 in NemotronHBlock"),
        ("lfm2", {}, "layer 0: .* found 0 in Lfm2DecoderLayer"),  # its activation is a function, not a module
        ("bert", {"is_decoder": True}, "layer 0: .* found 0 in BertLayer"),
        ("bart", {}, "without an encoder"),
    ],
)
def test_other_structures_are_refused_by_name(family, settings, message):
    with torch.device("meta"):
        model = build(family, **settings)
    with pytest.raises(UnsupportedModelError, match=f"{type(model).__name__}.*{message}"):
        find_mlp_stack(model)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_encoder_decoder_is_refused(family):
    config = AutoConfig.for_model(family, d_model=D, num_layers=L, encoder_layers=L, decoder_layers=L, vocab_size=V)
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(config)
    with pytest.raises(UnsupportedModelError, match=r"ForConditionalGeneration: .*without an encoder"):
        find_mlp_stack(model)


def broken(change):
    model = build("qwen3")
    change(model)
    return model


def unnamed_activation(model):
    del model.model.layers[1].mlp.act_fn


def second_mlp(model):
    model.model.layers[1].other = build("qwen3").model.layers[0].mlp


def adapter(model):
    model.model.layers[1].mlp.down_proj = nn.Sequential(model.model.layers[1].mlp.down_proj)


def quantised(model):
    down = model.model.layers[1].mlp.down_proj
    down.weight = nn.Parameter(torch.zeros(D * M // 2, 1, dtype=torch.uint8), requires_grad=False)


def narrower_layer(model):
    model.model.layers[1].mlp = build("qwen3", intermediate_size=M // 2).model.layers[0].mlp


def projected_unembedding(model):
    model.set_output_embeddings(nn.Linear(D // 2, V, bias=False))


def no_unembedding(model):
    model.set_output_embeddings(nn.Identity())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unnamed_activation, "layer 1: looked for one MLP with an activation module .*found 0"),
        (second_mlp, "layer 1: looked for one MLP .*found 2"),
        (adapter, "layer 1: the down projection is a Sequential.*merge"),
        (quantised, "layer 1: the down projection is a Linear.*unquantised"),
        (narrower_layer, "different shapes"),
        (projected_unembedding, "unembedding reads width 8"),
        (no_unembedding, "no unembedding"),
    ],
)
def test_unknown_structure_is_refused(change, message):
    with pytest.raises(UnsupportedModelError, match=f"Qwen3ForCausalLM.*{message}"):
        find_mlp_stack(broken(change))
