"""Migration 16, in SQL: counts of training data that are kept, not counted, and what examples are found by.

Triggers, so that whoever writes or deletes an example (an ingest, a review, somebody forgotten) leaves them right.
"""

from typing import Final

# The one word that ties a row of the search index to its dataset: letters and digits alone, for the tokenizer.
_SCOPE: Final = "'d' || lower(hex({row}.tenant_id || '/' || {row}.dataset_id))"

_LABELS: Final = """
    SELECT 'intent' AS kind, {row}.intent AS value
    UNION
    SELECT 'tag', value FROM json_each({row}.tags_json)"""

_COUNT_IN: Final = """
  INSERT INTO dataset_facets (tenant_id, dataset_id, kind, value, n_examples)
  SELECT NEW.tenant_id, NEW.dataset_id, kind, value, 1 FROM ({new_labels}
  ) WHERE true
  ON CONFLICT (tenant_id, dataset_id, kind, value) DO UPDATE SET n_examples = n_examples + 1;
  INSERT INTO example_facets (facet_id, seq)
  SELECT f.id, NEW.seq FROM ({new_labels}
  ) AS l JOIN dataset_facets AS f
    ON f.tenant_id = NEW.tenant_id AND f.dataset_id = NEW.dataset_id AND f.kind = l.kind AND f.value = l.value;
"""

_COUNT_OUT: Final = """
  UPDATE dataset_facets SET n_examples = n_examples - 1
  WHERE tenant_id = OLD.tenant_id AND dataset_id = OLD.dataset_id AND (kind, value) IN ({old_labels}
  );
  DELETE FROM example_facets
  WHERE seq = OLD.seq AND facet_id IN (
    SELECT f.id FROM ({old_labels}
    ) AS l JOIN dataset_facets AS f
      ON f.tenant_id = OLD.tenant_id AND f.dataset_id = OLD.dataset_id AND f.kind = l.kind AND f.value = l.value);
  DELETE FROM dataset_facets
  WHERE tenant_id = OLD.tenant_id AND dataset_id = OLD.dataset_id AND n_examples = 0
    AND (kind, value) IN ({old_labels}
  );
"""

_IN: Final = _COUNT_IN.format(new_labels=_LABELS.format(row="NEW")).rstrip()
_OUT: Final = _COUNT_OUT.format(old_labels=_LABELS.format(row="OLD")).rstrip()

TRAINING_DATA: Final = f"""
ALTER TABLE datasets ADD COLUMN size INTEGER NOT NULL -- examples; kept by triggers, as the next
  DEFAULT 0;

ALTER TABLE datasets ADD COLUMN n_needs_review INTEGER NOT NULL
  DEFAULT 0;

ALTER TABLE examples ADD COLUMN runner_up TEXT -- the second most likely intent, when the sender named it
  DEFAULT NULL;

ALTER TABLE examples ADD COLUMN margin REAL NOT NULL -- confidence less the runner-up's; the least possible if not named
  DEFAULT 0.0;

ALTER TABLE examples ADD COLUMN is_audit INTEGER NOT NULL -- 1: sure, and drawn by lot for a person to look at
  DEFAULT 0 CHECK (is_audit IN (0, 1));

ALTER TABLE examples ADD COLUMN former_intent TEXT -- as it was sent, once a person changed it
  DEFAULT NULL;

UPDATE examples SET margin = max(0.0, 2 * confidence - 1);

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

INSERT INTO collected_traffic (id, response_seq) SELECT 1, coalesce(max(seq), 0) FROM responses;

INSERT INTO dataset_facets (tenant_id, dataset_id, kind, value, n_examples)
SELECT tenant_id, dataset_id, 'intent', intent, count(*) FROM examples GROUP BY tenant_id, dataset_id, intent
UNION ALL
SELECT e.tenant_id, e.dataset_id, 'tag', t.value, count(DISTINCT e.seq)
FROM examples AS e, json_each(e.tags_json) AS t GROUP BY e.tenant_id, e.dataset_id, t.value;

INSERT INTO example_facets (facet_id, seq)
SELECT f.id, e.seq FROM examples AS e JOIN dataset_facets AS f
  ON f.tenant_id = e.tenant_id AND f.dataset_id = e.dataset_id AND f.kind = 'intent' AND f.value = e.intent
UNION
SELECT f.id, e.seq FROM examples AS e, json_each(e.tags_json) AS t JOIN dataset_facets AS f
  ON f.tenant_id = e.tenant_id AND f.dataset_id = e.dataset_id AND f.kind = 'tag' AND f.value = t.value;

INSERT INTO examples_search (rowid, scope, input) SELECT e.seq, {_SCOPE.format(row="e")}, e.input FROM examples AS e;

UPDATE datasets SET
  size = (SELECT count(*) FROM examples AS e WHERE e.tenant_id = datasets.tenant_id AND e.dataset_id = datasets.id),
  n_needs_review = (SELECT count(*) FROM examples AS e
    WHERE e.tenant_id = datasets.tenant_id AND e.dataset_id = datasets.id AND e.needs_review = 1);

CREATE TRIGGER examples_count_in AFTER INSERT ON examples
BEGIN
  UPDATE datasets SET size = size + 1, n_needs_review = n_needs_review + NEW.needs_review
  WHERE tenant_id = NEW.tenant_id AND id = NEW.dataset_id;{_IN}
  INSERT INTO examples_search (rowid, scope, input) VALUES (NEW.seq, {_SCOPE.format(row="NEW")}, NEW.input);
END;

CREATE TRIGGER examples_count_out AFTER DELETE ON examples
BEGIN
  UPDATE datasets SET size = size - 1, n_needs_review = n_needs_review - OLD.needs_review
  WHERE tenant_id = OLD.tenant_id AND id = OLD.dataset_id;{_OUT}
  INSERT INTO examples_search (examples_search, rowid, scope, input)
  VALUES ('delete', OLD.seq, {_SCOPE.format(row="OLD")}, OLD.input);
END;

CREATE TRIGGER examples_count_anew AFTER UPDATE OF intent, tags_json, needs_review ON examples
BEGIN
  UPDATE datasets SET n_needs_review = n_needs_review + NEW.needs_review - OLD.needs_review
  WHERE tenant_id = NEW.tenant_id AND id = NEW.dataset_id;{_OUT}{_IN}
END;

DROP INDEX examples_to_review;

CREATE INDEX examples_to_review ON examples (tenant_id, dataset_id, margin, confidence, seq) WHERE needs_review = 1;

CREATE INDEX examples_audited ON examples (tenant_id, dataset_id, reviewed_at) WHERE is_audit = 1;
"""
