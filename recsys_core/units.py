"""The length of a day, and sizes as people read them."""

SECONDS_PER_DAY = 86_400


def format_bytes(size: float) -> str:
    """Bytes in decimal units, to three digits.

    >>> format_bytes(4_812_344)
    '4.81 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
