"""Neuron-OPSD as a plain library: from unlabelled questions to a curated training set with teacher contexts.

Each room is one stage or family of stages, in the order in which data flows: ``pool``, ``rollouts``, ``neurons``,
``selection``, ``retrieval``, ``teacher``, ``evaluation``. A stage is a function from tables to rows of a declared
schema (``schemas``); ``chain`` runs the stages against a store of artifacts. ``reference`` makes the embedded world
and model. Nothing here imports Dagster or TRL.
"""
