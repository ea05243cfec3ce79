"""The contribution is the paper's equation, and adds up to the logit that the MLP writes."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from pipeline.neurons.architecture import find_mlp_stack
from pipeline.neurons.collector import collect_activations
from pipeline.neurons.contribution import contributions, read_positions, token_alignment, unembedding_rows

D, M, V, N = 16, 24, 50, 9


def test_equation_term_by_term():
    torch.manual_seed(0)
    W_U, W_down, a, y = torch.randn(V, D), torch.randn(D, M), torch.randn(N, M), torch.randint(V, (N,))
    c = contributions(a, token_alignment(unembedding_rows(W_U, y), W_down))
    for t in range(N):
        for i in range(M):
            expected = float(a[t, i]) * sum(float(W_U[y[t], d]) * float(W_down[d, i]) for d in range(D))
            assert float(c[t, i]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights_are_accumulated_in_float32(dtype):
    torch.manual_seed(0)
    W_U, W_down, a = (torch.randn(shape).to(dtype) for shape in ((V, 512), (512, M), (N, M)))
    y = torch.randint(V, (N,))
    c = contributions(a, token_alignment(unembedding_rows(W_U, y), W_down))
    exact = a.double() * (W_U[y].double() @ W_down.double())
    assert c.dtype == torch.float32
    torch.testing.assert_close(c.double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("position", ["predicting", "consuming"])
def test_contributions_of_a_layer_add_up_to_the_logit_its_mlp_writes(position):
    """Sum over i of c[l,i,t] = W_U[y_t] . MLP_l(x), where the unit is the input of the down projection."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=V, hidden_size=D, intermediate_size=M, num_hidden_layers=3, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, initializer_range=0.3,
        )
    ).eval()  # fmt: skip
    stack, read, written = find_mlp_stack(model), {}, {}
    for layer, block in enumerate(model.model.layers):
        block.mlp.register_forward_hook(lambda _, __, output, layer=layer: written.__setitem__(layer, output[0]))
    ids = torch.randint(V, (1, 12))
    with torch.no_grad(), collect_activations(stack, "down_proj_input", lambda layer, a: read.__setitem__(layer, a[0])):
        model(input_ids=ids)
        response = torch.arange(4, 12)
        rows = unembedding_rows(stack.W_U, ids[0, response])
        at = read_positions(response, position)
        for layer in range(3):
            total = contributions(read[layer][at], token_alignment(rows, stack.W_down[layer])).sum(dim=1)
            expected = (rows * written[layer][at]).sum(dim=1)
            assert expected.abs().max() > 0.1
            torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)


def test_positions_before_and_at_the_token():
    response = torch.tensor([3, 4, 9])
    assert read_positions(response, "predicting").tolist() == [2, 3, 8]
    assert read_positions(response, "consuming").tolist() == [3, 4, 9]
