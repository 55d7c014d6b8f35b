-- Made from the migrations by `python -m store.schema`; do not edit. Times are UTC text, *_json is JSON.

CREATE TABLE tenants (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  secret TEXT NOT NULL, -- hex; keys the draw of patterns and the hashes of phone numbers
  learning TEXT NOT NULL DEFAULT 'on' CHECK (learning IN ('on', 'off')), -- off: a pure relay
  require_trial_approval INTEGER NOT NULL DEFAULT 0 CHECK (require_trial_approval IN (0, 1)),
  created_at TEXT NOT NULL -- UTC, as every *_at
) STRICT;

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

CREATE INDEX conversations_by_user ON conversations (tenant_id, user_id, created_at) WHERE user_id <> '';

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
  completed_at TEXT NOT NULL, injection_sets_json TEXT NOT NULL DEFAULT '[]' /* each a set_id or [set_id, similarity]; see view injections */, -- last byte
  FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations (tenant_id, id)
) STRICT;

CREATE TRIGGER responses_go BEFORE DELETE ON responses WHEN OLD.outcome = 'ok'
BEGIN
  INSERT INTO sum_changes (tenant_id, conversation_id, day, is_holdout, n_responses, n_signals, satisfaction, n_thumbs_up, n_thumbs_down, n_follow_up, n_regenerate,
    injected_tokens, prompt_tokens, completion_tokens, cached_tokens)
  SELECT OLD.tenant_id, OLD.conversation_id, substr(OLD.created_at, 1, 10), OLD.is_holdout, -1,
    -n_signals, -satisfaction, -n_thumbs_up, -n_thumbs_down, -n_follow_up, -n_regenerate, -OLD.injected_tokens,
    -coalesce(OLD.prompt_tokens, 0), -coalesce(OLD.completion_tokens, 0), -coalesce(OLD.cached_tokens, 0)
  FROM (
    SELECT count(*) AS n_signals, max(-1.0, min(1.0, coalesce(sum(weight), 0.0))) AS satisfaction,
      coalesce(max(signal_type = 'thumbs_up'), 0) AS n_thumbs_up,
      coalesce(max(signal_type = 'thumbs_down'), 0) AS n_thumbs_down,
      coalesce(max(signal_type = 'follow_up'), 0) AS n_follow_up,
      coalesce(max(signal_type = 'regenerate'), 0) AS n_regenerate
    FROM response_feedback WHERE response_id = OLD.id);
END;

CREATE INDEX responses_by_time ON responses (tenant_id, created_at);

CREATE INDEX responses_by_conversation ON responses (tenant_id, conversation_id, seq);

CREATE INDEX responses_by_upstream_id ON responses (tenant_id, upstream_id, seq);

CREATE INDEX responses_by_history ON responses (tenant_id, history_hash, seq);

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

CREATE TRIGGER removed_signals_are_noted AFTER DELETE ON response_feedback
BEGIN
  INSERT INTO removed_signals (tenant_id, signal_seq, response_id, signal_type, weight)
  VALUES (OLD.tenant_id, OLD.seq, OLD.response_id, OLD.signal_type, OLD.weight);
END;

CREATE TRIGGER signals_go BEFORE DELETE ON response_feedback
BEGIN
  INSERT INTO sum_changes (tenant_id, conversation_id, day, is_holdout, n_responses, n_signals, satisfaction, n_thumbs_up, n_thumbs_down, n_follow_up, n_regenerate,
    injected_tokens, prompt_tokens, completion_tokens, cached_tokens)
  SELECT r.tenant_id, r.conversation_id, substr(r.created_at, 1, 10), r.is_holdout, 0,
    -(whole.n_signals - rest.n_signals), -(whole.satisfaction - rest.satisfaction), -(whole.n_thumbs_up - rest.n_thumbs_up), -(whole.n_thumbs_down - rest.n_thumbs_down), -(whole.n_follow_up - rest.n_follow_up), -(whole.n_regenerate - rest.n_regenerate),
    0, 0, 0, 0
  FROM responses AS r
  CROSS JOIN (
    SELECT count(*) AS n_signals, max(-1.0, min(1.0, coalesce(sum(weight), 0.0))) AS satisfaction,
      coalesce(max(signal_type = 'thumbs_up'), 0) AS n_thumbs_up,
      coalesce(max(signal_type = 'thumbs_down'), 0) AS n_thumbs_down,
      coalesce(max(signal_type = 'follow_up'), 0) AS n_follow_up,
      coalesce(max(signal_type = 'regenerate'), 0) AS n_regenerate
    FROM response_feedback WHERE response_id = OLD.response_id) AS whole
  CROSS JOIN (
    SELECT count(*) AS n_signals, max(-1.0, min(1.0, coalesce(sum(weight), 0.0))) AS satisfaction,
      coalesce(max(signal_type = 'thumbs_up'), 0) AS n_thumbs_up,
      coalesce(max(signal_type = 'thumbs_down'), 0) AS n_thumbs_down,
      coalesce(max(signal_type = 'follow_up'), 0) AS n_follow_up,
      coalesce(max(signal_type = 'regenerate'), 0) AS n_regenerate
    FROM response_feedback WHERE response_id = OLD.response_id AND seq <> OLD.seq) AS rest
  WHERE r.id = OLD.response_id AND r.outcome = 'ok';
END;

CREATE TRIGGER signals_add_up AFTER INSERT ON response_feedback WHEN NEW.source <> 'traffic'
BEGIN
  INSERT INTO sum_changes (tenant_id, conversation_id, day, is_holdout, n_responses, n_signals, satisfaction, n_thumbs_up, n_thumbs_down, n_follow_up, n_regenerate,
    injected_tokens, prompt_tokens, completion_tokens, cached_tokens)
  SELECT r.tenant_id, r.conversation_id, substr(r.created_at, 1, 10), r.is_holdout, 0,
    +(whole.n_signals - rest.n_signals), +(whole.satisfaction - rest.satisfaction), +(whole.n_thumbs_up - rest.n_thumbs_up), +(whole.n_thumbs_down - rest.n_thumbs_down), +(whole.n_follow_up - rest.n_follow_up), +(whole.n_regenerate - rest.n_regenerate),
    0, 0, 0, 0
  FROM responses AS r
  CROSS JOIN (
    SELECT count(*) AS n_signals, max(-1.0, min(1.0, coalesce(sum(weight), 0.0))) AS satisfaction,
      coalesce(max(signal_type = 'thumbs_up'), 0) AS n_thumbs_up,
      coalesce(max(signal_type = 'thumbs_down'), 0) AS n_thumbs_down,
      coalesce(max(signal_type = 'follow_up'), 0) AS n_follow_up,
      coalesce(max(signal_type = 'regenerate'), 0) AS n_regenerate
    FROM response_feedback WHERE response_id = NEW.response_id) AS whole
  CROSS JOIN (
    SELECT count(*) AS n_signals, max(-1.0, min(1.0, coalesce(sum(weight), 0.0))) AS satisfaction,
      coalesce(max(signal_type = 'thumbs_up'), 0) AS n_thumbs_up,
      coalesce(max(signal_type = 'thumbs_down'), 0) AS n_thumbs_down,
      coalesce(max(signal_type = 'follow_up'), 0) AS n_follow_up,
      coalesce(max(signal_type = 'regenerate'), 0) AS n_regenerate
    FROM response_feedback WHERE response_id = NEW.response_id AND seq <> NEW.seq) AS rest
  WHERE r.id = NEW.response_id AND r.outcome = 'ok';
END;

CREATE INDEX response_feedback_by_time ON response_feedback (tenant_id, created_at);

CREATE TABLE feedback_receipts (
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  id TEXT NOT NULL, -- every signal id ever acknowledged, so that a repeated one changes nothing
  answer_json TEXT NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

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
, is_frozen INTEGER -- a crash held back what is new; NULL: the run did not look
  CHECK (is_frozen IN (0, 1))) STRICT;

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
, answer_seq INTEGER -- of a step of a tool loop: the turn's answer
  DEFAULT NULL) STRICT;

CREATE INDEX response_characteristics_by_tenant ON response_characteristics (tenant_id, seq);

CREATE INDEX response_characteristics_by_answer ON response_characteristics (tenant_id, answer_seq)
WHERE answer_seq IS NOT NULL;

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
, cells_json TEXT NOT NULL -- [[question type, group, share]] where not share
  DEFAULT '[]', guardrails_json TEXT NOT NULL -- metric -> difference in its rate
  DEFAULT '{}', reworded_at -- since when a person's words stand in it; NULL: never edited
  TEXT, reworded_from -- the value that it asked for before, which is theirs now
  TEXT) STRICT;

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
, is_harm INTEGER NOT NULL DEFAULT 0 -- it was taken out because it did harm
  CHECK (is_harm IN (0, 1))) STRICT;

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
, delivered_at TEXT -- when the webhook took it
  DEFAULT NULL, attempts INTEGER NOT NULL -- tries to deliver it
  DEFAULT 0, next_try_at TEXT -- NULL: at once
  DEFAULT NULL) STRICT;

CREATE INDEX alerts_by_time ON alerts (tenant_id, created_at);

CREATE INDEX alerts_to_deliver ON alerts (created_at) WHERE delivered_at IS NULL;

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

CREATE INDEX ai_contexts_by_change ON ai_contexts (tenant_id, changed_generation);

CREATE INDEX ai_contexts_by_status ON ai_contexts (tenant_id, status, id);

CREATE INDEX ai_contexts_by_id ON ai_contexts (tenant_id, id);

CREATE INDEX ai_contexts_served ON ai_contexts (tenant_id) WHERE is_served = 1;

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

CREATE TRIGGER context_vectors_follow_their_texts AFTER UPDATE OF questions_json ON context_revisions
WHEN OLD.questions_json <> NEW.questions_json
BEGIN
  DELETE FROM context_vectors WHERE context_id = OLD.context_id AND revision = OLD.revision;
END;

CREATE INDEX context_revisions_pending ON context_revisions (context_id, revision) WHERE status = 'pending_approval';

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
  created_at TEXT NOT NULL, settled_at TEXT,
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
  mined_at TEXT NOT NULL, n_left INTEGER NOT NULL -- runs that left it to the next, for a model failed
  DEFAULT 0,
  PRIMARY KEY (tenant_id, conversation_id),
  FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE datasets (
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  type TEXT NOT NULL CHECK (type IN ('nlu')),
  created_at TEXT NOT NULL, size INTEGER NOT NULL -- examples; kept by triggers, as the next
  DEFAULT 0, n_needs_review INTEGER NOT NULL
  DEFAULT 0,
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
  reviewed_at TEXT, runner_up TEXT -- the second most likely intent, when the sender named it
  DEFAULT NULL, margin REAL NOT NULL -- confidence less the runner-up's; the least possible if not named
  DEFAULT 0.0, is_audit INTEGER NOT NULL -- 1: sure, and drawn by lot for a person to look at
  DEFAULT 0 CHECK (is_audit IN (0, 1)), former_intent TEXT -- as it was sent, once a person changed it
  DEFAULT NULL,
  UNIQUE (tenant_id, dataset_id, fingerprint),
  FOREIGN KEY (tenant_id, dataset_id) REFERENCES datasets (tenant_id, id)
) STRICT;

CREATE TRIGGER examples_count_in AFTER INSERT ON examples
BEGIN
  UPDATE datasets SET size = size + 1, n_needs_review = n_needs_review + NEW.needs_review
  WHERE tenant_id = NEW.tenant_id AND id = NEW.dataset_id;
  INSERT INTO dataset_facets (tenant_id, dataset_id, kind, value, n_examples)
  SELECT NEW.tenant_id, NEW.dataset_id, kind, value, 1 FROM (
    SELECT 'intent' AS kind, NEW.intent AS value
    UNION
    SELECT 'tag', value FROM json_each(NEW.tags_json)
  ) WHERE true
  ON CONFLICT (tenant_id, dataset_id, kind, value) DO UPDATE SET n_examples = n_examples + 1;
  INSERT INTO example_facets (facet_id, seq)
  SELECT f.id, NEW.seq FROM (
    SELECT 'intent' AS kind, NEW.intent AS value
    UNION
    SELECT 'tag', value FROM json_each(NEW.tags_json)
  ) AS l JOIN dataset_facets AS f
    ON f.tenant_id = NEW.tenant_id AND f.dataset_id = NEW.dataset_id AND f.kind = l.kind AND f.value = l.value;
  INSERT INTO examples_search (rowid, scope, input) VALUES (NEW.seq, 'd' || lower(hex(NEW.tenant_id || '/' || NEW.dataset_id)), NEW.input);
END;

CREATE TRIGGER examples_count_out AFTER DELETE ON examples
BEGIN
  UPDATE datasets SET size = size - 1, n_needs_review = n_needs_review - OLD.needs_review
  WHERE tenant_id = OLD.tenant_id AND id = OLD.dataset_id;
  UPDATE dataset_facets SET n_examples = n_examples - 1
  WHERE tenant_id = OLD.tenant_id AND dataset_id = OLD.dataset_id AND (kind, value) IN (
    SELECT 'intent' AS kind, OLD.intent AS value
    UNION
    SELECT 'tag', value FROM json_each(OLD.tags_json)
  );
  DELETE FROM example_facets
  WHERE seq = OLD.seq AND facet_id IN (
    SELECT f.id FROM (
    SELECT 'intent' AS kind, OLD.intent AS value
    UNION
    SELECT 'tag', value FROM json_each(OLD.tags_json)
    ) AS l JOIN dataset_facets AS f
      ON f.tenant_id = OLD.tenant_id AND f.dataset_id = OLD.dataset_id AND f.kind = l.kind AND f.value = l.value);
  DELETE FROM dataset_facets
  WHERE tenant_id = OLD.tenant_id AND dataset_id = OLD.dataset_id AND n_examples = 0
    AND (kind, value) IN (
    SELECT 'intent' AS kind, OLD.intent AS value
    UNION
    SELECT 'tag', value FROM json_each(OLD.tags_json)
  );
  INSERT INTO examples_search (examples_search, rowid, scope, input)
  VALUES ('delete', OLD.seq, 'd' || lower(hex(OLD.tenant_id || '/' || OLD.dataset_id)), OLD.input);
END;

CREATE TRIGGER examples_count_anew AFTER UPDATE OF intent, tags_json, needs_review ON examples
BEGIN
  UPDATE datasets SET n_needs_review = n_needs_review + NEW.needs_review - OLD.needs_review
  WHERE tenant_id = NEW.tenant_id AND id = NEW.dataset_id;
  UPDATE dataset_facets SET n_examples = n_examples - 1
  WHERE tenant_id = OLD.tenant_id AND dataset_id = OLD.dataset_id AND (kind, value) IN (
    SELECT 'intent' AS kind, OLD.intent AS value
    UNION
    SELECT 'tag', value FROM json_each(OLD.tags_json)
  );
  DELETE FROM example_facets
  WHERE seq = OLD.seq AND facet_id IN (
    SELECT f.id FROM (
    SELECT 'intent' AS kind, OLD.intent AS value
    UNION
    SELECT 'tag', value FROM json_each(OLD.tags_json)
    ) AS l JOIN dataset_facets AS f
      ON f.tenant_id = OLD.tenant_id AND f.dataset_id = OLD.dataset_id AND f.kind = l.kind AND f.value = l.value);
  DELETE FROM dataset_facets
  WHERE tenant_id = OLD.tenant_id AND dataset_id = OLD.dataset_id AND n_examples = 0
    AND (kind, value) IN (
    SELECT 'intent' AS kind, OLD.intent AS value
    UNION
    SELECT 'tag', value FROM json_each(OLD.tags_json)
  );
  INSERT INTO dataset_facets (tenant_id, dataset_id, kind, value, n_examples)
  SELECT NEW.tenant_id, NEW.dataset_id, kind, value, 1 FROM (
    SELECT 'intent' AS kind, NEW.intent AS value
    UNION
    SELECT 'tag', value FROM json_each(NEW.tags_json)
  ) WHERE true
  ON CONFLICT (tenant_id, dataset_id, kind, value) DO UPDATE SET n_examples = n_examples + 1;
  INSERT INTO example_facets (facet_id, seq)
  SELECT f.id, NEW.seq FROM (
    SELECT 'intent' AS kind, NEW.intent AS value
    UNION
    SELECT 'tag', value FROM json_each(NEW.tags_json)
  ) AS l JOIN dataset_facets AS f
    ON f.tenant_id = NEW.tenant_id AND f.dataset_id = NEW.dataset_id AND f.kind = l.kind AND f.value = l.value;
END;

CREATE INDEX examples_by_dataset ON examples (tenant_id, dataset_id, seq);

CREATE INDEX examples_to_review ON examples (tenant_id, dataset_id, margin, confidence, seq) WHERE needs_review = 1;

CREATE INDEX examples_audited ON examples (tenant_id, dataset_id, reviewed_at) WHERE is_audit = 1;

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

CREATE TABLE injection_set_items (
  set_id INTEGER NOT NULL, -- made of its items: what was in play together is stored once
  kind TEXT NOT NULL CHECK (kind IN ('pattern', 'context')),
  item_id TEXT NOT NULL, -- learned_patterns.id or ai_contexts.id
  dimension TEXT NOT NULL, -- '' for contexts
  propensity REAL NOT NULL CHECK (propensity BETWEEN 0 AND 1), -- P(treated), the draw of the holdout included
  share REAL NOT NULL CHECK (share BETWEEN 0 AND 1), -- P(treated) outside the holdout
  treated INTEGER NOT NULL CHECK (treated IN (0, 1)), -- 1: its text was in the request
  tokens INTEGER NOT NULL,
  PRIMARY KEY (set_id, kind, item_id)
) STRICT, WITHOUT ROWID;

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

CREATE TABLE learner_states (
  tenant_id TEXT NOT NULL PRIMARY KEY REFERENCES tenants (id),
  version INTEGER NOT NULL, -- of the form of state
  state BLOB NOT NULL, -- sums over the records up to cursor_json; can be made anew from the records
  cursor_json TEXT NOT NULL, -- up to where the sums hold
  group_field TEXT NOT NULL, -- the second stratum: segment, data_source or prompt_template; '' for none
  priorities_json TEXT NOT NULL, -- dimension -> expected lift per token, for the order of dimensions
  updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE removed_signals (
  seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  tenant_id TEXT NOT NULL REFERENCES tenants (id),
  signal_seq INTEGER NOT NULL, -- response_feedback.seq of a signal that was taken back or replaced
  response_id TEXT NOT NULL,
  signal_type TEXT NOT NULL,
  weight REAL NOT NULL
) STRICT;

CREATE INDEX removed_signals_by_response ON removed_signals (response_id);

CREATE TABLE pattern_blocks (
  pattern_id TEXT NOT NULL, -- learned_patterns.id
  treated INTEGER NOT NULL CHECK (treated IN (0, 1)), -- 1: its text was in the request
  block INTEGER NOT NULL, -- responses.seq / 128: where to look for its responses
  PRIMARY KEY (pattern_id, treated, block)
) STRICT, WITHOUT ROWID;

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

CREATE TABLE context_vectors ( -- of the model of [embedding], beside the local ones
  context_id TEXT NOT NULL,
  revision INTEGER NOT NULL,
  model TEXT NOT NULL,
  embedding BLOB NOT NULL, -- 256 float32, unit length
  PRIMARY KEY (context_id, revision, model),
  FOREIGN KEY (context_id, revision) REFERENCES context_revisions (context_id, revision) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

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

CREATE TABLE dataset_facets ( -- what a dataset's examples are labelled with, and how many of them
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  tenant_id TEXT NOT NULL,
  dataset_id TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('intent', 'tag')),
  value TEXT NOT NULL,
  n_examples INTEGER NOT NULL,
  UNIQUE (tenant_id, dataset_id, kind, value),
  FOREIGN KEY (tenant_id, dataset_id) REFERENCES datasets (tenant_id, id)
) STRICT;

CREATE TABLE example_facets (
  facet_id INTEGER NOT NULL, -- dataset_facets.id
  seq INTEGER NOT NULL, -- examples.seq
  PRIMARY KEY (facet_id, seq)
) STRICT, WITHOUT ROWID;

CREATE VIRTUAL TABLE examples_search USING fts5( -- words of inputs by examples.seq; scope: of which dataset
  scope, input, content = '', tokenize = "unicode61 remove_diacritics 2 categories 'L* N* Co M*'"
);

CREATE TABLE preference_pairs (
  seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  tenant_id TEXT NOT NULL,
  dataset_id TEXT NOT NULL,
  messages_json TEXT NOT NULL, -- what was asked, in OpenAI's message shape
  preferred TEXT NOT NULL, -- the better answer
  non_preferred TEXT NOT NULL,
  fingerprint TEXT NOT NULL, -- of all three: the same pair twice is one
  created_at TEXT NOT NULL,
  UNIQUE (tenant_id, dataset_id, fingerprint),
  FOREIGN KEY (tenant_id, dataset_id) REFERENCES datasets (tenant_id, id)
) STRICT;

CREATE TABLE collected_traffic ( -- one row: how far the proxy's records were taken into datasets
  id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  response_seq INTEGER NOT NULL -- responses.seq
) STRICT;

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

CREATE TABLE "api_keys" (
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

CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id);

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

CREATE VIEW v_active_patterns AS
SELECT tenant_id, id, type, rule, conditions_json, state, grade, confidence, score, lift, lift_low, lift_high,
  share, use_count, signal_count, user_count, tokens, last_used_at
FROM learned_patterns
WHERE state IN ('active', 'pinned', 'warmdown');

CREATE VIEW v_pending_contexts AS
SELECT c.tenant_id, c.id, r.revision, r.questions_json, r.answer, r.tags_json, c.provenance, c.n_users,
  r.source_chat_id, c.status, r.created_at
FROM ai_contexts AS c
JOIN context_revisions AS r ON r.context_id = c.id AND r.status = 'pending_approval';

CREATE VIEW injections AS -- one row per response and item in play; treated = 1: its text was in the request
SELECT r.id AS response_id, i.kind, i.item_id, i.dimension, i.propensity, i.share, i.treated,
  CASE s.type WHEN 'array' THEN json_extract(s.value, '$[1]') END AS similarity, -- cosine to the question
  i.tokens
FROM responses AS r -- in this order: a response, its sets, their items
CROSS JOIN json_each(r.injection_sets_json) AS s
CROSS JOIN injection_set_items AS i
  ON i.set_id = CASE s.type WHEN 'array' THEN json_extract(s.value, '$[0]') ELSE s.value END;

CREATE VIEW v_pattern_lift AS
SELECT p.tenant_id, p.id, p.type, p.rule, p.state, p.grade, p.confidence, p.lift, p.lift_low, p.lift_high, p.e_value,
  p.share, p.trial_since,
  coalesce(i.n_treated, 0) AS n_treated,
  coalesce(i.n_control, 0) AS n_control
FROM learned_patterns AS p
LEFT JOIN ( -- counted in one pass over the responses, set by set
  SELECT i.item_id, sum(u.n * i.treated) AS n_treated, sum(u.n * (1 - i.treated)) AS n_control
  FROM (
    SELECT CASE s.type WHEN 'array' THEN json_extract(s.value, '$[0]') ELSE s.value END AS set_id, count(*) AS n
    FROM responses AS r CROSS JOIN json_each(r.injection_sets_json) AS s GROUP BY 1
  ) AS u CROSS JOIN injection_set_items AS i ON i.set_id = u.set_id
  WHERE i.kind = 'pattern' GROUP BY i.item_id
) AS i ON i.item_id = p.id;

CREATE VIEW sum_changes AS -- never has a row: what is put in is added to both tables of sums
SELECT '' AS tenant_id, '' AS conversation_id, '' AS day, 0 AS is_holdout, 0 AS n_responses, 0 AS n_signals,
  0.0 AS satisfaction, 0 AS n_thumbs_up, 0 AS n_thumbs_down, 0 AS n_follow_up, 0 AS n_regenerate,
  0 AS injected_tokens, 0 AS prompt_tokens, 0 AS completion_tokens, 0 AS cached_tokens
WHERE false;

CREATE TRIGGER sum_changes_add_up INSTEAD OF INSERT ON sum_changes
BEGIN
  INSERT INTO daily_sums (tenant_id, day, is_holdout, n_responses, n_signals, satisfaction, n_thumbs_up, n_thumbs_down, n_follow_up, n_regenerate,
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
