"""``tutelage why``: an engineer finds out why a reply was the way it was."""

from typing import Any

from tests.flow.compared import KNOWLEDGE, PHRASINGS, RULE
from tests.flow.conftest import NewProduct
from tests.flow.product import Product, eventually


def teach(product: Product) -> None:
    product.start("up")
    rule = {"type": "response_format", "rule": RULE, "conditions": {}, "state": "pinned"}
    product.client.post(f"{product.learner_url}/api/patterns", json=rule).raise_for_status()
    product.command(
        "contexts", "add", *(f"--question={one}" for one in PHRASINGS), f"--answer={KNOWLEDGE}", "--approve"
    )


def answered(product: Product, question: str, **options: Any) -> str:
    response = product.chat(question, **options)
    product.response_row(response)
    return str(response.headers["x-tutelage-response-id"])


def test_what_was_put_in_is_named_with_how_it_was_drawn_and_what_came_back(new_product: NewProduct) -> None:
    product = new_product(settings={"patterns": {"holdout": 0.0}})
    teach(product)
    eventually(lambda: product.response_row(product.chat(PHRASINGS[0]))["injected_tokens"] > 100)
    response = product.chat(PHRASINGS[0], user="u-7")
    product.response_row(response)
    response_id = response.headers["x-tutelage-response-id"]
    product.feedback({"response_id": response_id, "signal": "thumbs_down", "user": "u-7", "comment": "Too long"})
    told = product.command("why", response_id).stdout
    by_body_id = product.command_json("why", response.json()["id"])
    for part in (RULE, PHRASINGS[0], "put in at the end of the system text", "after the text of the last user message"):
        assert part in told
    assert "the lot puts it into 100 %" in told
    assert "thumbs_down (-1.0) of u-7" in told
    assert "Too long" in told
    assert by_body_id["exchange"]["response_id"] == response_id


def test_a_holdout_conversation_says_that_it_is_one(new_product: NewProduct) -> None:
    product = new_product(settings={"patterns": {"holdout": 1.0}})
    teach(product)
    eventually(lambda: product.response_row(product.chat(PHRASINGS[0]))["generation"] > 1)
    told = product.command("why", answered(product, "What is the weather like on Mars today?")).stdout
    assert "in the holdout" in told
    assert "left out: the holdout gets no patterns" in told
    assert "no approved entry is similar enough" in told


def test_an_unknown_response_and_another_tenants_are_told_apart_from_nothing(product: Product) -> None:
    product.start("proxy")
    response_id = answered(product, "Hello?")
    product.command("keys", "create", "--tenant", "acme")
    for arguments in (("why", "resp_none"), ("why", response_id, "--tenant", "acme")):
        refused = product.command(*arguments, check=False)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "no response" in refused.stderr
