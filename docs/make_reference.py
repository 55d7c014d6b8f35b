"""Writes docs/api.md from docs/openapi.yaml: ``python docs/make_reference.py``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).parent
SOURCE: Final = HERE / "openapi.yaml"
TARGET: Final = HERE / "api.md"
METHODS: Final = ("get", "post", "patch", "delete")


def reference(document: Mapping[str, Any]) -> str:
    """Return the reference as Markdown, by tag and then in the document's order."""
    lines = ["# API reference", "", "Made from [openapi.yaml](openapi.yaml); do not edit.", ""]
    lines += [document["info"]["description"].strip(), ""]
    for tag in document["tags"]:
        lines += [f"## {tag['name']}", ""]
        for path, item in document["paths"].items():
            for method in METHODS:
                operation = item.get(method)
                if operation is not None and operation["tags"] == [tag["name"]]:
                    lines += _operation(document, path, method, operation)
    return "\n".join(lines).rstrip() + "\n"


def _operation(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`"
    yield ""
    yield " ".join(filter(None, [operation["summary"] + ".", operation.get("description", "").strip()]))
    yield ""
    parameters = [_resolved(document, one) for one in operation.get("parameters", ())]
    if parameters:
        yield "| parameter | in | |"
        yield "|---|---|---|"
        for one in parameters:
            words = " ".join(filter(None, [_shape(document, one["schema"]), one.get("description", "")]))
            yield f"| `{one['name']}` | {one['in']} | {words} |"
        yield ""
    body = operation.get("requestBody")
    if body is not None:
        yield f"Body: {_shape(document, body['content']['application/json']['schema'])}"
        yield ""
    for status, answer in operation["responses"].items():
        found = _resolved(document, answer)
        schema = found.get("content", {}).get("application/json", {}).get("schema")
        shape = f" {_shape(document, schema)}" if schema and status < "300" else ""
        yield f"- {status}: {found['description']}{shape}"
    yield ""


def _resolved(document: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in value:
        return value
    found: Any = document
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    resolved: Mapping[str, Any] = found
    return resolved


def _shape(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return a schema in one line: fields that must be there without a question mark."""
    schema = _resolved(document, schema)
    if "anyOf" in schema:
        options = [one for one in schema["anyOf"] if one != {"type": "null"}]
        return " or ".join(_shape(document, one) for one in options)
    if "enum" in schema:
        return " or ".join(f"`{word}`" for word in schema["enum"])
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            required = schema.get("required", ())
            names = ", ".join(f"`{name}`" + ("" if name in required else "?") for name in fields)
            return f"{{{names}}}" if names else "object"
        case "array":
            return f"list of {_shape(document, schema['items'])}"
        case str(kind):
            return kind
        case _:
            return "any"


def main() -> None:
    document = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    TARGET.write_text(reference(document), encoding="utf-8")


if __name__ == "__main__":
    main()
