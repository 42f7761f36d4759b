"""Lengths of time as people say them."""


def format_span(seconds: float) -> str:
    """Such as "40 s", "12 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
