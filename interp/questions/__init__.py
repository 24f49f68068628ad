"""Analyses of a traced run: their options, results, tables and figures. Nothing heavy is imported here.

Each has a command; in Python, the functions of `interp.analysis` do the same without a store.
"""

from interp.questions import of_causes, of_channels, of_frames
from interp.questions.question import Question

QUESTIONS: tuple[Question, ...] = (of_channels.MASSIVE, *of_causes.QUESTIONS, of_frames.FRAMES)
