"""Migration 7: the rows of ``injections`` become sets that responses refer to, and a view that shows them as before.

Stands on its own, as a migration must: it uses nothing that may change after its release.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

INJECTION_SETS: Final = """
DROP VIEW v_pattern_lift;

DROP INDEX responses_by_user;

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

ALTER TABLE responses ADD COLUMN
  injection_sets_json TEXT NOT NULL DEFAULT '[]' /* each a set_id or [set_id, similarity]; see view injections */;
"""

INJECTION_VIEWS: Final = """
DROP TABLE injections;

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
"""

CHUNK: Final = 50_000  # rows in memory
_RESPONSE, _KIND, _ITEM, _DIMENSION = range(4)
_SIMILARITY: Final = 8


def move_injections(connection: sqlite3.Connection) -> None:
    """Turn the rows of the table ``injections`` into sets; the table is as it was, for the caller to drop.

    Rows whose response is gone (deleted with foreign keys off) go too, as they would have with it.
    """
    numbers: dict[tuple[Any, ...], int] = {}
    for response, rows in _by_response(connection):
        references = [_reference(connection, numbers, together) for together in _sets(rows)]
        connection.execute(
            "UPDATE responses SET injection_sets_json = ? WHERE id = ?", (json.dumps(references), response)
        )


def _by_response(connection: sqlite3.Connection) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    after = ""
    while True:
        cursor = connection.execute(
            """
            SELECT i.response_id, i.kind, i.item_id, i.dimension, i.propensity, i.share, i.treated,
              i.tokens, i.similarity
            FROM injections AS i CROSS JOIN responses AS r ON r.id = i.response_id
            WHERE i.response_id > ? ORDER BY i.response_id, i.kind, i.item_id LIMIT ?
            """,
            (after, CHUNK),
        )
        rows = [tuple(row) for row in cursor]
        found = [(response, list(group)) for response, group in groupby(rows, key=itemgetter(_RESPONSE))]
        if len(rows) == CHUNK and len(found) > 1:
            found.pop()  # the last one may go on in the next chunk
        if not found:
            return
        yield from found
        after = found[-1][0]


def _sets(rows: Sequence[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Yield what was in play together: the patterns of a dimension, or a single item."""
    for (dimension, has_similarity), group in groupby(sorted(rows, key=_together), key=_together):
        together = list(group)
        if dimension and not has_similarity:
            yield together
        else:
            yield from ([row] for row in together)


def _together(row: tuple[Any, ...]) -> tuple[str, bool]:
    return row[_DIMENSION], row[_SIMILARITY] is not None


def _reference(
    connection: sqlite3.Connection, numbers: dict[tuple[Any, ...], int], together: list[tuple[Any, ...]]
) -> int | list[Any]:
    key = tuple(row[_KIND:_SIMILARITY] for row in together)
    number = numbers.get(key)
    if number is None:
        number = numbers[key] = _insert_set(connection, together)
    similarity = together[0][_SIMILARITY]
    return number if similarity is None else [number, similarity]


def _insert_set(connection: sqlite3.Connection, together: list[tuple[Any, ...]]) -> int:
    items = [row[_KIND:_SIMILARITY] for row in together]
    digest = hashlib.blake2b(json.dumps(items).encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big") >> 1
    connection.executemany(
        "INSERT OR IGNORE INTO injection_set_items VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(number, *item) for item in items],
    )
    return number
