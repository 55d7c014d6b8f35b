"""The schema, as migrations in order. Never edit one that was released: add the next at the end.

``schema.sql`` shows the result; a test keeps it equal.
"""

from typing import Final

from sqlite_utils import Database as Tool
from sqlite_utils.migrations import Migrations

from store.migrated_examples import TRAINING_DATA
from store.migrated_injections import INJECTION_SETS, INJECTION_VIEWS, move_injections
from store.migrated_sums import FILL_SUMS, SUM_TABLES, SUM_TRIGGERS, TRAFFIC_SUMS

MIGRATIONS: Final = Migrations("tutelage")


def _run(tool: Tool, script: str) -> None:
    # One by one: executescript() would commit the open transaction first.
    for statement in script.split(";\n\n"):
        if statement.strip():
            tool.conn.execute(statement)


@MIGRATIONS()
def m001_tenants(tool: Tool) -> None:
    _run(tool, TENANTS)


@MIGRATIONS()
def m002_records(tool: Tool) -> None:
    _run(tool, RECORDS)


@MIGRATIONS()
def m003_learning(tool: Tool) -> None:
    _run(tool, LEARNING)


@MIGRATIONS()
def m004_knowledge(tool: Tool) -> None:
    _run(tool, KNOWLEDGE)


@MIGRATIONS()
def m005_training(tool: Tool) -> None:
    _run(tool, TRAINING)


@MIGRATIONS()
def m006_views(tool: Tool) -> None:
    _run(tool, VIEWS)


@MIGRATIONS()
def m007_injection_sets(tool: Tool) -> None:
    _run(tool, INJECTION_SETS)
    move_injections(tool.conn)
    _run(tool, INJECTION_VIEWS)


@MIGRATIONS()
def m008_limits(tool: Tool) -> None:
    _run(tool, LIMITS)


@MIGRATIONS()
def m009_joint_model(tool: Tool) -> None:
    _run(tool, JOINT_MODEL)


@MIGRATIONS()
def m010_alert_delivery(tool: Tool) -> None:
    _run(tool, ALERT_DELIVERY)


@MIGRATIONS()
def m011_removed_signals(tool: Tool) -> None:
    _run(tool, REMOVED_SIGNALS)


@MIGRATIONS()
def m012_pattern_blocks(tool: Tool) -> None:
    _run(tool, PATTERN_BLOCKS)


@MIGRATIONS()
def m013_model_calls(tool: Tool) -> None:
    _run(tool, MODEL_CALLS)


@MIGRATIONS()
def m014_self_correction(tool: Tool) -> None:
    _run(tool, SELF_CORRECTION)


@MIGRATIONS()
def m015_remote_vectors(tool: Tool) -> None:
    _run(tool, REMOTE_VECTORS)


@MIGRATIONS()
def m016_nlu_models(tool: Tool) -> None:
    _run(tool, NLU_MODELS)


@MIGRATIONS()
def m017_lives(tool: Tool) -> None:
    _run(tool, LIVES)


@MIGRATIONS()
def m018_steps_of_turns(tool: Tool) -> None:
    _run(tool, STEPS_OF_TURNS)


@MIGRATIONS()
def m019_training_data(tool: Tool) -> None:
    _run(tool, TRAINING_DATA)


@MIGRATIONS()
def m020_daily_sums(tool: Tool) -> None:
    _run(tool, SUM_TABLES)
    _run(tool, FILL_SUMS)
    _run(tool, SUM_TRIGGERS)


@MIGRATIONS()
def m021_roles(tool: Tool) -> None:
    _run(tool, ROLES)


@MIGRATIONS()
def m022_context_lists(tool: Tool) -> None:
    _run(tool, CONTEXT_LISTS)


@MIGRATIONS()
def m023_refits(tool: Tool) -> None:
    _run(tool, REFITS)


@MIGRATIONS()
def m024_traffic_sums(tool: Tool) -> None:
    _run(tool, TRAFFIC_SUMS)


TENANTS: Final = """
CREATE TABLE tenants (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  secret TEXT NOT NULL, -- hex; keys the draw of patterns and the hashes of phone numbers
  learning TEXT NOT NULL DEFAULT 'on' CHECK (learning IN ('on', 'off')), -- off: a pure relay
  require_trial_approval INTEGER NOT NULL DEFAULT 0 CHECK (require_trial_approval IN (0, 1)),
  created_at TEXT NOT NULL -- UTC, as every *_at
) STRICT;

CREATE TABLE api_keys (
  id TEXT NOT NULL PRIMARY KEY,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  name TEXT NOT NULL,
  scope TEXT NOT NULL CHECK (scope IN ('app', 'admin', 'feedback')),
  key_hash TEXT NOT NULL UNIQUE, -- SHA-256 of the whole key, hex; the key itself is shown once and never stored
  prefix TEXT NOT NULL, -- the key's first characters, to recognise it
  created_at TEXT NOT NULL,
  revoked_at TEXT
) STRICT;

CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id);

CREATE TABLE audit_log (
  id TEXT NOT NULL PRIMARY KEY,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  actor TEXT NOT NULL, -- key id, 'console', 'command' or 'learner'
  action TEXT NOT NULL, -- such as 'contexts.approve'
  object_id TEXT NOT NULL,
  detail_json TEXT NOT NULL,
  created_at TEXT NOT NULL
) STRICT;

CREATE INDEX audit_log_by_time ON audit_log (tenant_id, created_at);
"""

RECORDS: Final = """
CREATE TABLE conversations (
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  id TEXT NOT NULL, -- as the app named it, else made by us
  source TEXT NOT NULL CHECK (source IN ('proxy', 'import')),
  user_id TEXT NOT NULL, -- '' when unknown
  is_holdout INTEGER NOT NULL CHECK (is_holdout IN (0, 1)),
  is_resolved INTEGER CHECK (is_resolved IN (0, 1)), -- NULL when nobody said
  tags_json TEXT NOT NULL, -- list of text
  messages_json TEXT, -- imported: the whole transcript; NULL when it is assembled from responses
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, id)
) STRICT;

CREATE INDEX conversations_by_time ON conversations (tenant_id, updated_at);

CREATE TABLE responses (
  seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, -- order of arrival in this database; the learner's cursor
  id TEXT NOT NULL UNIQUE, -- x-tutelage-response-id
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  conversation_id TEXT NOT NULL,
  upstream_id TEXT, -- the id in the reply's body; an upstream may use one twice
  endpoint TEXT NOT NULL, -- such as /v1/chat/completions
  upstream TEXT NOT NULL,
  model TEXT NOT NULL, -- as the app asked for it
  user_id TEXT NOT NULL, -- '' when unknown
  segment TEXT NOT NULL, -- '' when unknown
  agent TEXT NOT NULL CHECK (agent IN ('ai', 'human')),
  question TEXT NOT NULL, -- text of the last user message
  question_type TEXT NOT NULL, -- 'unknown' when nobody said and the classifier is not sure
  question_type_confidence REAL, -- 0 .. 1; NULL when the app said it
  data_source TEXT NOT NULL, -- '' when unknown
  prompt_template TEXT NOT NULL, -- x-tutelage-prompt-template, else a hash of the app's own system text
  tool_set TEXT NOT NULL, -- hash of the sorted tool names, '' without tools
  response_format TEXT NOT NULL, -- table, code, list, prose, json, tool_calls or '' without a reply
  length_band TEXT NOT NULL, -- short, medium, long or ''
  outcome TEXT NOT NULL CHECK (outcome IN ('ok', 'cancelled', 'upstream_error', 'error')),
  status INTEGER NOT NULL, -- HTTP status that the client saw; 0 when none
  finish_reason TEXT,
  is_stream INTEGER NOT NULL CHECK (is_stream IN (0, 1)),
  is_holdout INTEGER NOT NULL CHECK (is_holdout IN (0, 1)),
  generation INTEGER NOT NULL, -- that was served; 0 before the first
  injected_tokens INTEGER NOT NULL, -- cl100k_base tokens of all that was put in
  prompt_tokens INTEGER, -- as the upstream counted, like the next two
  completion_tokens INTEGER,
  cached_tokens INTEGER,
  latency_ms REAL NOT NULL, -- request received to last byte
  first_byte_ms REAL, -- request received to first byte of the reply
  tags_json TEXT NOT NULL, -- list of text
  messages_json TEXT NOT NULL, -- what this turn added to the conversation, as the app sent it, without injections
  reply_json TEXT, -- the assistant's message; partial when the outcome is not ok
  history_hash TEXT NOT NULL, -- of all messages of the request and the reply: the next turn begins with them
  request_hash TEXT NOT NULL, -- of all messages of the request: equal when the same was asked again
  created_at TEXT NOT NULL, -- request received
  completed_at TEXT NOT NULL, -- last byte
  FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations (tenant_id, id)
) STRICT;

CREATE INDEX responses_by_time ON responses (tenant_id, created_at);

CREATE INDEX responses_by_conversation ON responses (tenant_id, conversation_id, seq);

CREATE INDEX responses_by_upstream_id ON responses (tenant_id, upstream_id, seq);

CREATE INDEX responses_by_history ON responses (tenant_id, history_hash, seq);

CREATE INDEX responses_by_user ON responses (tenant_id, user_id, created_at);

CREATE TABLE response_feedback (
  seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
  user_id TEXT NOT NULL, -- '' when unknown
  signal_type TEXT NOT NULL CHECK (signal_type IN ('thumbs_up', 'thumbs_down', 'copy', 'follow_up', 'dwell_time',
    'insight_ack', 'regenerate', 'correction')),
  family TEXT NOT NULL, -- a later signal of the same user, response and family replaces the earlier
  weight REAL NOT NULL, -- as [feedback.weights] had it then
  value REAL, -- dwell_time: seconds
  comment TEXT,
  correction TEXT, -- what the answer should have been
  metadata_json TEXT NOT NULL,
  source TEXT NOT NULL CHECK (source IN ('api', 'traffic')), -- traffic: found in the records by the learner
  created_at TEXT NOT NULL,
  UNIQUE (tenant_id, id),
  UNIQUE (response_id, user_id, family)
) STRICT;

CREATE INDEX response_feedback_by_time ON response_feedback (tenant_id, created_at);

CREATE TABLE feedback_receipts (
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  id TEXT NOT NULL, -- every signal id ever acknowledged, so that a repeated one changes nothing
  answer_json TEXT NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE injections (
  response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
  kind TEXT NOT NULL CHECK (kind IN ('pattern', 'context')),
  item_id TEXT NOT NULL, -- learned_patterns.id or ai_contexts.id
  dimension TEXT NOT NULL, -- '' for contexts
  propensity REAL NOT NULL CHECK (propensity BETWEEN 0 AND 1), -- P(treated), the draw of the holdout included
  share REAL NOT NULL CHECK (share BETWEEN 0 AND 1), -- P(treated) outside the holdout
  treated INTEGER NOT NULL CHECK (treated IN (0, 1)), -- 1: its text was in the request
  similarity REAL, -- cosine to the question; NULL for patterns
  tokens INTEGER NOT NULL,
  PRIMARY KEY (response_id, kind, item_id)
) STRICT, WITHOUT ROWID;

"""

LEARNING: Final = """
CREATE TABLE learning_runs (
  id TEXT NOT NULL PRIMARY KEY,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  kind TEXT NOT NULL CHECK (kind IN ('patterns', 'knowledge', 'nlu')),
  status TEXT NOT NULL CHECK (status IN ('running', 'completed', 'failed')),
  run_at TEXT NOT NULL, -- the run's time for all that depends on time
  started_at TEXT NOT NULL, -- by the machine's clock
  finished_at TEXT,
  generation INTEGER, -- published by it; NULL when nothing changed
  cursor_json TEXT NOT NULL, -- how far the records were read
  n_responses INTEGER NOT NULL DEFAULT 0,
  n_signals INTEGER NOT NULL DEFAULT 0,
  satisfaction REAL, -- of the responses since the run before
  model_calls INTEGER NOT NULL DEFAULT 0,
  prompt_tokens INTEGER NOT NULL DEFAULT 0,
  completion_tokens INTEGER NOT NULL DEFAULT 0,
  cost_usd REAL NOT NULL DEFAULT 0,
  summary_json TEXT NOT NULL, -- what changed, stage by stage
  error TEXT
) STRICT;

CREATE INDEX learning_runs_by_time ON learning_runs (tenant_id, kind, run_at);

CREATE TABLE generations (
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  number INTEGER NOT NULL CHECK (number > 0),
  plan_json TEXT, -- the patterns served; NULL: those of the generation before
  run_id TEXT REFERENCES learning_runs (id), -- NULL: a person's doing
  actor TEXT NOT NULL,
  reason TEXT NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE response_characteristics (
  seq INTEGER NOT NULL PRIMARY KEY REFERENCES responses (seq) ON DELETE CASCADE,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  version INTEGER NOT NULL, -- of the extractors that read it
  values_json TEXT NOT NULL, -- {dimension: [values]}; a dimension that means nothing for the reply is absent
  terms TEXT NOT NULL -- words that may be the tenant's own, as written, separated by spaces
) STRICT;

CREATE INDEX response_characteristics_by_tenant ON response_characteristics (tenant_id, seq);

CREATE TABLE learned_patterns (
  id TEXT NOT NULL PRIMARY KEY,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  type TEXT NOT NULL CHECK (type IN ('prompt_strategy', 'query_style', 'tool_preference', 'response_format',
    'domain_knowledge', 'insight_threshold', 'follow_up_style', 'visualization_preference')),
  dimension TEXT NOT NULL, -- what it steers; a conversation gets at most one pattern of a dimension
  value TEXT NOT NULL, -- the characteristic it asks for, such as 'table'; '' when a person wrote the rule
  rule TEXT NOT NULL, -- the instruction as the model reads it
  conditions_json TEXT NOT NULL, -- question_type, data_source, prompt_template, segment: lists; absent = always
  state TEXT NOT NULL CHECK (state IN ('candidate', 'trial', 'active', 'warmdown', 'retired', 'pinned', 'disabled')),
  grade TEXT NOT NULL CHECK (grade IN ('none', 'provisional', 'proven')),
  origin TEXT NOT NULL CHECK (origin IN ('learned', 'person')),
  is_approved INTEGER NOT NULL DEFAULT 0 CHECK (is_approved IN (0, 1)), -- a person allowed its trial
  confidence REAL NOT NULL CHECK (confidence BETWEEN 0 AND 1), -- probability that it helps; 0.5 = unknown
  score REAL NOT NULL, -- debiased EMA of the satisfaction of responses that had it; shown, never proof
  use_count INTEGER NOT NULL, -- responses that had it
  signal_count INTEGER NOT NULL, -- of those, responses with at least one signal
  user_count INTEGER NOT NULL, -- distinct users behind the signals
  tokens INTEGER NOT NULL, -- cl100k_base, of its line in the block
  lift REAL, -- difference in satisfaction against randomised control; NULL before evidence
  lift_low REAL, -- 95 % interval
  lift_high REAL,
  e_value REAL, -- of the randomised evidence against "does not help"
  share REAL NOT NULL CHECK (share BETWEEN 0 AND 1), -- of matching conversations that get it
  warm_step INTEGER NOT NULL DEFAULT 0, -- runs into warm-up (active) or left of warm-down
  trial_since TEXT, -- randomised evidence counts from here
  last_used_at TEXT,
  removed_at TEXT, -- last time that it was taken out for doing harm or for want of evidence
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;

CREATE INDEX learned_patterns_by_state ON learned_patterns (tenant_id, state);

CREATE TABLE pattern_events (
  seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  pattern_id TEXT NOT NULL REFERENCES learned_patterns (id),
  run_id TEXT REFERENCES learning_runs (id),
  actor TEXT NOT NULL,
  from_state TEXT, -- NULL: it was made
  to_state TEXT NOT NULL,
  reason TEXT NOT NULL,
  detail_json TEXT NOT NULL,
  created_at TEXT NOT NULL
) STRICT;

CREATE INDEX pattern_events_by_pattern ON pattern_events (pattern_id, seq);

CREATE TABLE alerts (
  id TEXT NOT NULL PRIMARY KEY,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  run_id TEXT REFERENCES learning_runs (id),
  kind TEXT NOT NULL, -- such as 'crash', 'run_failed', 'context_flagged'
  message TEXT NOT NULL,
  detail_json TEXT NOT NULL,
  created_at TEXT NOT NULL,
  acknowledged_at TEXT
) STRICT;

CREATE INDEX alerts_by_time ON alerts (tenant_id, created_at);
"""

KNOWLEDGE: Final = """
CREATE TABLE ai_contexts (
  id TEXT NOT NULL PRIMARY KEY,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  questions_json TEXT NOT NULL, -- three phrasings; of the approved revision, else of the newest
  answer TEXT NOT NULL, -- may hold <INSTRUCTION> tags with business rules
  tags_json TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending_approval', 'approved', 'rejected', 'flagged', 'retired')),
  is_served INTEGER NOT NULL CHECK (is_served IN (0, 1)), -- 1: the proxy uses it
  revision INTEGER NOT NULL, -- of the texts in this row
  pending_revision INTEGER, -- a newer one that waits for a person
  source_chat_id TEXT, -- conversations.id; NULL when a person wrote it
  n_users INTEGER NOT NULL, -- distinct users whose conversations support it
  provenance TEXT NOT NULL CHECK (provenance IN ('person', 'correction', 'human_answer', 'tool_result',
    'confirmed_answer', 'answer')), -- order of trust
  tokens INTEGER NOT NULL, -- cl100k_base, of its rendered entry
  embedding BLOB NOT NULL, -- float32, unit length: the mean of its phrasings' vectors
  embedding_model TEXT NOT NULL,
  flag_reason TEXT,
  flag_count INTEGER NOT NULL DEFAULT 0,
  reject_reason TEXT,
  changed_generation INTEGER NOT NULL, -- the proxy loads what changed since its own
  reviewed_by TEXT,
  reviewed_at TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;

CREATE INDEX ai_contexts_by_status ON ai_contexts (tenant_id, status);

CREATE INDEX ai_contexts_by_change ON ai_contexts (tenant_id, changed_generation);

CREATE TABLE context_revisions (
  context_id TEXT NOT NULL REFERENCES ai_contexts (id),
  revision INTEGER NOT NULL CHECK (revision > 0),
  questions_json TEXT NOT NULL,
  answer TEXT NOT NULL,
  tags_json TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending_approval', 'approved', 'rejected', 'superseded')),
  source_chat_id TEXT,
  run_id TEXT REFERENCES learning_runs (id),
  tokens INTEGER NOT NULL,
  embedding BLOB NOT NULL,
  embedding_model TEXT NOT NULL,
  actor TEXT NOT NULL, -- who wrote it
  note TEXT NOT NULL, -- why
  decided_by TEXT,
  decided_at TEXT,
  created_at TEXT NOT NULL,
  PRIMARY KEY (context_id, revision)
) STRICT;

CREATE TABLE context_sources (
  context_id TEXT NOT NULL REFERENCES ai_contexts (id),
  tenant_id TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  revision INTEGER NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('representative', 'support')),
  user_id TEXT NOT NULL,
  PRIMARY KEY (context_id, conversation_id),
  FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations (tenant_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX context_sources_by_conversation ON context_sources (tenant_id, conversation_id);

CREATE TABLE context_flags (
  context_id TEXT NOT NULL REFERENCES ai_contexts (id),
  tenant_id TEXT NOT NULL,
  conversation_id TEXT NOT NULL, -- in which it was corrected; '' when a person flagged it without one
  reason TEXT NOT NULL,
  actor TEXT NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (context_id, conversation_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE mined_conversations (
  tenant_id TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  changed_at TEXT NOT NULL, -- the conversation's newest message or signal when it was looked at
  verdict_json TEXT, -- the pre-screen's; NULL when it was decided without one
  decision TEXT, -- created, revised, supported, skipped or screened_out; NULL: its group was not decided yet
  context_id TEXT REFERENCES ai_contexts (id),
  note TEXT NOT NULL,
  run_id TEXT REFERENCES learning_runs (id),
  mined_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, conversation_id),
  FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
"""

TRAINING: Final = """
CREATE TABLE datasets (
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  type TEXT NOT NULL CHECK (type IN ('nlu')),
  created_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, id)
) STRICT;

CREATE TABLE examples (
  seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  tenant_id TEXT NOT NULL,
  dataset_id TEXT NOT NULL,
  type TEXT NOT NULL CHECK (type IN ('nlu')),
  input TEXT NOT NULL,
  intent TEXT NOT NULL,
  confidence REAL NOT NULL CHECK (confidence BETWEEN 0 AND 1),
  tags_json TEXT NOT NULL, -- such as confidence:95, source:bulk, needs_review
  needs_review INTEGER NOT NULL CHECK (needs_review IN (0, 1)),
  current_step TEXT,
  user_hash TEXT NOT NULL, -- keyed hash of the phone number; '' when none
  conversation_id TEXT,
  fingerprint TEXT NOT NULL, -- of what was sent: the same item twice is one example
  occurred_at TEXT NOT NULL,
  created_at TEXT NOT NULL,
  reviewed_by TEXT,
  reviewed_at TEXT,
  UNIQUE (tenant_id, dataset_id, fingerprint),
  FOREIGN KEY (tenant_id, dataset_id) REFERENCES datasets (tenant_id, id)
) STRICT;

CREATE INDEX examples_by_dataset ON examples (tenant_id, dataset_id, seq);

CREATE INDEX examples_to_review ON examples (tenant_id, dataset_id, seq) WHERE needs_review = 1;

CREATE TABLE training_jobs (
  id TEXT NOT NULL PRIMARY KEY,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  kind TEXT NOT NULL CHECK (kind IN ('nlu-train', 'patterns', 'knowledge')),
  status TEXT NOT NULL CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
  dataset_id TEXT,
  range_start_at TEXT, -- records of this time range
  range_end_at TEXT,
  due_at TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  claimed_by TEXT, -- the learner process that works on it
  claimed_at TEXT,
  run_id TEXT REFERENCES learning_runs (id),
  error TEXT,
  created_at TEXT NOT NULL,
  finished_at TEXT
) STRICT;

CREATE INDEX training_jobs_by_status ON training_jobs (status, due_at);

CREATE INDEX training_jobs_by_tenant ON training_jobs (tenant_id, created_at);

CREATE INDEX training_jobs_by_kind ON training_jobs (tenant_id, kind, due_at);
"""

VIEWS: Final = """
CREATE VIEW v_response_satisfaction AS
SELECT r.id AS response_id, r.seq, r.tenant_id, r.conversation_id, r.user_id, r.question_type, r.is_holdout,
  r.injected_tokens, r.created_at,
  count(f.seq) AS n_signals,
  max(-1.0, min(1.0, coalesce(sum(f.weight), 0.0))) AS satisfaction, -- [-1, 1]
  coalesce(sum(f.signal_type = 'thumbs_up'), 0) AS thumbs_up,
  coalesce(sum(f.signal_type = 'thumbs_down'), 0) AS thumbs_down,
  coalesce(sum(f.signal_type = 'follow_up'), 0) AS follow_up,
  coalesce(sum(f.signal_type = 'regenerate'), 0) AS regenerate
FROM responses AS r LEFT JOIN response_feedback AS f ON f.response_id = r.id
WHERE r.outcome = 'ok'
GROUP BY r.seq;

CREATE VIEW v_satisfaction_by_day AS
SELECT tenant_id, substr(created_at, 1, 10) AS day,
  CASE is_holdout WHEN 1 THEN 'holdout' ELSE 'treated' END AS arm,
  count(*) AS n_responses,
  sum(n_signals) AS n_signals,
  avg(satisfaction) AS satisfaction,
  avg(thumbs_up > 0) AS thumbs_up_rate,
  avg(thumbs_down > 0) AS thumbs_down_rate,
  avg(follow_up > 0) AS follow_up_rate,
  avg(regenerate > 0) AS regenerate_rate
FROM v_response_satisfaction
GROUP BY tenant_id, day, arm;

CREATE VIEW v_active_patterns AS
SELECT tenant_id, id, type, rule, conditions_json, state, grade, confidence, score, lift, lift_low, lift_high,
  share, use_count, signal_count, user_count, tokens, last_used_at
FROM learned_patterns
WHERE state IN ('active', 'pinned', 'warmdown');

CREATE VIEW v_pattern_lift AS
SELECT p.tenant_id, p.id, p.type, p.rule, p.state, p.grade, p.confidence, p.lift, p.lift_low, p.lift_high, p.e_value,
  p.share, p.trial_since,
  coalesce(i.n_treated, 0) AS n_treated,
  coalesce(i.n_control, 0) AS n_control
FROM learned_patterns AS p
LEFT JOIN ( -- counted in one pass: injections have no index by item
  SELECT item_id, sum(treated) AS n_treated, sum(1 - treated) AS n_control
  FROM injections WHERE kind = 'pattern' GROUP BY item_id
) AS i ON i.item_id = p.id;

CREATE VIEW v_pending_contexts AS
SELECT c.tenant_id, c.id, r.revision, r.questions_json, r.answer, r.tags_json, c.provenance, c.n_users,
  r.source_chat_id, c.status, r.created_at
FROM ai_contexts AS c
JOIN context_revisions AS r ON r.context_id = c.id AND r.status = 'pending_approval';
"""

LIMITS: Final = """
ALTER TABLE api_keys ADD COLUMN requests_per_minute INTEGER -- NULL: as [limits] says; 0: no limit; so the next three
  CHECK (requests_per_minute >= 0);

ALTER TABLE api_keys ADD COLUMN tokens_per_minute INTEGER -- prompt and completion tokens
  CHECK (tokens_per_minute >= 0);

ALTER TABLE api_keys ADD COLUMN monthly_budget_usd REAL -- dollars
  CHECK (monthly_budget_usd >= 0);

ALTER TABLE api_keys ADD COLUMN monthly_tokens INTEGER -- prompt and completion tokens
  CHECK (monthly_tokens >= 0);

CREATE TABLE key_usage (
  id TEXT NOT NULL PRIMARY KEY, -- <proxy process>-<number>
  key_id TEXT NOT NULL, -- api_keys.id; 'open': all clients of open mode together
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  upstream TEXT NOT NULL,
  model TEXT NOT NULL, -- as the app asked for it
  prompt_tokens INTEGER NOT NULL, -- as the upstream counted, like the next two
  completion_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL, -- of the prompt's
  is_estimated INTEGER NOT NULL CHECK (is_estimated IN (0, 1)), -- 1: the upstream did not say; counted from the text
  cost_usd REAL NOT NULL, -- 0 when the model's price is not known or the key has no budget in dollars
  created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX key_usage_by_time ON key_usage (created_at);

CREATE TABLE key_months (
  month TEXT NOT NULL, -- UTC, such as 2026-11
  key_id TEXT NOT NULL,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  requests INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  cost_usd REAL NOT NULL,
  PRIMARY KEY (month, key_id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER key_usage_adds_up AFTER INSERT ON key_usage
BEGIN
  INSERT INTO key_months (month, key_id, tenant_id, requests, prompt_tokens, completion_tokens, cost_usd)
  VALUES (substr(NEW.created_at, 1, 7), NEW.key_id, NEW.tenant_id, 1, NEW.prompt_tokens, NEW.completion_tokens,
    NEW.cost_usd)
  ON CONFLICT (month, key_id) DO UPDATE SET
    requests = requests + excluded.requests,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    cost_usd = cost_usd + excluded.cost_usd;
END;
"""

JOINT_MODEL: Final = """
ALTER TABLE learned_patterns ADD COLUMN cells_json TEXT NOT NULL -- [[question type, group, share]] where not share
  DEFAULT '[]';

ALTER TABLE learned_patterns ADD COLUMN guardrails_json TEXT NOT NULL -- metric -> difference in its rate
  DEFAULT '{}';

CREATE TABLE learner_states (
  tenant_id TEXT NOT NULL PRIMARY KEY REFERENCES tenants (id),
  version INTEGER NOT NULL, -- of the form of state
  state BLOB NOT NULL, -- sums over the records up to cursor_json; can be made anew from the records
  cursor_json TEXT NOT NULL, -- up to where the sums hold
  group_field TEXT NOT NULL, -- the second stratum: segment, data_source or prompt_template; '' for none
  priorities_json TEXT NOT NULL, -- dimension -> expected lift per token, for the order of dimensions
  updated_at TEXT NOT NULL
) STRICT;
"""

ALERT_DELIVERY: Final = """
ALTER TABLE alerts ADD COLUMN delivered_at TEXT -- when the webhook took it
  DEFAULT NULL;

ALTER TABLE alerts ADD COLUMN attempts INTEGER NOT NULL -- tries to deliver it
  DEFAULT 0;

ALTER TABLE alerts ADD COLUMN next_try_at TEXT -- NULL: at once
  DEFAULT NULL;

CREATE INDEX alerts_to_deliver ON alerts (created_at) WHERE delivered_at IS NULL;
"""

REMOVED_SIGNALS: Final = """
CREATE TABLE removed_signals (
  seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  signal_seq INTEGER NOT NULL, -- response_feedback.seq of a signal that was taken back or replaced
  response_id TEXT NOT NULL,
  signal_type TEXT NOT NULL,
  weight REAL NOT NULL
) STRICT;

CREATE INDEX removed_signals_by_response ON removed_signals (response_id);

CREATE TRIGGER removed_signals_are_noted AFTER DELETE ON response_feedback
BEGIN
  INSERT INTO removed_signals (tenant_id, signal_seq, response_id, signal_type, weight)
  VALUES (OLD.tenant_id, OLD.seq, OLD.response_id, OLD.signal_type, OLD.weight);
END;
"""

PATTERN_BLOCKS: Final = """
CREATE TABLE pattern_blocks (
  pattern_id TEXT NOT NULL, -- learned_patterns.id
  treated INTEGER NOT NULL CHECK (treated IN (0, 1)), -- 1: its text was in the request
  block INTEGER NOT NULL, -- responses.seq / 128: where to look for its responses
  PRIMARY KEY (pattern_id, treated, block)
) STRICT, WITHOUT ROWID;

INSERT INTO pattern_blocks (pattern_id, treated, block)
SELECT DISTINCT i.item_id, i.treated, u.block
FROM (
  SELECT DISTINCT CASE s.type WHEN 'array' THEN json_extract(s.value, '$[0]') ELSE s.value END AS set_id,
    r.seq / 128 AS block
  FROM responses AS r CROSS JOIN json_each(r.injection_sets_json) AS s
) AS u CROSS JOIN injection_set_items AS i ON i.set_id = u.set_id AND i.kind = 'pattern';
"""

MODEL_CALLS: Final = """
CREATE TABLE model_calls (
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  request_hash TEXT NOT NULL, -- of the model's name and everything that it was sent
  turn INTEGER NOT NULL, -- how many times the run had sent just this before
  run_id TEXT NOT NULL REFERENCES learning_runs (id), -- that paid for it
  answer_json TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  cost_usd REAL NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, request_hash, turn)
) STRICT, WITHOUT ROWID;

ALTER TABLE mined_conversations ADD COLUMN n_left INTEGER NOT NULL -- runs that left it to the next, for a model failed
  DEFAULT 0;
"""

SELF_CORRECTION: Final = """
CREATE TABLE contradictions (
  id TEXT NOT NULL PRIMARY KEY,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  context_id TEXT NOT NULL REFERENCES ai_contexts (id),
  said_before TEXT NOT NULL, -- the entry's answer when it was contradicted
  questions_json TEXT NOT NULL, -- as the conversation asks
  answer TEXT NOT NULL, -- what the conversation says
  tags_json TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  provenance TEXT NOT NULL, -- as of ai_contexts
  status TEXT NOT NULL CHECK (status IN ('open', 'resolved')),
  resolution TEXT CHECK (resolution IN ('keep', 'replace', 'retire_both', 'no_contradiction')),
  note TEXT NOT NULL,
  run_id TEXT REFERENCES learning_runs (id),
  resolved_by TEXT,
  resolved_at TEXT,
  created_at TEXT NOT NULL,
  UNIQUE (context_id, conversation_id)
) STRICT;

CREATE INDEX contradictions_by_status ON contradictions (tenant_id, status, id);

CREATE TABLE context_evidence (
  context_id TEXT NOT NULL PRIMARY KEY REFERENCES ai_contexts (id),
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  n_uses INTEGER NOT NULL, -- replies that had it since it was reviewed
  n_held_back INTEGER NOT NULL, -- replies for which it was found and left out by lot
  n_users INTEGER NOT NULL, -- distinct users behind both
  n_failed INTEGER NOT NULL, -- uses with a correction, a regenerate, or more against than for them
  n_rated_users INTEGER NOT NULL, -- users who said anything about a reply that had it
  n_failed_users INTEGER NOT NULL, -- of those, users for whom most of these replies failed
  lift REAL, -- satisfaction with it less satisfaction without, by the lot; NULL before evidence
  lift_low REAL, -- 95 % interval
  lift_high REAL,
  harm_e_value REAL, -- of the evidence against "does no harm"
  use_share REAL NOT NULL CHECK (use_share BETWEEN 0 AND 1), -- of the replies that had any entry
  n_unrelated INTEGER NOT NULL, -- questions near it that have nothing to do with each other
  proposal TEXT, -- why it should be deleted; NULL: nothing says so
  updated_at TEXT NOT NULL
) STRICT;

CREATE INDEX context_evidence_by_tenant ON context_evidence (tenant_id);

CREATE INDEX conversations_by_user ON conversations (tenant_id, user_id, created_at) WHERE user_id <> '';

ALTER TABLE context_flags ADD COLUMN settled_at TEXT; -- a reviewer decided; it counts no more
"""

REMOTE_VECTORS: Final = """
CREATE TABLE context_vectors ( -- of the model of [embedding], beside the local ones
  context_id TEXT NOT NULL,
  revision INTEGER NOT NULL,
  model TEXT NOT NULL,
  embedding BLOB NOT NULL, -- 256 float32, unit length
  PRIMARY KEY (context_id, revision, model),
  FOREIGN KEY (context_id, revision) REFERENCES context_revisions (context_id, revision) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TRIGGER context_vectors_follow_their_texts AFTER UPDATE OF questions_json ON context_revisions
WHEN OLD.questions_json <> NEW.questions_json
BEGIN
  DELETE FROM context_vectors WHERE context_id = OLD.context_id AND revision = OLD.revision;
END;

CREATE TABLE embedding_states (
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  model TEXT NOT NULL, -- that made the vectors
  threshold REAL, -- cosine under which the tenant's entries are not injected; NULL: the configured one
  calibrated_on TEXT NOT NULL DEFAULT '', -- what was asked of the threshold when it was found
  n_entries INTEGER NOT NULL DEFAULT 0, -- that it was found on
  prompt_tokens INTEGER NOT NULL DEFAULT 0, -- that vectors of entries have cost so far
  cost_usd REAL NOT NULL DEFAULT 0, -- dollars
  updated_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, model)
) STRICT, WITHOUT ROWID;
"""

NLU_MODELS: Final = """
CREATE TABLE nlu_models (
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  version INTEGER NOT NULL, -- from 1
  dataset_id TEXT NOT NULL,
  run_id TEXT REFERENCES learning_runs (id),
  embedding_model TEXT NOT NULL, -- whose vectors it reads
  n_intents INTEGER NOT NULL,
  n_examples INTEGER NOT NULL, -- distinct texts
  fingerprint TEXT NOT NULL, -- of the examples and all that decides what is made of them
  report_json TEXT NOT NULL,
  model BLOB NOT NULL, -- trained on all examples: what is served
  assessed BLOB NOT NULL, -- trained without the held-out part: what the next version is compared with
  created_at TEXT NOT NULL,
  published_at TEXT, -- NULL: it was never served
  withdrawn_at TEXT, -- a person went back to the version before
  PRIMARY KEY (tenant_id, version)
) STRICT;

CREATE INDEX nlu_models_served ON nlu_models (tenant_id, version)
  WHERE published_at IS NOT NULL AND withdrawn_at IS NULL;
"""

LIVES: Final = """
ALTER TABLE learning_runs ADD COLUMN is_frozen INTEGER -- a crash held back what is new; NULL: the run did not look
  CHECK (is_frozen IN (0, 1));

ALTER TABLE learned_patterns ADD COLUMN reworded_at -- since when a person's words stand in it; NULL: never edited
  TEXT;

ALTER TABLE learned_patterns ADD COLUMN reworded_from -- the value that it asked for before, which is theirs now
  TEXT;

ALTER TABLE pattern_events ADD COLUMN is_harm INTEGER NOT NULL DEFAULT 0 -- it was taken out because it did harm
  CHECK (is_harm IN (0, 1));

UPDATE pattern_events SET is_harm = 1
WHERE to_state = 'retired' AND actor = 'learner' AND (reason LIKE 'harm:%' OR reason LIKE 'guardrail:%');
"""

STEPS_OF_TURNS: Final = """
ALTER TABLE response_characteristics ADD COLUMN answer_seq INTEGER -- of a step of a tool loop: the turn's answer
  DEFAULT NULL;

CREATE INDEX response_characteristics_by_answer ON response_characteristics (tenant_id, answer_seq)
WHERE answer_seq IS NOT NULL;
"""

ROLES: Final = """
CREATE TABLE new_api_keys (
  id TEXT NOT NULL PRIMARY KEY,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  name TEXT NOT NULL,
  scope TEXT NOT NULL CHECK (scope IN ('app', 'admin', 'feedback', 'reviewer', 'viewer')),
  key_hash TEXT NOT NULL UNIQUE, -- SHA-256 of the whole key, hex; the key itself is shown once and never stored
  prefix TEXT NOT NULL, -- the key's first characters, to recognise it
  created_at TEXT NOT NULL,
  revoked_at TEXT,
  requests_per_minute INTEGER CHECK (requests_per_minute >= 0), -- NULL: as [limits] says; 0: none; so the next three
  tokens_per_minute INTEGER CHECK (tokens_per_minute >= 0), -- prompt and completion tokens
  monthly_budget_usd REAL CHECK (monthly_budget_usd >= 0), -- dollars
  monthly_tokens INTEGER CHECK (monthly_tokens >= 0) -- prompt and completion tokens
) STRICT;

INSERT INTO new_api_keys (id, tenant_id, name, scope, key_hash, prefix, created_at, revoked_at, requests_per_minute,
  tokens_per_minute, monthly_budget_usd, monthly_tokens)
SELECT id, tenant_id, name, scope, key_hash, prefix, created_at, revoked_at, requests_per_minute, tokens_per_minute,
  monthly_budget_usd, monthly_tokens
FROM api_keys;

DROP TABLE api_keys;

ALTER TABLE new_api_keys RENAME TO api_keys;

CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id);
"""

CONTEXT_LISTS: Final = """
DROP INDEX ai_contexts_by_status;

CREATE INDEX ai_contexts_by_status ON ai_contexts (tenant_id, status, id);

CREATE INDEX ai_contexts_by_id ON ai_contexts (tenant_id, id);

CREATE INDEX ai_contexts_served ON ai_contexts (tenant_id) WHERE is_served = 1;

CREATE INDEX context_revisions_pending ON context_revisions (context_id, revision) WHERE status = 'pending_approval';
"""

REFITS: Final = """
CREATE TABLE embedding_refits (
  id TEXT NOT NULL PRIMARY KEY,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  local_model TEXT NOT NULL, -- whose vectors it turns into the tenant's own
  teacher TEXT NOT NULL, -- the embedding model whose vectors it approaches
  status TEXT NOT NULL CHECK (status IN ('collecting', 'served', 'refused', 'replaced', 'withdrawn')),
  until_seq INTEGER NOT NULL, -- responses.seq of the newest record that it is made of
  n_texts INTEGER NOT NULL DEFAULT 0, -- that it was fitted to
  n_tokens INTEGER NOT NULL DEFAULT 0, -- with an offset of their own
  n_checked INTEGER NOT NULL DEFAULT 0, -- entries that the check was made on
  gain REAL, -- in the reciprocal rank of the right entry, 0 under the threshold; NULL before a check
  gain_low REAL, -- 95 % lower bound
  note TEXT NOT NULL DEFAULT '', -- why it is not served
  prompt_tokens INTEGER NOT NULL DEFAULT 0, -- as the teacher counted
  cost_usd REAL NOT NULL DEFAULT 0, -- dollars
  token_ids BLOB, -- int32, ascending; NULL unless served, one step back, or read by a classifier; so the next
  offsets BLOB, -- 256 float16 for each of them
  created_at TEXT NOT NULL,
  finished_at TEXT
) STRICT;

CREATE UNIQUE INDEX embedding_refits_in_use ON embedding_refits (tenant_id, status)
  WHERE status IN ('collecting', 'served', 'replaced');

CREATE INDEX embedding_refits_by_tenant ON embedding_refits (tenant_id, created_at);

CREATE TABLE teacher_vectors ( -- paid for, until the refit is done
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  teacher TEXT NOT NULL,
  text_key BLOB NOT NULL, -- blake2b of the text without personal data, as it was sent
  embedding BLOB NOT NULL, -- 256 float32, unit length
  PRIMARY KEY (tenant_id, teacher, text_key)
) STRICT, WITHOUT ROWID;
"""
