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
