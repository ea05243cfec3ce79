"""Stages that train adapters, each by a process of its own."""
