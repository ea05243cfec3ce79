"""Stage ``teacher_lift``: does the teacher's context tell the model anything, as far as can be seen without gold?"""
