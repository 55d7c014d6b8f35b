"""What all flow tests share: a scripted upstream and installations of the product in folders of their own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.flow.product import Product
from tests.upstream import Upstream

NewProduct = Callable[..., Product]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def new_product(tmp_path: Path, upstream: Upstream) -> Iterator[NewProduct]:
    """Return a function that makes an installation before the test's upstream; all are stopped at the end."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Product:
            return stack.enter_context(Product(tmp_path / "product", upstream.base_url, **settings))

        yield make


@pytest.fixture
def product(new_product: NewProduct) -> Product:
    """An installation with the shortest settings; nothing runs yet."""
    return new_product()


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Product]:
    """A running proxy that the tests of a module share: each uses ids of its own."""
    with Product(tmp_path_factory.mktemp("serving"), shared_upstream.base_url) as product:
        product.start("proxy")
        yield product
