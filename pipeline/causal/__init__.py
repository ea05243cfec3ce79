"""Stage ``causal_check``: what silencing a response's leading neurons costs it."""
