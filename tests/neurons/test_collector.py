"""Hooks see every layer once per forward, one after the other, and never outlive their block."""

from functools import partial

import pytest
import torch
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from pipeline.errors import UnsupportedModelError
from pipeline.neurons.architecture import find_mlp_stack
from pipeline.neurons.collector import collect_activations

IDS = torch.arange(6).reshape(2, 3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8,
        )
    ).eval()  # fmt: skip


def n_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_layers_arrive_in_order_in_every_forward(model):
    stack, seen = find_mlp_stack(model), []
    with collect_activations(stack, "act_fn", lambda layer, a: seen.append((layer, tuple(a.shape)))):
        assert n_hooks(model) == 5
        stack.backbone(input_ids=IDS)
        stack.backbone(input_ids=IDS[:1])
    assert seen == [(layer, (n, 3, 24)) for n in (2, 1) for layer in range(3)]


@pytest.mark.parametrize("unit", ["act_fn", "down_proj_input"])
def test_units_are_the_gate_and_the_gated_value(model, unit):
    stack, seen, inputs = find_mlp_stack(model), {}, {}
    for layer, block in enumerate(model.model.layers):
        block.mlp.register_forward_pre_hook(lambda _, args, layer=layer: inputs.__setitem__(layer, args[0]))
    with collect_activations(stack, unit, seen.__setitem__):
        stack.backbone(input_ids=IDS)
    for layer, block in enumerate(model.model.layers):
        gate = nn.functional.silu(block.mlp.gate_proj(inputs[layer]))
        expected = gate if unit == "act_fn" else gate * block.mlp.up_proj(inputs[layer])
        torch.testing.assert_close(seen[layer], expected)


@pytest.mark.parametrize("unit", ["act_fn", "down_proj_input"])
def test_hooks_are_removed_after_an_error(model, unit):
    stack = find_mlp_stack(model)

    def fail(layer, activation):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), collect_activations(stack, unit, fail):
        stack.backbone(input_ids=IDS)
    assert n_hooks(model) == 0


def run_bypassed(model, forward, unit):
    stack, mlp = find_mlp_stack(model), model.model.layers[1].mlp
    mlp.forward = partial(forward, mlp)
    with collect_activations(stack, unit, lambda *_: None):
        stack.backbone(input_ids=IDS)


def fused_gate(mlp, x):
    return mlp.down_proj(nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x))


def fused_mlp(mlp, x):
    return nn.functional.linear(nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x), mlp.down_proj.weight)


@pytest.mark.parametrize(
    ("forward", "unit", "remedy"),
    [
        (fused_gate, "act_fn", "without fused .* or set neuron_scores.unit to down_proj_input"),
        (fused_mlp, "down_proj_input", "without fused or replaced MLP kernels$"),
    ],
)
def test_a_bypassed_module_is_refused_with_a_remedy(model, forward, unit, remedy):
    with pytest.raises(UnsupportedModelError, match=rf"Qwen3Model.*'{unit}'.*layers \[1\].*{remedy}"):
        run_bypassed(model, forward, unit)
    assert n_hooks(model) == 0


def test_the_remedy_for_a_fused_gate_works(model):
    run_bypassed(model, fused_gate, "down_proj_input")


@pytest.mark.parametrize("unit", ["act_fn", "down_proj_input"])
def test_what_a_consumer_returns_takes_the_place_of_the_activations(model, unit):
    stack = find_mlp_stack(model)
    with torch.no_grad():
        with collect_activations(stack, unit, lambda layer, a: torch.zeros_like(a) if layer == 1 else None):
            replaced = stack.backbone(input_ids=IDS).last_hidden_state
        model.model.layers[1].mlp.down_proj.weight.zero_()
        torch.testing.assert_close(stack.backbone(input_ids=IDS).last_hidden_state, replaced)


def test_a_shared_activation_is_refused(model):
    for block in model.model.layers:
        block.mlp.act_fn = model.model.layers[0].mlp.act_fn
    stack = find_mlp_stack(model)
    with (
        pytest.raises(UnsupportedModelError, match="exactly once"),
        collect_activations(stack, "act_fn", lambda *_: None),
    ):
        stack.backbone(input_ids=IDS)


def test_an_activation_of_another_width_is_refused(model):
    model.model.layers[0].mlp.act_fn = nn.Sequential(nn.SiLU(), nn.Linear(24, 48))
    stack = find_mlp_stack(model)
    with pytest.raises(UnsupportedModelError, match="width 48"), collect_activations(stack, "act_fn", lambda *_: None):
        stack.backbone(input_ids=IDS)
