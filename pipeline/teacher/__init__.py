"""Stage ``teacher_contexts``: the worked examples that the teacher sees before each training question.

``questions`` is what is known of questions, as targets or as source of examples; ``builder`` is the interface of
context builders, one file per builder, and ``nearest`` what those that go by a similarity share; ``context`` renders
what they choose within the token budget; ``echo`` measures whether the examples tell the target's own pseudo-answer.
A new builder is one file and one line in ``BUILDERS``.
"""
