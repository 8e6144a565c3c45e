"""What tests read of a proposal: its columns, how sure it is of each, and the books in its text."""

import re

from retail_ci.data.proposal import Examination


def columns(found: Examination) -> dict[str, str]:
    """Our column: theirs."""
    return found.settings().columns


def sure(found: Examination) -> dict[str, str]:
    """Key: how sure it is."""
    return {g.key.removeprefix("columns."): g.sure for g in found.guesses}


def shown(text: str, label: str = "What it would give") -> tuple[int, int, int, float]:
    """Lines kept, baskets, customers and revenue of a reading."""
    (line,) = [part for part in text.splitlines() if part.startswith(label)]
    numbers = re.search(
        r": ([\d,]+) of [\d,]+ lines, ([\d,]+) baskets, ([\d,]+) customers, net revenue ([\d,.]+),",
        line,
    )
    kept, baskets, customers, revenue = (n.replace(",", "") for n in numbers.groups())
    return int(kept), int(baskets), int(customers), float(revenue)
