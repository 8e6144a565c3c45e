"""What the tests' invented shops share: lines, a shelf, and the tables of a bundle."""

import numpy as np
import pandas as pd


def drawn_lines(
    rng: np.random.Generator, who: np.ndarray, what: np.ndarray, days: int, together: int = 2
) -> pd.DataFrame:
    """A line per pair of customer and product, in the order of time: some are returns, one in
    twenty is anonymous; `together` lines make a basket.
    """
    lines = len(who)
    log = pd.DataFrame(
        {
            "transaction_id": [f"B{i // together}" for i in range(lines)],
            "customer_id": [f"C{i:03d}" for i in who],
            "product_id": [f"P{i:03d}" for i in what],
            "date": pd.Timestamp("2025-01-01")
            + pd.to_timedelta(np.sort(rng.integers(0, days * 86400, lines)), unit="s"),
            "quantity": rng.choice([1.0, 2.0, -1.0], lines, p=[0.8, 0.15, 0.05]),
            "price": 1.0 + what % 7,
        }
    )
    log.loc[rng.random(lines) < 0.05, "customer_id"] = None
    return log


def shelf_of(products: int) -> pd.DataFrame:
    """Ten products a category, and two that nobody has bought."""
    every = range(products + 2)
    return pd.DataFrame(
        {
            "product_id": [f"P{i:03d}" for i in every],
            "category": [f"cat{i // 10}" for i in every],
            "price": [1.0 + i % 7 for i in every],
        }
    )


def champions(ids: list[str]) -> pd.DataFrame:
    """One segment for all, as a bundle holds it."""
    return pd.DataFrame(
        {
            "customer_id": ids,
            "segment": "Champions",
            "r_score": 5,
            "f_score": 4,
            "m_score": 3,
            "rfm_score": "543",
            "action": "say thank you",
        }
    )


def popular_list(shelf: list[str], reason: str, best: float = 1.0) -> pd.DataFrame:
    """What a bundle offers to whom it does not know."""
    return pd.DataFrame(
        {
            "product_id": shelf,
            "score": np.linspace(best, 0.1, len(shelf)),
            "method": "popular",
            "reason": reason,
        }
    )
