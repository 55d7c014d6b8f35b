"""What the packages may know of each other, and where SQL and state may stand."""

import ast
import graphlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from store.config import default_config_path

ROOT = Path(__file__).parents[1]
PACKAGES = ("store", "proxy", "learner", "tutelage")
FORBIDDEN = {
    "store": {"proxy", "learner", "tutelage"},
    "proxy": {"learner", "tutelage"},
    "learner": {"proxy", "tutelage"},
    "tutelage": set[str](),
}
SQL = re.compile(
    r"\b(SELECT\s.+\sFROM\s|INSERT\s+INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|CREATE\s+(TABLE|VIEW|INDEX)\s)",
    re.DOTALL,
)
CONTAINERS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CONTAINER_CALLS = {"list", "dict", "set", "deque", "defaultdict", "OrderedDict", "Counter", "WeakValueDictionary"}
MUTATORS = {
    "append",
    "extend",
    "insert",
    "add",
    "update",
    "setdefault",
    "pop",
    "popitem",
    "popleft",
    "appendleft",
    "remove",
    "discard",
    "clear",
}


def module_names() -> list[str]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


MODULES = module_names()


@cache
def tree(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(source.read_text(encoding="utf-8"), str(source))


def functions(module: str) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def imported_names(node: ast.AST) -> list[str]:
    """Return the dotted names that an import statement may load; nothing for another node."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), names=names, level=0):
            return [module, *(f"{module}.{alias.name}" for alias in names)]
        case _:
            return []


def imports(root: ast.AST) -> set[str]:
    return {name for node in ast.walk(root) for name in imported_names(node)}


def imports_for_types(module: str) -> set[str]:
    """Return what is imported under ``if TYPE_CHECKING``: never at run time."""
    blocks = [node for node in ast.walk(tree(module)) if isinstance(node, ast.If)]
    return {name for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING" for name in imports(node)}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    crossings = [
        (module, name)
        for module in MODULES
        for name in imports(tree(module))
        if module.split(".")[0] == package and name.split(".")[0] in FORBIDDEN[package]
    ]

    assert crossings == []


def test_nothing_shipped_imports_tests_or_benchmarks() -> None:
    assert [m for m in MODULES if {name.split(".")[0] for name in imports(tree(m))} & {"tests", "bench"}] == []


def test_imports_are_absolute() -> None:
    relative = [
        (module, node.lineno)
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and node.level
    ]

    assert relative == []


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph = {m: (imports(tree(m)) - imports_for_types(m)) & set(MODULES) - {m} for m in MODULES}

    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the circle

    assert set(order) == set(MODULES)


def test_only_litellm_and_usearch_are_imported_inside_a_function() -> None:
    late = {(module, name) for module in MODULES for node in functions(module) for name in imports(node)}

    assert {(module, name) for module, name in late if name.split(".")[0] not in {"litellm", "usearch"}} == set()


def test_usearch_is_imported_by_one_module() -> None:
    users = [module for module in MODULES if "usearch" in {name.split(".")[0] for name in imports(tree(module))}]

    assert users == ["proxy.context_graph"]


def test_litellm_is_imported_by_one_module_of_each_side() -> None:
    users = [module for module in MODULES if "litellm" in {name.split(".")[0] for name in imports(tree(module))}]

    assert set(users) <= {"proxy.litellm_upstream", "learner.models", "learner.litellm_model"}


def test_sql_stands_in_the_store_alone() -> None:
    statements = [
        (module, node.lineno)
        for module in MODULES
        for node in ast.walk(tree(module))
        if not module.startswith("store") and isinstance(node, ast.Constant) and SQL.search(str(node.value))
    ]

    assert statements == []


def test_no_name_is_rebound_with_global() -> None:
    assert [module for module in MODULES if any(isinstance(node, ast.Global) for node in ast.walk(tree(module)))] == []


def is_container(value: ast.expr | None) -> bool:
    match value:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name in CONTAINER_CALLS
        case _:
            return isinstance(value, CONTAINERS)


def module_containers(module: str) -> set[str]:
    body = tree(module).body
    plain = [(target, node.value) for node in body if isinstance(node, ast.Assign) for target in node.targets]
    annotated = [(node.target, node.value) for node in body if isinstance(node, ast.AnnAssign)]
    return {target.id for target, value in (*plain, *annotated) if isinstance(target, ast.Name) and is_container(value)}


def mutated_name(node: ast.AST) -> str | None:
    """Return the name of the variable whose content the statement changes in place."""
    match node:
        case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
            return name
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if method in MUTATORS:
            return name
        case _:
            return None


def test_no_function_changes_a_module_level_container() -> None:
    changes = [
        (module, name)
        for module in MODULES
        for function in functions(module)
        for name in {mutated_name(node) for node in ast.walk(function)} & module_containers(module)
    ]

    assert changes == []


def is_broad(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or ast.unparse(handler.type) in {"Exception", "BaseException"}


def tells_raises_or_hands_on(handler: ast.ExceptHandler) -> bool:
    return any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Attribute) and node.attr in {"exception", "warning"})
        or (isinstance(node, ast.Name) and node.id == handler.name)
        for statement in handler.body
        for node in ast.walk(statement)
    )


def test_whoever_catches_everything_logs_it_raises_it_or_hands_it_on() -> None:
    silent = [
        (module, node.lineno)
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ExceptHandler) and is_broad(node) and not tells_raises_or_hands_on(node)
    ]

    assert silent == []


def test_the_store_reads_no_environment_variable() -> None:
    readers = {
        module
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} and module.startswith("store")
    }

    assert readers == set()


def setting_names(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the name of each setting in *table*; the weights are one: their names are the signals'."""
    for name, value in table.items():
        match value:
            case Mapping() if name != "weights":
                yield from setting_names(value)
            case [Mapping() as first, *_]:
                yield from setting_names(first)
            case _:
                yield name


def test_every_setting_is_read_somewhere() -> None:
    settings = tomllib.loads(default_config_path().read_text(encoding="utf-8"))
    read = {
        node.attr
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }

    assert set(setting_names(settings)) - read == set()


def test_the_architecture_page_names_every_module_of_the_packages_and_no_other() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    sections = {section.split("/")[0]: section for section in page.split("\n## ")[1:]}
    named = {name: set(re.findall(r"`(\w+)\.py`", sections[name])) for name in PACKAGES}
    flat = {name: {path.stem for path in (ROOT / name).glob("[!_]*.py")} for name in PACKAGES}
    deep = {name: {path.stem for path in (ROOT / name).rglob("[!_]*.py")} for name in PACKAGES}

    missing = {name: flat[name] - named[name] for name in ("store", "proxy", "learner")}
    assert missing == {"store": set(), "proxy": set(), "learner": set()}
    assert {name: named[name] - deep[name] for name in PACKAGES} == {name: set() for name in PACKAGES}
