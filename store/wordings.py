"""The wording of an entry from its texts: tokens counted, vector made."""

from collections.abc import Sequence

from store.blocks import clean_line, clean_text, context_entry
from store.contexts import Wording
from store.embedding import Embedder, entry_embedding
from store.tokens import TokenCounter


def compose(
    questions: Sequence[str], answer: str, tags: Sequence[str], *, embedder: Embedder, tokens: TokenCounter
) -> Wording:
    """Return the wording of these texts; *questions* holds at least one phrasing, the first is the one shown.

    They are cleaned here, as they are again where they are injected: what a reviewer sees is what the model reads.
    """
    questions, answer = [clean_line(question) for question in questions], clean_text(answer)
    return Wording(
        questions=tuple(questions),
        answer=answer,
        tags=tuple(tags),
        tokens=tokens.count(context_entry(questions[0], answer)),
        embedding=entry_embedding(embedder, questions),
        embedding_model=embedder.name,
    )
