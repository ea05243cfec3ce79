"""Stage ``evaluation``: all models on held-out questions; the room that judges them by gold labels.

``grade`` marks rollouts, ``confidence`` and ``calibration`` say how sure a model was and how right that was,
``metrics`` adds intervals, ``report`` tells people.
"""
