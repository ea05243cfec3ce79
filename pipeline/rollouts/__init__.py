"""Stage ``rollouts``: sampled responses to every question; what they state is read by the stage ``answers``."""
