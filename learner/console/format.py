"""How values read on a page."""


def moment(text: str | None) -> str:
    """Return a stored moment for reading: to the minute, UTC.

    >>> moment("2026-11-21T12:00:00.123Z"), moment(None)
    ('2026-11-21 12:00', '—')
    """
    return "—" if text is None else text[:16].replace("T", " ")


def signed(value: float | None, digits: int = 2) -> str:
    """Return a difference with its sign; what rounds to nothing has none.

    >>> signed(0.1234), signed(-0.001), signed(None)
    ('+0.12', '0.00', '—')
    """
    if value is None:
        return "—"
    return f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"


def share(value: float | None) -> str:
    """Return a share as per cent.

    >>> share(0.255), share(None)
    ('26 %', '—')
    """
    return "—" if value is None else f"{value * 100:.0f} %"


def number(value: int) -> str:
    """Return a count with its thousands apart.

    >>> number(1234567)
    '1,234,567'
    """
    return f"{value:,}"


def usd(value: float) -> str:
    """Return dollars; small amounts with more digits.

    >>> usd(0), usd(0.0123), usd(1234.5)
    ('$0', '$0.0123', '$1,234.50')
    """
    if not value:
        return "$0"
    return f"${value:,.2f}" if value >= 1 else f"${value:.4f}"
