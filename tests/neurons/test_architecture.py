"""The right modules of many families are found by structure, and what is uncertain is refused by name."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.errors import UnsupportedModelError
from pipeline.neurons.architecture import find_mlp_stack
from pipeline.neurons.collector import collect_activations

D, M, L, V = 16, 40, 3, 50
SHAPE = {
    "hidden_size": D, "intermediate_size": M, "num_hidden_layers": L, "num_attention_heads": 2, "head_dim": 8,
    "num_key_value_heads": 1, "vocab_size": V, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES = {
    "qwen2": {},
    "qwen3": {},
    "llama": {},
    "mistral": {},
    "gemma2": {},
    "gemma3_text": {},
    "phi3": {},
    "phi": {"num_key_value_heads": 2},
    "gpt_neox": {},
    "gpt2": {"n_embd": D, "n_inner": M, "n_layer": L, "n_head": 2},
}


def build(family, **settings):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SHAPE, **settings})
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_stack_reproduces_each_mlp(family):
    """W_down times the input of the down projection is the MLP's output; act_fn is the activation of something."""
    model = build(family, **FAMILIES[family])
    stack = find_mlp_stack(model)
    assert (stack.n_layers, stack.d_mlp) == (L, M)
    assert stack.W_U.shape == (V, D)
    assert stack.W_U.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    written, read, activated = [], {}, {}
    for down in stack.down_projections:
        down.register_forward_hook(
            lambda module, _, output: written.append(output - (0 if module.bias is None else module.bias))
        )
    ids = torch.randint(V, (2, 7))
    with torch.no_grad():
        with collect_activations(stack, "down_proj_input", read.__setitem__):
            stack.backbone(input_ids=ids)
        with collect_activations(stack, "act_fn", activated.__setitem__):
            stack.backbone(input_ids=ids)
    for layer in range(L):
        torch.testing.assert_close(read[layer] @ stack.W_down[layer].T, written[layer], atol=1e-6, rtol=1e-5)
        gated = family not in ("phi", "gpt_neox", "gpt2")
        assert torch.equal(activated[layer], read[layer]) != gated
        assert activated[layer].min() >= -0.3  # the floor of silu and gelu: it is an activation function's output
        assert activated[layer].max() > 0


@pytest.mark.parametrize("tied", [True, False])
def test_unembedding_is_the_one_that_makes_logits(tied):
    model = build("qwen3", tie_word_embeddings=tied)
    stack = find_mlp_stack(model)
    assert torch.equal(stack.W_U, model.get_input_embeddings().weight) == tied
    ids = torch.randint(V, (1, 4))
    with torch.no_grad():
        torch.testing.assert_close(
            model(input_ids=ids).logits, stack.backbone(input_ids=ids).last_hidden_state @ stack.W_U.T
        )


@pytest.mark.parametrize(
    "family", ["qwen3_moe", "qwen2_moe", "mixtral", "olmoe"], ids=["routed", "shared expert", "mixtral", "olmoe"]
)
def test_mixture_of_experts_is_refused_by_name(family):
    model = build(
        family, num_experts=4, num_local_experts=4, moe_intermediate_size=M, shared_expert_intermediate_size=M
    )
    with pytest.raises(UnsupportedModelError, match=rf"{type(model).__name__}, layer 0: .*mixture of experts"):
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
