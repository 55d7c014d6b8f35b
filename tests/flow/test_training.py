"""Training data through the whole product: from a chat and a channel to a person's correction and a file."""

from tests.flow.product import Product, eventually
from tests.upstream import Upstream

BULK = "/api/training/conversations/bulk"


def test_the_proxys_questions_and_a_channels_messages_are_reviewed_in_one_place(
    product: Product, upstream: Upstream
) -> None:
    product.start("proxy")
    product.start("learner")
    asked = product.chat("How do I reset my password?", headers={"x-tutelage-question-type": "how-to"})
    product.chat("This stays between us", headers={"x-tutelage-learn": "off"})
    product.chat("how do I reset  my password?")
    item = {"messageText": "wo ist mein paket", "intent": "greet", "confidence": 0.3, "phoneNumber": "+4930123456"}
    sent = product.client.post(product.learner_url + BULK, json={"conversations": [item]})
    assert sent.json()["flaggedForReview"] == 1
    dataset = f"{product.learner_url}/api/training/datasets/ds-auto-training"

    def examples() -> list[dict[str, object]]:
        found: list[dict[str, object]] = product.client.get(f"{dataset}/examples").json()["data"]
        return found if len(found) >= 2 else []

    found = {str(one["input"]): one for one in eventually(examples, 30)}
    assert set(found) == {"How do I reset my password?", "wo ist mein paket"}
    taken = found["How do I reset my password?"]
    assert (taken["intent"], taken["confidence"]) == ("how-to", 1.0)
    assert taken["conversation_id"] == product.response_row(asked)["conversation_id"]
    (waiting,) = product.client.get(f"{dataset}/review").json()["data"]
    url = f"{product.learner_url}/api/training/examples/{waiting['id']}"
    corrected = product.client.patch(url, json={"intent": "track_order"}).json()
    assert (corrected["intent"], corrected["former_intent"]) == ("track_order", "greet")
    rasa = product.client.get(f"{dataset}/export?format=rasa").text
    assert '- intent: "track_order"\n  examples: |\n    - wo ist mein paket\n' in rasa
    assert not any("between us" in str(one) for one in examples())
    assert not product.rows("SELECT 1 FROM examples WHERE input LIKE '%between us%'")
