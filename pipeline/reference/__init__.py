"""The embedded reference world and the small language model trained on it."""
