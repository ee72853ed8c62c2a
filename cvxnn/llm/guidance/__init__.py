"""Guided decoding: replies that a language model finds likely and a reward head finds good.

To add a decoding rule, choose the step that it changes: which continuations are candidates
(`continuations`, with its name in ``Guidance.mode``), how candidates are scored (`scoring`), or
which candidate becomes part of the reply (`writing.draw_candidate`). Its options are fields of
`Guidance` in `settings`.
"""
