"""Replies as assistants write them: 600 to 1,500 characters of prose, Markdown, tables, lists, code and SQL, mixed."""

from typing import Final

import numpy as np

SENTENCES: Final = (
    "The monthly plan renews on the day on which it was bought and can be ended at any time.",
    "Open **Settings → Account**, choose the account and press *Continue* at the bottom of the page.",
    "The connection was refused because the certificate of the server has expired.",
    "A refund reaches the card within five business days, sooner for small amounts.",
    "You will find the invoice in the mail that was sent when the order was placed.",
    "The older device keeps working, but it no longer gets new features after the spring.",
    "Both accounts can be joined as long as they belong to the same owner.",
    "The driver calls before the parcel arrives, and leaves it with a neighbour if asked to.",
    "Large files are split into parts, and every part is checked when it arrives.",
    "If the light stays red after a restart, the battery has to be replaced.",
    "The museum is closed on Mondays; tickets are sold at the entrance and on its site.",
    "Water the plant once a week and keep it away from the window in winter.",
    "The meeting was moved to the afternoon because the room was taken in the morning.",
    "Members of the team see the same board, and guests see what was shared with them.",
    "The lease ends with the year unless one of the two sides gives notice in time.",
    "Prices include tax and delivery inside the country, and nothing else is added later.",
    "Revenue grew by 12 percent in the second quarter, most of it in the north.",
    "For example, an order of 40 euros is shipped for free within two working days.",
    "Changes above 10% are listed in the report that is sent every Monday.",
    "The SmartBasket keeps what was chosen for thirty days, also on another device.",
    "Please note that the setting only takes effect after the next sign-in.",
    "In that case the `retry_after` header says how many seconds to wait.",
    "Python's `dict` keeps the order in which keys were put in, which has been guaranteed since version 3.7.",
    "According to the documentation, the limit is 100 requests per minute for each key.",
    "It's worth checking whether the index is used at all before adding another one.",
    "You don't need to restart anything: the service reads its configuration again every minute.",
    "The error usually means that two processes write to the same file at once.",
    "Churn fell from 4.1% to 3.6%, although the number of new customers hardly changed.",
    "Yes, that works, as long as both tables have a column of the same type to be compared.",
    "An alert is raised when more than 5 errors come within ten minutes, and its severity is high.",
    "The second option costs less at first, but it takes more of your time later.",
    "Your order #48213 left the warehouse this morning, and the carrier expects to deliver it on Thursday.",
    "She asked for the paper that was published in 2019, not for the one that came after it.",
    "The heat pump needs about 3 kWh on a mild day, and three times as much when it freezes.",
    "Sourdough needs time: let it rise in the fridge over night, and bake it in a hot pot.",
    "Your export has 48 columns, of which only 11 are ever read by the dashboards.",
    "The {name} plan includes {count} seats, and {name} can be added to it for €{count} a month.",
    "I have opened ticket {code} for {name}; it was last changed on 2026-03-{day}.",
    "{name} reports {count} failed deliveries since 09:{day}, most of them to {name}.",
)
SYLLABLES: Final = tuple(
    """ba bel bri cal cor da den dor el fen ga gri hal ir jo ka lan lor ma mer mi nar nel no or pa per qui ra ril ro sa
    sel so ta tel to ur va ver vi wen xa yor za zen""".split()  # noqa: SIM905 - readable
)
OPENINGS: Final = (
    "Good question.",
    "Here's how it works:",
    "In short: yes, with one exception.",
    "Sure, happy to help with that.",
    "There are a few things to look at here.",
    "It depends on which of the two plans you have.",
)
ENDS: Final = (
    "Would you like me to draft the message?",
    "Next steps: check the invoice and confirm.",
    "Let me know if anything is unclear.",
    "That is all.",
    "",
    "",
)
TABLE: Final = (
    "| Plan | Price | Seats | Support |\n|:-----|------:|------:|:--------|\n| Basic | €10 | 1 | Community |\n"
    "| Pro | €25 | 5 | two days |\n| Team | €60 | 20 | E-mail, one day |\n| Enterprise | on request | any | Phone |\n"
)
STEPS: Final = (
    "1. **Open** the page of your account.\n2. **Choose** *Billing* and then the plan that you want.\n"
    "3. **Confirm** with your password.\n4. **Check** the mail that you get a minute later.\n"
)
BULLETS: Final = (
    "- **Cost**: the first is cheaper up to 2,000 requests a day.\n- **Speed**: both answer within 200 ms.\n"
    "- **Limits**: the second has none, but it asks for a contract.\n- **Data**: stays in the region that you choose.\n"
)
SQL: Final = (
    "```sql\nWITH recent AS (\n  SELECT customer_id, region, total\n  FROM orders\n"
    "  WHERE created_at >= date('now', '-30 days')\n)\nSELECT r.region, count(*) AS n, sum(r.total) AS revenue\n"
    "FROM recent AS r JOIN customers AS c ON c.id = r.customer_id\nGROUP BY r.region\nORDER BY n DESC\nLIMIT 10;\n```\n"
)
PYTHON: Final = (
    "```python\nimport csv\nfrom collections import Counter\n\n\ndef count_regions(path: str) -> Counter[str]:\n"
    '    """Return how many rows each region has."""\n    with open(path, newline="") as file:\n'
    '        return Counter(row["region"] for row in csv.reader(file))\n\n\nprint(count_regions("orders.csv"))\n```\n'
)
SHELL: Final = "```bash\nsystemctl status tutelage\njournalctl -u tutelage --since '1 hour ago' | grep -i error\n```\n"
CHART: Final = "Here is a bar chart of the revenue by region:\n\n```mermaid\nxychart-beta\n  bar [52, 41, 18]\n```\n"
SECTION: Final = "## What to look at\n\n"
MORE: Final = "\n### Details\n\n"
BODIES: Final = (
    ("prose", ""),
    ("prose", ""),
    ("list", STEPS),
    ("list", BULLETS),
    ("table", TABLE),
    ("code", SQL),
    ("code", PYTHON),
    ("code", SHELL),
    ("code", CHART),
)
MIN_CHARS: Final = 600
MAX_CHARS: Final = 1_500
PER_PARAGRAPH: Final = 3  # sentences


def reply(rng: np.random.Generator) -> tuple[str, str]:
    """Return a reply's format as it is recorded and its text."""
    form, body = BODIES[int(rng.integers(len(BODIES)))]
    opening, end = (str(one[int(rng.integers(len(one)))]) for one in (OPENINGS, ENDS))
    wanted = int(rng.integers(MIN_CHARS, MAX_CHARS)) - len(opening) - len(body) - len(end)
    before, after = _paragraphs(rng, wanted)
    is_sectioned = bool(rng.random() < 0.4)  # as often as assistants use headings in longer replies
    heading, more = (SECTION, MORE) if is_sectioned else ("", "\n")
    text = f"{opening}\n\n{heading}{before}\n\n{body}{more}{after}\n\n{end}".strip()
    return form, _named(rng, text) if "{name}" in text or "{code}" in text else text


def _named(rng: np.random.Generator, text: str) -> str:
    """Return *text* with names and figures that hardly ever come twice, as in real replies."""
    while "{name}" in text:
        first, second, third = (SYLLABLES[index] for index in rng.integers(len(SYLLABLES), size=3).tolist())
        text = text.replace("{name}", f"{first}{second}{third}".capitalize(), 1)
    count, code, day = rng.integers((2, 10_000, 10), (5_000, 1_000_000, 29)).tolist()
    return text.replace("{count}", str(count)).replace("{code}", f"T-{code}").replace("{day}", str(day))


def _paragraphs(rng: np.random.Generator, size: int) -> tuple[str, str]:
    """Return about *size* characters of sentences, as what stands before and after the body."""
    chosen: list[str] = []
    for index in rng.permutation(len(SENTENCES)).tolist():
        if size <= 0:
            break
        chosen.append(SENTENCES[index])
        size -= len(SENTENCES[index])
    parts = [" ".join(chosen[at : at + PER_PARAGRAPH]) for at in range(0, len(chosen), PER_PARAGRAPH)]
    half = (len(parts) + 1) // 2
    return "\n\n".join(parts[:half]), "\n\n".join(parts[half:])
