"""What the report may say: a shop where every claim is false gets none of them, and a page that
contradicts another is not built.
"""

import json

import pytest

from retail_ci.core.errors import RunError
from retail_ci.report.pages import (
    facts_of,
    figure_cards,
    monday_cards,
    offers_line,
    slipping_line,
    write_pages,
)

LIST = {
    "published_label": "Ranker",
    "best_label": "Best sellers, lately",
    "published_leads": False,
    "beyond_chance": True,
}
FALSE_SHOP = {
    "movement": {
        "fitted": True,
        "month_end": "2025-12-31",
        "alerts": {
            "customers": 475,
            "value": 93_525.0,
            "value_90": 36_147.0,
            "unlikely_by_chance": 0,
            "by_chance": 473.0,
            "chance_spread": 14.0,
        },
    },
    "recommendations": {
        "customers": 900,
        "lines": 9000,
        "products": 12,
        "personal_share": 0.04,
        "best_sellers": 10,
        "any": LIST,
        "discovery": LIST | {"published_leads": True, "beyond_chance": False},
    },
    "figures": [
        {
            "name": "revenue",
            "value": 948_601.83,
            "month": "2025-12-01",
            "against": "2025-11-01",
            "change": 0.631,
        }
    ],
}


def test_a_shop_where_every_claim_is_false_reads_none_of_them():
    slips = slipping_line(FALSE_SHOP["movement"], "€")
    assert "about 473 would by chance: a normal month" in slips
    assert "Call first" not in slips and 'class="first"' not in slips and "€" not in slips
    offers = offers_line(FALSE_SHOP["recommendations"])
    assert "personal" not in offers and "is the best" not in offers
    assert "96% of the lines are the 10 best sellers" in offers
    assert "Best sellers, lately did better in the held-out month" in offers
    assert "others did as well within chance" in offers
    cards = figure_cards(FALSE_SHOP["figures"], "€", "1 January to 31 December 2025")
    assert "+63.1% in December against November, season included" in cards


def test_the_same_sentences_where_they_are_true():
    movement = FALSE_SHOP["movement"]
    louder = movement | {"alerts": movement["alerts"] | {"by_chance": 300.0}}
    assert "<b>475 good customers slipped" in slipping_line(louder, "€")
    won = LIST | {"best_label": "Ranker", "published_leads": True}
    offers = offers_line({"customers": 9, "personal_share": 0.9, "best_sellers": 10, "any": won})
    assert "Ranker is the best" in offers and "90% of the lines are personal" in offers
    last_year = FALSE_SHOP["figures"][0] | {"against": "2024-12-01"}
    assert "in December against December 2024" in figure_cards([last_year])


def test_under_each_key_figure_stand_period_population_and_uncertainty():
    card = figure_cards([{"name": "baskets", "value": 36_968}], "€", "1 January to 31 May 2025")
    assert (
        "1 January to 31 May 2025; all sales, with and without a customer; counted, not estimated"
        in card
    )


def test_a_card_counts_who_may_be_written_to_and_says_what_is_unproven():
    profile = {"segment": "At Risk", "customers": 711, "revenue": 50_809.8, "action": "Write."}
    found = {
        "segment": "At Risk",
        "customers": 711,
        "suppressed": 3,
        "no_consent": 212,
        "control": 50,
        "send": 446,
        "buys_anyway": 0.414,
        "smallest_lift": None,
    }
    card = monday_cards([profile], {"days": 30, "segments": [found]}, "€")
    assert "446</data> of 711 customers can be written to" in card
    assert "212 have not agreed, 3 are suppressed, 50 are held back to compare" in card
    assert 446 + 212 + 3 + 50 == 711
    assert "41% buy within 30 days anyway, and the group held back is too small" in card
    assert card.count("<h3>") == 1 and "To the list" in card


@pytest.fixture
def finished(tmp_path):
    """A run whose home page and data page agree on the receipts and differ on the revenue."""
    data = {
        "rows_in": 10,
        "kept": 9,
        "customers": 3,
        "baskets": 4,
        "revenue": 100.0,
        "by_reason": {},
        "by_flag": {},
    }
    (tmp_path / "run/metrics").mkdir(parents=True)
    (tmp_path / "run/executed").mkdir()
    (tmp_path / "run/metrics/data.json").write_text(json.dumps(data))
    (tmp_path / "stage").mkdir()

    def with_home(revenue):
        card = str(figure_cards([{"name": "revenue", "value": revenue}], "€"))
        cell = {"cell_type": "code", "source": "", "outputs": [{"data": {"text/html": card}}]}
        (tmp_path / "run/executed/index.ipynb").write_text(json.dumps({"cells": [cell]}))
        return write_pages(facts_of(tmp_path / "run"), tmp_path / "stage")

    return with_home


def test_a_report_that_contradicts_itself_is_not_built(finished):
    assert "quality" in finished(100.0)
    with pytest.raises(RunError, match="net_revenue is printed with different values: 90 on index"):
        finished(90.0)


@pytest.mark.parametrize("source, said", [("synthetic", True), ("shop.csv", False)])
def test_generated_data_is_called_so_on_every_page(finished, tmp_path, source, said):
    manifest = {"config": {"data": {"transactions": source}}}
    (tmp_path / "run/manifest.json").write_text(json.dumps(manifest))
    for name in finished(100.0):
        page = (tmp_path / "stage" / f"{name}.qmd").read_text()
        assert ("Demonstration data." in page) == said, name
