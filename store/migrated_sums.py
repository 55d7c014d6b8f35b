"""The migrations that make ``daily_sums`` and ``conversation_sums`` and keep them; see ``daily_sums.py``."""

from typing import Final

SUM_TABLES: Final = """
CREATE TABLE daily_sums ( -- of responses with outcome ok; kept by triggers
  tenant_id TEXT NOT NULL,
  day TEXT NOT NULL, -- UTC, of responses.created_at
  is_holdout INTEGER NOT NULL CHECK (is_holdout IN (0, 1)),
  n_responses INTEGER NOT NULL DEFAULT 0,
  n_signals INTEGER NOT NULL DEFAULT 0,
  satisfaction REAL NOT NULL DEFAULT 0, -- sum over responses of their signals' weights, each clipped to [-1, 1]
  n_thumbs_up INTEGER NOT NULL DEFAULT 0, -- responses with at least one, like the next three
  n_thumbs_down INTEGER NOT NULL DEFAULT 0,
  n_follow_up INTEGER NOT NULL DEFAULT 0,
  n_regenerate INTEGER NOT NULL DEFAULT 0,
  injected_tokens INTEGER NOT NULL DEFAULT 0, -- cl100k_base tokens of all that was put in
  prompt_tokens INTEGER NOT NULL DEFAULT 0, -- as the upstream counted, like the next two
  completion_tokens INTEGER NOT NULL DEFAULT 0,
  cached_tokens INTEGER NOT NULL DEFAULT 0, -- of the prompt's
  n_conversations INTEGER NOT NULL DEFAULT 0, -- that began on this day; of those, the sums over conversations of ...
  sum_nn REAL NOT NULL DEFAULT 0, -- the square of a conversation's number of responses
  sum_tt REAL NOT NULL DEFAULT 0, -- the square of its satisfaction's sum
  sum_nt REAL NOT NULL DEFAULT 0, -- the product of both
  PRIMARY KEY (tenant_id, day, is_holdout)
) STRICT, WITHOUT ROWID;

CREATE TABLE conversation_sums ( -- of responses with outcome ok; kept by triggers
  tenant_id TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  is_holdout INTEGER NOT NULL CHECK (is_holdout IN (0, 1)),
  day TEXT NOT NULL, -- UTC, of its first response
  n_responses INTEGER NOT NULL,
  satisfaction REAL NOT NULL, -- sum over its responses, each clipped to [-1, 1]
  PRIMARY KEY (tenant_id, conversation_id, is_holdout)
) STRICT, WITHOUT ROWID;

CREATE VIEW sum_changes AS -- never has a row: what is put in is added to both tables of sums
SELECT '' AS tenant_id, '' AS conversation_id, '' AS day, 0 AS is_holdout, 0 AS n_responses, 0 AS n_signals,
  0.0 AS satisfaction, 0 AS n_thumbs_up, 0 AS n_thumbs_down, 0 AS n_follow_up, 0 AS n_regenerate,
  0 AS injected_tokens, 0 AS prompt_tokens, 0 AS completion_tokens, 0 AS cached_tokens
WHERE false;

DROP VIEW v_satisfaction_by_day;

CREATE VIEW v_satisfaction_by_day AS
SELECT tenant_id, day, CASE is_holdout WHEN 1 THEN 'holdout' ELSE 'treated' END AS arm,
  n_responses,
  n_signals,
  satisfaction / n_responses AS satisfaction,
  1.0 * n_thumbs_up / n_responses AS thumbs_up_rate,
  1.0 * n_thumbs_down / n_responses AS thumbs_down_rate,
  1.0 * n_follow_up / n_responses AS follow_up_rate,
  1.0 * n_regenerate / n_responses AS regenerate_rate
FROM daily_sums WHERE n_responses > 0;
"""

FILL_SUMS: Final = """
INSERT INTO conversation_sums (tenant_id, conversation_id, is_holdout, day, n_responses, satisfaction)
SELECT tenant_id, conversation_id, is_holdout, substr(min(created_at), 1, 10), count(*), sum(satisfaction)
FROM v_response_satisfaction
GROUP BY tenant_id, conversation_id, is_holdout;

INSERT INTO daily_sums (tenant_id, day, is_holdout, n_responses, n_signals, satisfaction, n_thumbs_up, n_thumbs_down,
  n_follow_up, n_regenerate, injected_tokens, prompt_tokens, completion_tokens, cached_tokens)
SELECT s.tenant_id, substr(s.created_at, 1, 10) AS day, s.is_holdout, count(*), sum(s.n_signals), sum(s.satisfaction),
  sum(s.thumbs_up > 0), sum(s.thumbs_down > 0), sum(s.follow_up > 0), sum(s.regenerate > 0), sum(s.injected_tokens),
  sum(coalesce(r.prompt_tokens, 0)), sum(coalesce(r.completion_tokens, 0)), sum(coalesce(r.cached_tokens, 0))
FROM v_response_satisfaction AS s CROSS JOIN responses AS r ON r.seq = s.seq
GROUP BY s.tenant_id, day, s.is_holdout;

INSERT INTO daily_sums (tenant_id, day, is_holdout, n_conversations, sum_nn, sum_tt, sum_nt)
SELECT tenant_id, day, is_holdout, count(*), sum(n_responses * n_responses), sum(satisfaction * satisfaction),
  sum(n_responses * satisfaction)
FROM conversation_sums WHERE true GROUP BY tenant_id, day, is_holdout
ON CONFLICT (tenant_id, day, is_holdout) DO UPDATE SET
  n_conversations = excluded.n_conversations, sum_nn = excluded.sum_nn, sum_tt = excluded.sum_tt,
  sum_nt = excluded.sum_nt;
"""

# Of one response, as sum_changes takes them: its signals alone.
_SIGNAL_COLUMNS: Final = "n_signals, satisfaction, n_thumbs_up, n_thumbs_down, n_follow_up, n_regenerate"


def _signal_sums(condition: str) -> str:
    """Return the query of what a response's signals under *condition* make of it, as ``_SIGNAL_COLUMNS``."""
    return f"""(
    SELECT count(*) AS n_signals, max(-1.0, min(1.0, coalesce(sum(weight), 0.0))) AS satisfaction,
      coalesce(max(signal_type = 'thumbs_up'), 0) AS n_thumbs_up,
      coalesce(max(signal_type = 'thumbs_down'), 0) AS n_thumbs_down,
      coalesce(max(signal_type = 'follow_up'), 0) AS n_follow_up,
      coalesce(max(signal_type = 'regenerate'), 0) AS n_regenerate
    FROM response_feedback WHERE {condition})"""


def _signal_trigger(name: str, when: str, row: str, sign: str, *, only: str = "") -> str:
    """Return the trigger that adds (*sign* ``+``) or takes off (``-``) what the signal *row* makes of its response."""
    differences = ", ".join(f"{sign}(whole.{column} - rest.{column})" for column in _SIGNAL_COLUMNS.split(", "))
    return f"""
CREATE TRIGGER {name} {when} ON response_feedback{only}
BEGIN
  INSERT INTO sum_changes (tenant_id, conversation_id, day, is_holdout, n_responses, {_SIGNAL_COLUMNS},
    injected_tokens, prompt_tokens, completion_tokens, cached_tokens)
  SELECT r.tenant_id, r.conversation_id, substr(r.created_at, 1, 10), r.is_holdout, 0,
    {differences},
    0, 0, 0, 0
  FROM responses AS r
  CROSS JOIN {_signal_sums(f"response_id = {row}.response_id")} AS whole
  CROSS JOIN {_signal_sums(f"response_id = {row}.response_id AND seq <> {row}.seq")} AS rest
  WHERE r.id = {row}.response_id AND r.outcome = 'ok';
END;
"""


SUM_TRIGGERS: Final = f"""
CREATE TRIGGER sum_changes_add_up INSTEAD OF INSERT ON sum_changes
BEGIN
  INSERT INTO daily_sums (tenant_id, day, is_holdout, n_responses, {_SIGNAL_COLUMNS},
    injected_tokens, prompt_tokens, completion_tokens, cached_tokens)
  VALUES (NEW.tenant_id, NEW.day, NEW.is_holdout, NEW.n_responses, NEW.n_signals, NEW.satisfaction, NEW.n_thumbs_up,
    NEW.n_thumbs_down, NEW.n_follow_up, NEW.n_regenerate, NEW.injected_tokens, NEW.prompt_tokens,
    NEW.completion_tokens, NEW.cached_tokens)
  ON CONFLICT (tenant_id, day, is_holdout) DO UPDATE SET
    n_responses = n_responses + excluded.n_responses,
    n_signals = n_signals + excluded.n_signals,
    satisfaction = satisfaction + excluded.satisfaction,
    n_thumbs_up = n_thumbs_up + excluded.n_thumbs_up,
    n_thumbs_down = n_thumbs_down + excluded.n_thumbs_down,
    n_follow_up = n_follow_up + excluded.n_follow_up,
    n_regenerate = n_regenerate + excluded.n_regenerate,
    injected_tokens = injected_tokens + excluded.injected_tokens,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens;
  INSERT INTO conversation_sums (tenant_id, conversation_id, is_holdout, day, n_responses, satisfaction)
  VALUES (NEW.tenant_id, NEW.conversation_id, NEW.is_holdout, NEW.day, NEW.n_responses, NEW.satisfaction)
  ON CONFLICT (tenant_id, conversation_id, is_holdout) DO UPDATE SET
    n_responses = n_responses + excluded.n_responses,
    satisfaction = satisfaction + excluded.satisfaction;
END;

CREATE TRIGGER conversation_sums_add_up AFTER INSERT ON conversation_sums
BEGIN
  UPDATE daily_sums SET
    n_conversations = n_conversations + 1,
    sum_nn = sum_nn + NEW.n_responses * NEW.n_responses,
    sum_tt = sum_tt + NEW.satisfaction * NEW.satisfaction,
    sum_nt = sum_nt + NEW.n_responses * NEW.satisfaction
  WHERE tenant_id = NEW.tenant_id AND day = NEW.day AND is_holdout = NEW.is_holdout;
END;

CREATE TRIGGER conversation_sums_change AFTER UPDATE ON conversation_sums
BEGIN
  UPDATE daily_sums SET
    sum_nn = sum_nn + NEW.n_responses * NEW.n_responses - OLD.n_responses * OLD.n_responses,
    sum_tt = sum_tt + NEW.satisfaction * NEW.satisfaction - OLD.satisfaction * OLD.satisfaction,
    sum_nt = sum_nt + NEW.n_responses * NEW.satisfaction - OLD.n_responses * OLD.satisfaction
  WHERE tenant_id = NEW.tenant_id AND day = NEW.day AND is_holdout = NEW.is_holdout;
  DELETE FROM conversation_sums
  WHERE NEW.n_responses = 0 AND tenant_id = NEW.tenant_id AND conversation_id = NEW.conversation_id
    AND is_holdout = NEW.is_holdout;
END;

CREATE TRIGGER conversation_sums_go AFTER DELETE ON conversation_sums
BEGIN
  UPDATE daily_sums SET
    n_conversations = n_conversations - 1,
    sum_nn = sum_nn - OLD.n_responses * OLD.n_responses,
    sum_tt = sum_tt - OLD.satisfaction * OLD.satisfaction,
    sum_nt = sum_nt - OLD.n_responses * OLD.satisfaction
  WHERE tenant_id = OLD.tenant_id AND day = OLD.day AND is_holdout = OLD.is_holdout;
END;

CREATE TRIGGER responses_go BEFORE DELETE ON responses WHEN OLD.outcome = 'ok'
BEGIN
  INSERT INTO sum_changes (tenant_id, conversation_id, day, is_holdout, n_responses, {_SIGNAL_COLUMNS},
    injected_tokens, prompt_tokens, completion_tokens, cached_tokens)
  SELECT OLD.tenant_id, OLD.conversation_id, substr(OLD.created_at, 1, 10), OLD.is_holdout, -1,
    -n_signals, -satisfaction, -n_thumbs_up, -n_thumbs_down, -n_follow_up, -n_regenerate, -OLD.injected_tokens,
    -coalesce(OLD.prompt_tokens, 0), -coalesce(OLD.completion_tokens, 0), -coalesce(OLD.cached_tokens, 0)
  FROM {_signal_sums("response_id = OLD.id")};
END;
{_signal_trigger("signals_add_up", "AFTER INSERT", "NEW", "+")}
{_signal_trigger("signals_go", "BEFORE DELETE", "OLD", "-")}"""

TRAFFIC_SUMS: Final = f"""
DROP TRIGGER signals_add_up;
{_signal_trigger("signals_add_up", "AFTER INSERT", "NEW", "+", only=" WHEN NEW.source <> 'traffic'")}"""
