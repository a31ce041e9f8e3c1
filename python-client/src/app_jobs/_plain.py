"""Text that anybody may have written, on its way to a terminal."""

from __future__ import annotations

_CONTROLS = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\t"), ord("\n")}, "\ufffd")


def plain(text: str) -> str:
    """Return text without what would steer the terminal."""
    return text.translate(_CONTROLS)


def escape(text: str) -> str:
    """Return text as markup that shows it as it is."""
    from rich.markup import escape as mark_up  # which a worker can do without

    return mark_up(plain(text))
