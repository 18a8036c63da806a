"""Pages in which programs write what they measured: between two marks, so that the words around it are people's."""

from __future__ import annotations


def replace_marked(page: str, begin: str, end: str, content: str) -> str:
    """The page with everything between the marks replaced.

    Args:
        page: its text.
        begin: the line that stands above what is replaced.
        end: the line below it.
        content: what goes between them.

    Raises:
        ValueError: if the page does not have both marks, once each and in order.
    """
    before, found, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end or begin in after or end in after:
        raise ValueError(
            f"the page needs one line {begin!r} and below it one line {end!r}; between them go the results"
        )
    return f"{before}{begin}\n\n{content}\n{end}{after}"
