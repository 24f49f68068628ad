"""What a traced run is asked: every analysis with its options, results, tables and figures. Nothing heavy is imported here.

A command follows from each; in Python the functions of `interp.analysis` do the same without a store.
"""

from interp.questions import of_causes, of_channels
from interp.questions.question import Question

QUESTIONS: tuple[Question, ...] = (of_channels.MASSIVE, *of_causes.QUESTIONS)
