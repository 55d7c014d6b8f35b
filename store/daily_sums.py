"""Tables ``daily_sums`` and ``conversation_sums``: what all responses of a day and arm add up to.

New responses, and signals that were found in the traffic, are added by whoever inserts them, page by page; all else by
triggers, in the transaction that writes or takes back a signal or forgets a response. So each counts exactly once,
whoever writes it and however late. A response's own part, its signals' weights clipped to [-1, 1], is worked out before
and after each change from the signals that are there; both tables take the difference.

Everything about a response is kept under the day (UTC) of its request. What is said of conversations as clusters (for
the standard error) is kept under the day of their first response.
"""

from operator import add
from typing import Final

from store.database import Database


def add_responses(db: Database, *, after: int, until: int) -> None:
    """Add the new responses with ``after < seq <= until``, which have no signals yet; once, when they are inserted.

    Not by a trigger: that costs 23 us a response, this 3.

    Raises:
        UnavailableError: the database is missing, locked or damaged.
    """
    if until <= after:
        return
    values = {"after": after, "until": until}
    db.execute(
        """
        INSERT INTO daily_sums (tenant_id, day, is_holdout, n_responses, injected_tokens, prompt_tokens,
          completion_tokens, cached_tokens)
        SELECT tenant_id, substr(created_at, 1, 10) AS day, is_holdout, count(*), sum(injected_tokens),
          sum(coalesce(prompt_tokens, 0)), sum(coalesce(completion_tokens, 0)), sum(coalesce(cached_tokens, 0))
        FROM responses WHERE seq > :after AND seq <= :until AND outcome = 'ok' GROUP BY tenant_id, day, is_holdout
        ON CONFLICT (tenant_id, day, is_holdout) DO UPDATE SET
          n_responses = n_responses + excluded.n_responses,
          injected_tokens = injected_tokens + excluded.injected_tokens,
          prompt_tokens = prompt_tokens + excluded.prompt_tokens,
          completion_tokens = completion_tokens + excluded.completion_tokens,
          cached_tokens = cached_tokens + excluded.cached_tokens
        """,
        values,
    )
    db.execute(
        """
        INSERT INTO conversation_sums (tenant_id, conversation_id, is_holdout, day, n_responses, satisfaction)
        SELECT tenant_id, conversation_id, is_holdout, substr(min(created_at), 1, 10), count(*), 0.0
        FROM responses WHERE seq > :after AND seq <= :until AND outcome = 'ok'
        GROUP BY tenant_id, conversation_id, is_holdout
        ON CONFLICT (tenant_id, conversation_id, is_holdout)
        DO UPDATE SET n_responses = n_responses + excluded.n_responses
        """,
        values,
    )


def add_traffic_signals(db: Database, *, after: int) -> None:
    """Add the signals with ``seq > after``, all found in the traffic; in the transaction that inserted them.

    Not by the trigger, which adds those that somebody gave: that costs 20 us a signal, this 8.

    Raises:
        UnavailableError: the database is missing, locked or damaged.
    """
    days: dict[tuple[str, str, int], tuple[float, ...]] = {}
    conversations: dict[tuple[str, str, int], tuple[str, float]] = {}
    for tenant_id, conversation_id, is_holdout, day, *sums in db.rows(_CHANGES, {"after": after}):
        key = (tenant_id, day, is_holdout)
        days[key] = tuple(map(add, days[key], sums)) if key in days else tuple(sums)
        chat = (tenant_id, conversation_id, is_holdout)
        first, told = conversations.get(chat, (day, 0.0))
        conversations[chat] = min(first, day), told + sums[_SATISFACTION]
    db.execute_many(
        """
        INSERT INTO daily_sums (tenant_id, day, is_holdout, n_responses, n_signals, satisfaction, n_thumbs_up,
          n_thumbs_down, n_follow_up, n_regenerate)
        VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (tenant_id, day, is_holdout) DO UPDATE SET
          n_signals = n_signals + excluded.n_signals,
          satisfaction = satisfaction + excluded.satisfaction,
          n_thumbs_up = n_thumbs_up + excluded.n_thumbs_up,
          n_thumbs_down = n_thumbs_down + excluded.n_thumbs_down,
          n_follow_up = n_follow_up + excluded.n_follow_up,
          n_regenerate = n_regenerate + excluded.n_regenerate
        """,
        [(*key, *sums) for key, sums in days.items()],
    )
    db.execute_many(
        """
        INSERT INTO conversation_sums (tenant_id, conversation_id, is_holdout, day, n_responses, satisfaction)
        VALUES (?, ?, ?, ?, 0, ?)
        ON CONFLICT (tenant_id, conversation_id, is_holdout)
        DO UPDATE SET satisfaction = satisfaction + excluded.satisfaction
        """,
        [(*chat, *told) for chat, told in conversations.items()],
    )


_SATISFACTION: Final = 1  # place among the sums that ``_CHANGES`` ends with


def _newly(signal_type: str) -> str:
    """Return SQL of 1 for a response that has the signal now and had none before, else 0."""
    has = f"max(f.signal_type = '{signal_type}')"
    return f"{has} - coalesce({has} FILTER (WHERE f.seq <= :after), 0)"


# What the signals with seq > :after changed about each response that they are of.
_CHANGES: Final = f"""
  SELECT r.tenant_id, r.conversation_id, r.is_holdout, substr(r.created_at, 1, 10) AS day,
    c.n_signals, c.satisfaction, c.n_thumbs_up, c.n_thumbs_down, c.n_follow_up, c.n_regenerate
  FROM (
    SELECT f.response_id,
      count(*) FILTER (WHERE f.seq > :after) AS n_signals,
      max(-1.0, min(1.0, sum(f.weight)))
        - max(-1.0, min(1.0, coalesce(sum(f.weight) FILTER (WHERE f.seq <= :after), 0.0))) AS satisfaction,
      {_newly("thumbs_up")} AS n_thumbs_up,
      {_newly("thumbs_down")} AS n_thumbs_down,
      {_newly("follow_up")} AS n_follow_up,
      {_newly("regenerate")} AS n_regenerate
    FROM (SELECT DISTINCT response_id FROM response_feedback NOT INDEXED WHERE seq > :after) AS n
    CROSS JOIN response_feedback AS f ON f.response_id = n.response_id
    GROUP BY f.response_id
  ) AS c
  CROSS JOIN responses AS r ON r.id = c.response_id
  WHERE r.outcome = 'ok'
"""
