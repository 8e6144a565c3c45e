"""The messy export of an invented drugstore: `python examples/make_drogerie.py` writes
drogerie.csv beside this file.

The sales come from the project's generator, without its brand names. Added is what tills add:
semicolons, decimal commas, signed amounts, Windows letters and line ends, a German header,
unknown customers as words, cancelled baskets, postage and deposits among the products, lines sent
twice, impossible dates, and a line of totals at the end.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from retail_ci.core.config import Config, SyntheticConfig
from retail_ci.data.synthetic import generate

GROUPS = {
    "baby": "Baby",
    "vitamins": "Vitamine",
    "pharmacy": "Gesundheit",
    "electrical": "Elektrogeräte",
    "fragrance": "Düfte",
    "skincare": "Hautpflege",
    "haircare": "Haarpflege",
}
HEADER = [
    "Bon-Nr",
    "Kunden-Nr",
    "Artikel-Nr",
    "Bezeichnung",
    "Warengruppe",
    "Verkauft am",
    "Menge",
    "Stückpreis",
]


def sales() -> pd.DataFrame:
    """Clean sales with the products' names, as the generator makes them."""
    with tempfile.TemporaryDirectory() as folder:
        generate(
            Config(seed=7, synthetic=SyntheticConfig(lines=4000, customers=300, products=80)),
            Path(folder),
        )
        lines, products = (
            pd.read_csv(Path(folder) / f"{name}.csv", dtype=str, keep_default_na=False)
            for name in ("transactions", "products")
        )
    products["product_name"] = [
        name.removeprefix(brand).strip()
        for name, brand in zip(products["product_name"], products["brand"])
    ]
    lines = lines.apply(lambda column: column.str.strip()).merge(
        products[["product_id", "product_name", "category"]], on="product_id"
    )
    lines["date"] = pd.to_datetime(lines["date"], errors="coerce", format="%Y-%m-%d %H:%M:%S")
    lines[["quantity", "price"]] = lines[["quantity", "price"]].apply(
        pd.to_numeric, errors="coerce"
    )
    good = (
        lines["date"].notna()
        & lines["quantity"].notna()
        & lines["price"].gt(0)
        & lines["date"].dt.year.eq(2025)
    )
    return (
        lines[good]
        .drop_duplicates()
        .sort_values(["date", "transaction_id", "product_id"], kind="stable", ignore_index=True)
    )


def export(lines: pd.DataFrame) -> pd.DataFrame:
    """The same as a till would write it, all of it text."""
    number = lines["transaction_id"].str[1:].str.lstrip("0").str.zfill(6)
    returned = lines["quantity"] < 0
    return pd.DataFrame(
        dict(
            zip(
                HEADER,
                [
                    number.where(~returned, "ST" + number),
                    lines["customer_id"].str[1:].replace("", "unbekannt"),
                    lines["product_id"].str[1:].str.zfill(6),
                    lines["product_name"],
                    lines["category"].map(GROUPS).fillna("Sonstiges"),
                    lines["date"].dt.strftime("%d.%m.%Y %H:%M"),
                    lines["quantity"].astype(int).astype(str),
                    [
                        f"{price:,.2f} €".translate(str.maketrans(",.", ".,"))
                        for price in lines["price"]
                    ],
                ],
            )
        )
    )


def spoil(table: pd.DataFrame) -> pd.DataFrame:
    """What a year of real life adds."""
    rng = np.random.default_rng(7)
    picked = np.sort(rng.choice(len(table), 130, replace=False))
    twice, postage, deposit, undated, priceless = np.split(picked, [60, 90, 110, 120])
    table.loc[undated, "Verkauft am"] = ["30.02.2025 10:00", "??.??.2025 --:--"] * 5
    table.loc[priceless, "Stückpreis"] = ""

    def extra(rows, code, name, price):
        return table.loc[rows].assign(
            **{
                "Artikel-Nr": code,
                "Bezeichnung": name,
                "Warengruppe": "",
                "Menge": "1",
                "Stückpreis": price,
            }
        )

    parts = [
        table,
        table.loc[twice],
        extra(postage, "VERSAND", "Versandkosten", "4,95 €"),
        extra(deposit, "PFAND", "Pfand", "0,25 €"),
    ]
    grand = table.loc[[len(table) // 2]].assign(
        **{
            "Artikel-Nr": "000901",
            "Bezeichnung": 'Massagesessel "Größe XL"; Leder',
            "Warengruppe": "Elektrogeräte",
            "Menge": "1",
            "Stückpreis": "1.249,00 €",
        }
    )
    table = pd.concat([*parts, grand]).sort_index(kind="stable")
    total = pd.DataFrame([["Summe", "", "", "", "", "", str(len(table)), ""]], columns=HEADER)
    return pd.concat([table, total], ignore_index=True)


if __name__ == "__main__":
    spoil(export(sales())).to_csv(
        Path(__file__).with_name("drogerie.csv"),
        sep=";",
        index=False,
        encoding="cp1252",
        lineterminator="\r\n",
    )
