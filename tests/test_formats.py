"""Numbers, money and days in the reader's language: against CLDR's facts, written down by hand, and
on all that a German run shows.
"""

import re
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import yaml
from any_shop import DOT, OPTIONAL, Rooms, Shop
from matplotlib.figure import Figure
from matplotlib.text import Text

from retail_ci.core.config import load_config
from retail_ci.core.formats import (
    LOCALES,
    amount,
    count,
    current_locale,
    day,
    decimal,
    money,
    month,
    number,
    share,
    use_locale,
)
from retail_ci.report.first_screen import figure_cards
from retail_ci.report.page_parts import facts_of
from retail_ci.report.pages import PAGES

NBSP = "\u00a0"  # no-break space
THIN = "\u202f"  # narrow no-break space

# CLDR 45 and later, common/main: de.xml, fr.xml, en_GB.xml. Columns: locale, 1234567.5 with two
# decimals, 12.3%, twelve euros and a half, 3 September 2025, September 2025, a negative
FACTS = [
    (
        "de",
        "1.234.567,50",
        f"12,3{NBSP}%",
        f"12,50{NBSP}€",
        "03.09.2025",
        "September 2025",
        "−0,25",
    ),
    (
        "fr",
        f"1{THIN}234{THIN}567,50",
        f"12,3{NBSP}%",
        f"12,50{NBSP}€",
        "3 sept. 2025",
        "septembre 2025",
        "−0,25",
    ),
    ("en-GB", "1,234,567.50", "12.3%", "€12.50", "3 Sept 2025", "September 2025", "−0.25"),
    ("en", "1,234,567.50", "12.3%", "€12.50", "3 Sep 2025", "September 2025", "−0.25"),
]


def written(locale: str) -> tuple[str, ...]:
    return (
        decimal(1234567.5, 2, locale=locale),
        share(0.123, 1, locale=locale),
        amount(12.5, "€", 2, locale),
        day("2025-09-03", locale=locale),
        month("2025-09-03", locale=locale),
        decimal(-0.25, 2, locale=locale),
    )


@pytest.fixture(autouse=True)
def english():
    """Leave the locale as the other tests expect it."""
    yield
    use_locale("en")


@pytest.mark.parametrize("facts", FACTS, ids=lambda facts: facts[0])
def test_what_cldr_says(facts):
    locale, *texts = facts
    assert written(locale) == tuple(texts)


MONEY = [  # locale, currency, 1,234.5 with two decimals
    ("sv", "kr", f"1{NBSP}234,50{NBSP}kr"),
    ("pl", "zł", f"1{NBSP}234,50{NBSP}zł"),
    ("de-CH", "CHF", f"CHF{NBSP}1’234.50"),
    ("nl", "€", f"€{NBSP}1.234,50"),
    ("fr", "€", f"1{THIN}234,50{NBSP}€"),
    ("en", "kr", f"kr{NBSP}1,234.50"),
    ("en-GB", "£", "£1,234.50"),
    ("ja", "¥", "¥1,234"),
    ("en", "¥", "¥1,234"),
    ("zh", "¥", "¥1,234.50"),  # the yuan, which has cents
    ("en", "CN¥", "CN¥1,234.50"),
    ("de", "CNY", f"1.234,50{NBSP}CNY"),
    ("zh", "JPY", f"JPY{NBSP}1,234"),
    ("en", "HUF", f"HUF{NBSP}1,234"),
    ("fr", "XAF", f"1{THIN}234{NBSP}XAF"),
    ("en", "元", f"元{NBSP}1,234.50"),
]


@pytest.mark.parametrize("locale, currency, text", MONEY)
def test_money_stands_as_its_readers_write_it(locale, currency, text):
    assert amount(1234.5, currency, 2, locale) == text


def test_a_number_is_rounded_as_python_rounds_it():
    for value in (0.125, 2.675, 1.005, 0.5, 1.5, 1e15 + 0.3, -2.5, 0.0):
        for digits in range(4):
            plain = f"{value:,.{digits}f}".replace("-", "−")  # a minus, and no hyphen
            assert number(value, f",.{digits}f") == plain
    assert number(1e-7, ".3g", "de") == "1e-07" and number(1234.5, ".3g", "de") == "1,23e+03"


def test_neither_order_nor_threads_change_what_is_written():
    """What was written before, here or elsewhere, has no say."""
    alone = {locale: written(locale) for locale in LOCALES}
    assert number(1378, locale="de") == "1.378" and decimal(1.378, 3, locale="de") == "1,378"
    names = [*LOCALES, *reversed(LOCALES)] * 20
    with ThreadPoolExecutor(8) as pool:
        for locale, texts in zip(names, pool.map(written, names)):
            assert texts == alone[locale], locale
    assert current_locale().name == "en" and count(1378) == "1,378"


def test_the_change_on_a_card_is_a_share_of_its_locale():
    changed = {"month": "2025-12-01", "against": "2025-11-01", "change": -0.249}
    facts = [{"name": "baskets", "value": 3929, **changed}]
    use_locale("de")
    card = figure_cards(facts)
    assert "3.929" in card and f"−24,9{NBSP}% in Dezember" in card


def test_a_locale_has_two_spellings_and_a_typing_mistake_one_sentence():
    assert use_locale("en_GB") == use_locale("en-GB") == current_locale()
    with pytest.raises(Exception, match="Unknown locale 'dee'.*did you mean 'de'"):
        use_locale("dee")


# All that a German run shows

NAMES = [f"1.{378 + i} metres" for i in range(20)]  # of products: none is a number
ENGLISH = re.compile(
    r"\d,\d{3}\.\d"  # 1,234.5
    r"|(?<![\w.,:/-])\d+\.(?:\d{1,2}|\d{4,})(?![\w.])"  # 0.5, 12.25; no day, no version
    r"|(?<![\w.,])0\.\d+"  # 0.123
    r"|\d,\d+%"  # a German number with an English sign
)


def english_numbers(text: str) -> list[str]:
    """What a reader sees that only English writes so; code and what plotly draws are left out."""
    seen = re.sub(r"<(style|script|code|pre)\b.*?</\1>|```.*?```|`[^`]*`", "", text, flags=re.S)
    seen = re.sub(r"1\.\d{3} metres|<[^>]*>|\]\([^)]*\)|\{#[^}]*\}", " ", seen)
    return [seen[max(0, m.start() - 60) : m.end() + 20] for m in ENGLISH.finditer(seen)]


@pytest.fixture(scope="module")
def german(tmp_path_factory):
    """A German shop: what its notebooks showed, the words on its figures, and its pages."""
    folder = tmp_path_factory.mktemp("german")
    shop = Shop(
        products=20,
        customers=50,
        days=200,
        columns=frozenset(OPTIONAL),
        tables=frozenset({"products", "customers"}),
        greedy=True,
        one_price=False,
        once=False,
        returns=True,
        anonymous=True,
        times=True,
        segments=5,
        seed=7,
    )
    file = shop.write(folder / "in")
    for name in ("sales", "products"):
        table = pd.read_csv(folder / f"in/{name}.csv", dtype=str, keep_default_na=False)
        table["product_name"] = [NAMES[int(p)] for p in table["product_id"]]
        table.to_csv(folder / f"in/{name}.csv", index=False)
    config = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(config | {"report": {"locale": "de", "currency": "€"}}))
    drawn = []

    def recorded(figure, file, **_):
        figure.draw_without_rendering()  # settles all texts; nobody looks at the picture
        drawn.extend(text.get_text() for text in figure.findobj(Text))
        file.write(DOT)

    rooms = Rooms()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", recorded)
        run = rooms.run(load_config(file), folder / "run")
    facts = facts_of(run)
    use_locale("de")
    pages = {name: page.text(facts) for name, page in PAGES.items()}
    use_locale("en")
    return rooms.shown, drawn, pages


def test_a_german_run_shows_no_english_number(german):
    shown, drawn, pages = german
    assert not [(where, found) for where, text in shown for found in english_numbers(text)]
    assert not [text for text in drawn if english_numbers(text)]
    assert not {name: found for name, text in pages.items() if (found := english_numbers(text))}


def test_a_german_run_writes_german_numbers(german):
    shown, drawn, pages = german
    everything = "\n".join([*(text for _, text in shown), *pages.values()])
    assert re.search(r"\d,\d{2}\b", everything) and re.search(rf"\d{NBSP}%", everything)
    assert re.search(rf"\d{NBSP}€", everything) and re.search(r"\d\d\.\d\d\.20\d\d", everything)
    assert any(re.fullmatch(r"−?\d+,\d+", text) for text in drawn)
    assert money(1_234_567, "€", "de") == f"1,23 M{NBSP}€"


def test_products_that_look_like_numbers_keep_their_names(german):
    shown, _, pages = german
    everything = "\n".join([*(text for _, text in shown), *pages.values()])
    found = re.findall(r"[\d.,]+ metres", everything)
    assert found and set(found) <= set(NAMES)
