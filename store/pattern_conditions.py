"""Under which conditions patterns of each type can hold: one table, for people, for the learner and for the documents.

A condition must say something about what the type steers. The learner deals shares by question type and group whatever
the conditions are, so that a field that is not here costs a pattern nothing but the false finds that it would invite.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from store.plan import Conditions
from store.vocabulary import PatternType

ConditionField = Literal["question_type", "data_source", "prompt_template", "segment"]

MEANINGS: Final[Mapping[ConditionField, str]] = MappingProxyType(
    {
        "question_type": "what kind of question the conversation began with",
        "data_source": "what the answer is drawn from, as the app says it",
        "prompt_template": "which of the app's prompts, and so which of its tools",
        "segment": "which group of users",
    }
)
SCHEMA: Final[Mapping[PatternType, Mapping[ConditionField, str]]] = MappingProxyType(
    {
        "prompt_strategy": {
            "question_type": "steps suit a how-to, a summary a report",
            "data_source": "sources and caveats suit some data",
            "prompt_template": "what one assistant explains, another only looks up",
            "segment": "experts want less explained",
        },
        "query_style": {
            "question_type": "a total is asked for otherwise than a record",
            "data_source": "a database has its dialect and its tables",
            "prompt_template": "an assistant has its task",
        },
        "tool_preference": {
            "question_type": "a tool answers some questions",
            "data_source": "a tool reads some data",
            "prompt_template": "an assistant has its tools",
        },
        "response_format": {
            "question_type": "a comparison suits a table",
            "data_source": "figures suit a table",
            "prompt_template": "a chat window and a mail show things differently",
            "segment": "groups read differently",
        },
        "domain_knowledge": {
            "question_type": "words belong to a subject",
            "data_source": "words belong to a product's documents",
            "prompt_template": "an assistant has its subject",
            "segment": "laymen and experts have words of their own",
        },
        "insight_threshold": {
            "question_type": "an alert wants another threshold than a review",
            "data_source": "some figures vary more than others",
            "prompt_template": "an assistant has its kind of report",
            "segment": "whoever is on call wants to hear more",
        },
        "follow_up_style": {
            "question_type": "a how-to has next steps, a fact has none",
            "prompt_template": "a chat goes on, a mail ends",
            "segment": "newcomers want to be led",
        },
        "visualization_preference": {
            "question_type": "a trend suits a line",
            "data_source": "data has its shape",
            "prompt_template": "not every app can draw",
            "segment": "groups read differently",
        },
    }
)


def misfit(type: PatternType, conditions: Conditions) -> ConditionField | None:  # noqa: A002
    """Return the first field of *conditions* that means nothing for patterns of *type*, or None.

    >>> misfit("query_style", Conditions(question_type=("price",), segment=("pro",)))
    'segment'
    """
    return next((field for field in MEANINGS if getattr(conditions, field) and field not in SCHEMA[type]), None)
