"""A real language model for who reaches a package registry but no hub."""
