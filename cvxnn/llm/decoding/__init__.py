"""Decoding: replies of a language model, greedy, sampled, or guided by a reward head.

To add a rule of guided decoding, choose the step that it changes: which continuations are
candidates (a method of `Proposer` in `rules`, with its name in `guidance.Mode`), how candidates are
scored (`scoring`), or which candidate becomes part of the reply (`rules.draw_candidate`). Its
options are fields of `Guidance` in `guidance`.
"""
