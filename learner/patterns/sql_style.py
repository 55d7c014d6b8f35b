"""Which features of SQL the queries use that a reply shows, or that it had a tool run."""

import re
from typing import Final

from learner.patterns.reply_text import Read, has_any

_NO_SQL: Final = re.compile(r"--[^\n]*|/\*.{0,2000}?\*/|'(?:[^'\n]|'')*'", re.DOTALL)
_NO_SQL_HINTS: Final = ("--", "/*", "'")
_QUERY: Final = re.compile(
    r"(?:^|[\"'`(;])\s{0,40}(?:select\s+(?:distinct\s+|top\s+\d+\s+)?[\w*\"`\[(.])"
    r"[^;]{0,4000}?\bfrom\s+[\w\"`\[(]",
    re.MULTILINE,
)
_CTE: Final = re.compile(
    r"\bwith\s+(?:recursive\s+)?[\w\"`]+\s*(?:\([^)]{0,400}\)\s*)?as\s*(?:not\s+)?(?:materialized\s*)?\("
)
_SUBQUERY: Final = re.compile(r"\(\s*select\b")
_CTE_BODY: Final = re.compile(r"\bas\s*(?:not\s+)?(?:materialized\s*)?\(\s*select\b")
_QUERY_FEATURES: Final = (  # with what none of their queries is without
    ("join", ("join",), re.compile(r"join(?<!\wjoin)\s+[\w\"`\[(]")),
    ("aggregation", ("group", "("), re.compile(r"\bgroup\s+by\b|\b(?:count|sum|avg|min|max)\s*\(")),
    ("window", ("over",), re.compile(r"over(?<!\wover)(?:\s*\(|\s+\w+\s*[,\n)])")),
    ("limit", ("limit", "top", "fetch"), re.compile(r"\blimit\s+\S|\bselect\s+top\s*\(?\d|\bfetch\s+(?:first|next)\b")),
    ("select_all", ("*",), re.compile(r"select(?<!\wselect)\s+(?:distinct\s+)?(?:\w+\.)?\*")),
)
_QUERY_CHARS: Final = 20_000  # of code are read


def query(read: Read) -> tuple[str, ...] | None:
    """Return the features of the reply's queries, None without a query."""
    if not read.queries and (not read.blocks or "select" not in read.lower):
        return None
    blocks = [("sql", text) for text in read.queries] + [
        (language, body)
        for language, body in read.blocks
        if "select" in body
        and "from" in body
        and (language in _PLAIN_LANGUAGES or "sql" in language or '"' in body or "'" in body)
    ]
    code = "\n;\n".join(body for _, body in blocks)[:_QUERY_CHARS]
    if not code or not _QUERY.search(code):
        return None
    if has_any(code, _NO_SQL_HINTS) and any("sql" in language or not language for language, _ in blocks):
        code = _NO_SQL.sub(" ", code)
    found = []
    if "with" in code and _CTE.search(code):
        found.append("cte")
    if "(" in code and len(_SUBQUERY.findall(code)) > len(_CTE_BODY.findall(code)):
        found.append("subquery")
    features = (name for name, hints, pattern in _QUERY_FEATURES if has_any(code, hints) and pattern.search(code))
    return (*found, *features)


_PLAIN_LANGUAGES: Final = frozenset(("", "text", "txt", "postgres", "postgresql", "bigquery", "snowflake", "duckdb"))
