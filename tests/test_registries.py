"""Registries that are true: a row is added, and it is looked for at every place where it should be.

Nothing but the row is added. Each test asks one place, with a value that was computed apart.
"""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
import test_oracle
from ibis import _
from test_drift import kept, sales
from test_ranking import make_log
from test_site import ROOT, project
from typer.testing import CliRunner

from retail_ci import clean, cli
from retail_ci.core import config
from retail_ci.core.config import Config, DataConfig
from retail_ci.core.errors import ConfigError, DataError, RunError
from retail_ci.core.runs import ARTEFACTS, FIGURES, Artefact, Run
from retail_ci.core.show import SEGMENTS, save_figure
from retail_ci.customers.features import FEATURES, Feature, add_scores, learn_cuts, rfm_features
from retail_ci.customers.segment_names import ACTIONS, PROTOTYPES
from retail_ci.customers.segment_profiles import (
    colour,
    feature_medians,
    in_house_order,
    profiles,
)
from retail_ci.customers.segmentation import RFM, CustomerSegmentation
from retail_ci.data import cleaning, contract, engines, sources
from retail_ci.evaluate.own_log import fit_recommender
from retail_ci.export import star_schema
from retail_ci.export.powerbi import export_powerbi
from retail_ci.recommend.candidates import CandidateModels, build_features
from retail_ci.recommend.interactions import interactions
from retail_ci.report import site
from retail_ci.report.charts import colour_of
from retail_ci.report.page_parts import Facts, glossary
from retail_ci.report.pages import PAGES, ReportPage, pages_for, read_on, search_entries
from retail_ci.serve.drift import compare

LINES = kept(sales(days=120))
REFERENCE = LINES.day.max() + pd.Timedelta(days=1)
DEAREST = Feature(
    "dearest_line",
    "highest price paid for one line in the look-back",
    "money",
    _.dearest,
    needs=("revenue",),
    sums={"dearest": _.revenue.max(where=_.sale & _.recent)},
)
EXPECTED = LINES.groupby("customer_id")["revenue"].max()  # the log is shorter than the look-back


NOTHING = {"category_variety": np.nan}  # the shop has no categories


@pytest.fixture
def dearest(monkeypatch) -> Feature:
    """One more row."""
    monkeypatch.setitem(FEATURES, DEAREST.name, DEAREST)
    return DEAREST


@pytest.fixture
def shop(dearest, tmp_path) -> Run:
    """What a run leaves of a shop, as far as exports and pages read it."""
    run = Run(Config(name="shop"), tmp_path / "run")
    run.config.report.currency = "€"
    features = rfm_features(ibis.memtable(LINES), REFERENCE).execute()
    scored = add_scores(features, learn_cuts(features))
    ids = scored["customer_id"]
    segment = np.where(ids < "C45", "Lost", "At Risk")
    run.write("transactions", LINES)
    run.write("customers", pd.DataFrame({"customer_id": ids, "counter_like": False}))
    run.write("features", scored)
    run.write("segments", pd.DataFrame({"customer_id": ids, "segment": segment, "action": "write"}))
    for name, columns in (
        ("worth", ["customer_id"]),
        ("snapshots", ["customer_id", "month_end", "segment"]),
        ("recommendations", ["customer_id", "product_id"]),
    ):
        run.write(name, pd.DataFrame(columns=columns, dtype="str"))
    products = sorted(set(LINES["product_id"]))
    run.write("products", pd.DataFrame({"product_id": products, "product_name": products}))
    run.write("segment_features", feature_medians(scored, segment))
    return run


# ---------------------------------------------------------------- a feature


def test_a_feature_is_in_the_table_and_the_oracle_has_to_know_it(dearest, monkeypatch):
    found = rfm_features(ibis.memtable(LINES), REFERENCE).execute().set_index("customer_id")
    assert found["dearest_line"].to_dict() == EXPECTED.to_dict()
    with pytest.raises(AssertionError, match="dearest_line"):
        test_oracle.test_every_feature_is_computed_once_more()
    monkeypatch.setitem(
        test_oracle.ORACLE,
        "dearest_line",
        lambda k: k.now.groupby("customer_id")["revenue"].max().reindex(k.first.index),
    )
    test_oracle.test_every_feature_is_computed_once_more()
    expected = test_oracle.features(LINES, {})
    found = found.sort_index()
    test_oracle.agree(found.assign(category_variety=np.nan), expected.assign(**NOTHING), "a shop")
    wrong = expected.assign(**NOTHING, dearest_line=expected["dearest_line"] + 0.01)
    with pytest.raises(AssertionError, match="dearest_line differs"):
        test_oracle.agree(found.assign(category_variety=np.nan), wrong, "a shop")


def test_a_feature_is_in_power_bi_with_type_description_and_format(shop, tmp_path):
    told = export_powerbi(shop, tmp_path / "out")
    customers = pd.read_parquet(tmp_path / "out/parquet/dim_customer.parquet")
    known = customers[customers["is_known"]].set_index("customer_id")["dearest_line"]
    assert known.to_dict() == EXPECTED.round(4).to_dict()
    [table] = [t for t in told["tables"] if t["table"] == "dim_customer"]
    [column] = [c for c in table["columns"] if c["column"] == "dearest_line"]
    assert column == {
        "column": "dearest_line",
        "type": "double",
        "meaning": "Highest price paid for one line in the look-back.",
    }
    [model] = (tmp_path / "out/model").rglob("dim_customer.tmdl")
    text = model.read_text()
    part = text[text.index("\tcolumn dearest_line") :].split("\n\n")[0]
    assert "dataType: double" in part and "formatString: \\€#,0.00" in part
    flat = pd.read_csv(tmp_path / "out/views/customers.csv", dtype={"customer_id": "str"})
    assert flat.set_index("customer_id")["dearest_line"].to_dict() == EXPECTED.round(2).to_dict()


def test_a_feature_that_is_not_exported_stays_at_home(shop, tmp_path, monkeypatch):
    monkeypatch.setitem(FEATURES, DEAREST.name, dataclasses.replace(DEAREST, exported=False))
    export_powerbi(shop, tmp_path / "out")
    written = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert len(written) > 20 and not [p for p in written if b"dearest_line" in p.read_bytes()]


def test_drift_compares_a_feature_unless_its_row_says_no(dearest, monkeypatch):
    start = REFERENCE - pd.Timedelta(days=30)
    raised = LINES["revenue"].where(LINES["day"] < start, LINES["revenue"] * 3)
    log = ibis.memtable(LINES.assign(revenue=raised))
    states = {m.name: m.state for m in compare(log, start, 60).measures if m.group == "customers"}
    assert states["dearest_line"] == "drift" and "tenure" not in states
    monkeypatch.setitem(FEATURES, DEAREST.name, dataclasses.replace(DEAREST, compared=False))
    assert "dearest_line" not in {m.name for m in compare(log, start, 60).measures}


def test_a_feature_is_explained_found_and_shown_beside_the_segments(shop):
    facts = Facts(
        shop.path,
        insights={"currency": "€"},
        segments={
            "profiles": [
                dict.fromkeys(("customers", "share", "revenue", "revenue_share", "recency"), 1)
                | {"segment": "Lost", "frequency": 1, "basket_value": 1.0}
            ]
        },
    )
    assert glossary()["Dearest line"] == "Highest price paid for one line in the look-back."
    assert '<dt id="dearest-line">Dearest line</dt>' in PAGES["glossary"].text(facts)
    entries = {e["section"]: e["href"] for e in search_entries(facts)}
    assert entries["Dearest line"] == "glossary.html#dearest-line"
    page = PAGES["customers"].text(facts)
    row = page[page.index("glossary.html#dearest-line") :].split("</tr>")[0]
    groups = shop.read("segments").set_index("customer_id")["segment"]
    middle = EXPECTED.groupby(groups).median()
    assert f"€{middle['At Risk']:,.2f}" in row and f"€{middle['Lost']:,.2f}" in row


def test_the_ranker_sees_a_feature_whose_row_says_so(monkeypatch):
    log, products = make_log()
    data = interactions(log)
    plain = CandidateModels().fit(log, products)
    rows = np.arange(20)
    narrow = [build_features(plain, rows, task)[2].shape[1] for task in (False, True)]
    visits = dataclasses.replace(FEATURES["frequency"], name="visits", ranked=True)
    monkeypatch.setitem(FEATURES, "visits", visits)
    seen = CandidateModels().fit(log, products)
    wide = [build_features(seen, rows, task)[2].shape[1] for task in (False, True)]
    assert plain.features_.shape[1] == 0 and seen.features_.shape[1] == 1
    assert [b - a for a, b in zip(narrow, wide)] == [1, 2], "alone, or with likeness and popularity"
    bought = log[(log["quantity"] > 0) & log["customer_id"].notna()]
    moments = bought.groupby("customer_id")["date"].nunique().reindex(data.customer_ids)
    assert np.allclose(np.expm1(seen.features_[:, 0]), moments, atol=1e-4)


def test_what_purchases_cannot_tell_is_refused_by_the_ranker(monkeypatch):
    log, products = make_log()
    monkeypatch.setitem(FEATURES, DEAREST.name, dataclasses.replace(DEAREST, ranked=True))
    with pytest.raises(ConfigError, match="cannot see the feature 'dearest_line': it needs rev"):
        CandidateModels().fit(log, products)


def test_a_ranker_keeps_the_features_that_it_has_learned_with(monkeypatch, tmp_path):
    log, products = make_log()
    plain = CandidateModels().fit(log, products)
    monkeypatch.setitem(
        FEATURES, "visits", dataclasses.replace(FEATURES["frequency"], name="visits", ranked=True)
    )
    seen = CandidateModels().fit(log, products)
    again = CandidateModels.load(seen.save(tmp_path / "seen.npz"))
    assert again.ranked_ == ["visits"] and np.array_equal(again.features_, seen.features_)
    assert CandidateModels.load(plain.save(tmp_path / "plain.npz")).features_.shape[1] == 0
    monkeypatch.delitem(FEATURES, "visits")
    with pytest.raises(DataError, match="trained on the feature 'visits', which `FEATURES`"):
        CandidateModels.load(tmp_path / "seen.npz")


def test_a_model_is_loaded_without_ibis(tmp_path):
    """MLflow installs what `requirements` of 06c lists, and Ibis is not among it."""
    CandidateModels().fit(*make_log()).save(tmp_path / "model.npz")
    code = (
        "import sys\n"
        "sys.modules['ibis'] = sys.modules['duckdb'] = None\n"
        "import retail_ci.customers.segment_profiles\n"
        "from retail_ci.recommend.candidates import CandidateModels\n"
        "CandidateModels.load(sys.argv[1]).recommend(['C001'])"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "model.npz"], check=True)


# ---------------------------------------------------------------- a page


def nuts(facts: Facts) -> list[str]:
    return ["Nobody delivers zanzibar nuts.", "## By name {#by-name}", "None."]


NUTS = ReportPage("suppliers", "Suppliers", "Who delivers what.", "Business", 99, nuts)


def test_a_page_is_built_linked_searched_and_checked(tmp_path, monkeypatch):
    monkeypatch.setitem(PAGES, "suppliers", NUTS)
    root, run = project(tmp_path)
    rendered = {}
    finish = site.finish

    def note_index(pages: Path, run_dir: Path) -> None:
        rendered["search"] = json.loads((pages / "search.json").read_text(encoding="utf-8"))
        finish(pages, run_dir)

    monkeypatch.setattr(site, "finish", note_index)
    out = site.build_site(run, root, renderer="smalldocs")
    text = (out / "suppliers.html").read_text()
    assert "<title>Suppliers" in text and "Who delivers what." in text
    for page in ("index.html", "customers.html", "suppliers.html"):
        assert re.search(r'href="?suppliers\.html\b', (out / page).read_text()), page
    assert not re.search(r'href="?suppliers\.html\b', (out / "model-card.html").read_text())
    found = [e for e in rendered["search"] if e["href"].startswith("suppliers.html")]
    assert {e["title"] for e in found} == {"Suppliers"}
    assert "zanzibar" in " ".join(e["text"] for e in found)
    broken = dataclasses.replace(NUTS, builder=lambda facts: ["See [it](nowhere.qmd)."])
    monkeypatch.setitem(PAGES, "suppliers", broken)
    with pytest.raises(RunError, match="suppliers.html links to nowhere"):
        site.build_site(run, root, renderer="smalldocs")
    assert "zanzibar" in (out / "suppliers.html").read_text()


def test_a_page_is_on_the_home_page_where_it_is_for_the_business(monkeypatch):
    home = json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))
    assert "#| chain\nread_on()" in ["".join(c["source"]) for c in home["cells"]]
    assert "suppliers" not in read_on()
    monkeypatch.setitem(PAGES, "suppliers", NUTS)
    assert '<a href="suppliers.qmd">suppliers</a>' in read_on()
    assert pages_for("Business")[-1] is NUTS
    monkeypatch.setitem(PAGES, "suppliers", dataclasses.replace(NUTS, audience="Analyst"))
    assert "suppliers" not in read_on()
    sides = {s["id"]: s["contents"] for s in site.navigation(["index"], [])["sidebar"]}
    assert "suppliers.qmd" in sides["analyst"] and "suppliers.qmd" not in sides["business"]


# ---------------------------------------------------------------- the other rows of CONTRIBUTING


def test_a_rule_for_lines_is_kept_in_the_books(monkeypatch, tmp_path):
    monkeypatch.setattr(
        contract, "REJECTS", [*contract.REJECTS, rule("too_dear", "reject", lambda t: t.price > 28)]
    )
    monkeypatch.setattr(
        contract, "KEPT", [*contract.KEPT, rule("cheap", "flag", lambda t: t.price < 12)]
    )
    monkeypatch.setattr(cleaning, "REJECTS", contract.REJECTS)
    monkeypatch.setattr(cleaning, "KEPT", contract.KEPT)
    log = sales(days=60)
    log.to_parquet(tmp_path / "log.parquet", index=False)
    con = engines.connect()
    done = cleaning.prepare(
        con, engines.read_parquet(con, [tmp_path / "log.parquet"]), DataConfig()
    )
    dear = (log["price"] > 28).sum()
    assert done.facts["by_reason"]["too_dear"] == dear > 0
    assert done.facts["by_flag"]["cheap"] == (log["price"] < 12).sum() > 0
    assert set(done.rejected.execute()["reason"]) == {"too_dear"}
    told = cleaning.examples(done).set_index("reason")
    assert told.loc["too_dear", "advice"] == "Ask why." and told.loc["too_dear", "lines"] == dear
    engines.close(con)


def test_a_rule_for_customers_that_changes_between_two_logs_is_the_one_that_counts(monkeypatch):
    log = sales(days=60)
    assert not clean(log).customers["counter_like"].any()
    everybody = dataclasses.replace(contract.CUSTOMERS[0], broken=lambda c: c.baskets > 0)
    for room in (contract, cleaning):
        monkeypatch.setattr(room, "CUSTOMERS", [everybody])
    assert clean(log).customers["counter_like"].all()


def test_a_rule_may_list_its_columns_in_brackets():
    listed = contract.Rule("dear", "A price", "flag", "Ask.", lambda t: t.price > 5, ["price"])
    assert listed.needs == ("price",) and hash(listed)


def rule(name: str, severity: str, broken) -> contract.Rule:
    return contract.Rule(name, "A price that is odd", severity, "Ask why.", broken)


def test_a_segment_has_name_action_and_colour(monkeypatch):
    monkeypatch.setitem(PROTOTYPES, "Regulars", (0.0, 0.6, -0.6))
    monkeypatch.setitem(ACTIONS, "Regulars", "Keep them coming.")
    monkeypatch.setitem(SEGMENTS, "Regulars", "#123456")
    rng = np.random.default_rng(0)
    middles = np.repeat(np.array(list(PROTOTYPES.values())), 60, axis=0)
    logs = pd.DataFrame(middles + 0.2 * rng.normal(size=middles.shape), columns=RFM)
    features = pd.DataFrame(
        {
            "customer_id": [f"C{i:03d}" for i in logs.index],
            "recency": np.exp(4 + logs["recency"]).round() + 1,
            "frequency": np.exp(3 + logs["frequency"]).round() + 1,
            "monetary": np.exp(6 + logs["monetary"]),
            "basket_value": 10.0,
        }
    )  # six groups, each where a name is at home
    model = CustomerSegmentation(6).fit(features)
    table = profiles(features, model.predict(features)).set_index("segment")
    assert table.loc["Regulars", "action"] == "Keep them coming."
    assert colour("Regulars") == "#123456" and colour_of("Regulars") == "#123456"
    assert in_house_order(["Regulars", "Champions", "x"]) == ["Champions", "Regulars", "x"]


def test_an_artefact_and_a_figure_are_a_line_each(monkeypatch, tmp_path):
    import matplotlib.pyplot as plt

    run = Run(Config(name="shop"), tmp_path / "run")
    with pytest.raises(RunError, match="Unknown artefact 'shelves'"):
        run.write("shelves", pd.DataFrame({"a": [1]}))
    monkeypatch.setitem(ARTEFACTS, "shelves", Artefact("shelves", "data/shelves.parquet", "01"))
    run.write("shelves", pd.DataFrame({"a": [1]}))
    assert run.read("shelves")["a"].tolist() == [1]
    figure, _axes = plt.subplots()
    with pytest.raises(RunError, match="Unknown figure '01_shelves'"):
        save_figure(figure, "01_shelves", run, "None.", "Nothing.")
    monkeypatch.setitem(FIGURES, "01_shelves", "01")
    save_figure(figure, "01_shelves", run, "None.", "Nothing.")
    assert (run.path / "figures/01_shelves.png").stat().st_size


def test_a_table_for_power_bi_is_one_row(shop, tmp_path, monkeypatch):
    hours = star_schema.Table(
        "dim_hour",
        "an hour of the day",
        "(SELECT unnest(range(24)) AS n) ORDER BY 1",
        (
            star_schema.Column("hour_key", "key", "The hour, 0 to 23.", "n"),
            star_schema.Column("is_morning", "flag", "Whether it is before noon.", "n < 12"),
        ),
    )
    monkeypatch.setattr(star_schema, "TABLES", (*star_schema.TABLES[:7], hours))
    told = export_powerbi(shop, tmp_path / "out")
    assert {t["table"]: t["rows"] for t in told["tables"]}["dim_hour"] == 24
    assert pd.read_csv(tmp_path / "out/csv/dim_hour.csv")["is_morning"].sum() == 12
    [model] = (tmp_path / "out/model").rglob("dim_hour.tmdl")
    assert "\tcolumn is_morning\n\t\tdataType: boolean" in model.read_text()


def test_a_kind_of_source_is_recognised_and_read(monkeypatch, tmp_path):
    lines = [{"customer_id": "1", "price": "2.50"}, {"customer_id": "2", "price": "4"}]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    known_kind = sources.kind
    known_batches = sources.batches

    def kind(file: Path) -> str:
        return "jsonl" if file.suffix == ".jsonl" else known_kind(file)

    def batches(file: Path, *settings):
        if kind(file) != "jsonl":
            return known_batches(file, *settings)
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        return sources._row_batches(list(rows[0]), (list(row.values()) for row in rows))

    monkeypatch.setattr(sources, "kind", kind)
    monkeypatch.setattr(sources, "batches", batches)
    monkeypatch.setattr(config, "SUFFIXES", (*config.SUFFIXES, ".jsonl"))
    con = engines.connect()
    settings = DataConfig(transactions=str(tmp_path))
    read = sources.open_source(con, "transactions", settings).table.execute()
    assert read[["customer_id", "price"]].to_dict("records") == lines
    engines.close(con)


def hello(
    name: str = "you",  # who is greeted
) -> None:
    """Greet somebody."""
    print(f"Hello {name}")


def test_a_command_is_a_function_with_its_examples(monkeypatch):
    monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, hello))
    monkeypatch.setitem(cli.EXAMPLES, "hello", ["retail-ci hello --name Ann"])
    runner = CliRunner()
    told = runner.invoke(cli.app(), ["hello", "--help"]).output
    assert "Greet somebody." in told and "who is greeted" in told and "hello --name Ann" in told
    assert "hello" in runner.invoke(cli.app(), ["--help"]).output
    assert runner.invoke(cli.app(), ["hello", "--name", "Ann"]).output == "Hello Ann\n"


@pytest.mark.parametrize(
    "place, settings, words",
    [
        ("retail_ci.recommend.baselines:PopularityRecomender", {}, "expects module:class"),
        ("retail_ci.recommend.baseline:PopularityRecommender", {}, "expects module:class"),
        ("retail_ci.recommend.baselines.PopularityRecommender", {}, "expects module:class"),
        ("", {}, "expects module:class"),
        ("retail_ci.core.errors:DataError", {}, "expects module:class"),
        ("retail_ci.core.errors:one_line", {}, "expects module:class"),
        (
            "retail_ci.recommend.baselines:PersonalRecommender",
            {"half_lif": 3},
            "Unknown setting 'half_lif' in MODELS.'dummy'.; did you mean 'half_life'",
        ),
        ("retail_ci.recommend.base:Recommender", {}, "Recommender has no _scores"),
    ],
)
def test_a_row_that_is_no_model_is_refused_in_one_sentence(monkeypatch, place, settings, words):
    monkeypatch.setitem(config.MODELS, "dummy", config.Model(place, "Dummy", settings))
    log = pd.DataFrame({"customer_id": ["A", "B"], "product_id": ["x", "y"], "revenue": 1.0})
    with pytest.raises(ConfigError, match=words):
        fit_recommender(log.assign(date="2025-01-03"), model="dummy").recommend(["A"], k=1)
