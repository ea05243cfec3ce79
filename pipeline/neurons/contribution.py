"""The contribution of a neuron to the token that was produced (method, section 3; arXiv 2607.02460, appendix A).

    c[l,i,t] = a[l,i,t] * ( W_U[y_t] . W_down[l][:, i] )

This is the direct logit of the paper's equation: the weights of the final norm, of norms after an MLP, biases and
soft-capping of logits do not enter it. Everything is accumulated in float32 whatever the model's type, and W_down^T W_U
over the vocabulary (M x V) is never formed: only the rows of tokens that occur are multiplied. Pinned by
``tests/neurons/test_contribution.py``.
"""

from typing import Literal

from torch import Tensor

Position = Literal["predicting", "consuming"]


def unembedding_rows(W_U: Tensor, tokens: Tensor) -> Tensor:
    """Return the rows ``[N, D]`` in float32 of the unembedding ``[V, D]`` for ``tokens [N]``."""
    return W_U[tokens].float()


def token_alignment(rows: Tensor, W_down: Tensor) -> Tensor:
    """Return ``W_U[y] . W_down[:, i]``, ``[N, M]`` in float32, for rows ``[N, D]`` and a down projection ``[D, M]``."""
    return rows @ W_down.float()


def contributions(activations: Tensor, alignment: Tensor) -> Tensor:
    """Return the logits ``[N, M]`` in float32 that each neuron adds to each token, from two ``[N, M]`` tensors."""
    return activations.float() * alignment


def read_positions(token_positions: Tensor, position: Position) -> Tensor:
    """Return the sequence positions ``[N]`` whose activations belong to the tokens at ``token_positions [N]``.

    ``predicting`` reads the activation one position earlier, from which the token was predicted (equation of arXiv
    2504.07440), so no token may be the first of its sequence; ``consuming`` reads where the token is the input (that
    paper's published code).
    """
    return token_positions - 1 if position == "predicting" else token_positions
