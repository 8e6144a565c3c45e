"""Ten customers are forgotten after promotions, a rollback and a campaign: no byte names them, and
all is as if they had never been there.
"""

import base64
import json
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Project, checkout, wait_for
from fastapi.testclient import TestClient
from small_service import LONG, tables
from small_shop import champions, popular_list

from retail_ci.core.config import Config, SyntheticConfig
from retail_ci.core.runs import load
from retail_ci.core.suppression import add_forgotten
from retail_ci.data.synthetic import generate
from retail_ci.serve import api
from retail_ci.serve.bundle import activate, current_bundle, rollback, seal, write_bundle

QUICK = {
    "segmentation": {"k_max": 6, "seeds": 1, "draws": 2},
    "movement": {"draws": 1},
    "worth": {"draws": 2},
    "recommender": {"cuts": 1},
    "mlflow": {"enabled": False},
    "runs": {"workers": 2},
}


def shop(root: Path, sources: Path) -> Project:
    """A project whose log lies outside it."""
    project = checkout(root, "0")
    roles = ("transactions", "products", "customers")
    data = {role: str(sources / f"{role}.csv") for role in roles}
    config = {"name": "shop", "data": data, **QUICK}
    (root / "configs/shop.yaml").write_text(yaml.safe_dump(config))
    return project


def text_in(file: Path) -> str:
    """All words of a file, whatever it is written in."""
    if file.suffix == ".parquet":
        return pd.read_parquet(file).to_csv(index=False)
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            return "\n".join(str(v) for a in arrays.values() for v in np.atleast_1d(a).ravel())
    return ""


CODES = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


def in_base64(who: str) -> set[bytes]:
    """What an id is in base64, wherever it begins in a group of letters and whatever follows it;
    without the letters that hold bits of what stands before it.
    """
    found = set()
    for before, letters in ((0, 0), (1, 2), (2, 3)):
        data = b"\0" * before + who.encode()
        end = -(-len(data) * 8 // 6)
        rest = (bytes([following, 0, 0]) for following in range(256))
        found |= {base64.b64encode(data + more)[letters:end] for more in rest}
    return found


def test_an_id_is_found_in_any_encoding(tmp_path):
    who = "C00317"
    for place in range(3):
        text = base64.b64encode(b"abc"[:place] + who.encode() + b" and more").decode()
        (tmp_path / f"{place}.html").write_text(f"data:,{text}")
    for code in CODES:
        (tmp_path / f"{code}.bin").write_bytes(b"x" + who.encode(code))
    pd.DataFrame({"customer_id": [who]}).to_parquet(tmp_path / "a.parquet", compression="zstd")
    np.savez_compressed(tmp_path / "b.npz", ids=np.array(["C1", who]))
    (tmp_path / who).touch()
    assert set(traces(tmp_path, [who, "C00318"])) == {p.name for p in tmp_path.iterdir()}
    assert traces(tmp_path, ["C00318"]) == {}


def traces(folder: Path, ids: list[str]) -> dict[str, str]:
    """Each file that names one of some customers: in its bytes, or in what they mean."""
    wanted = "|".join(map(re.escape, ids))
    coded = {who.encode(code) for who in ids for code in CODES}.union(*map(in_base64, ids))
    found = {}
    for file in (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        raw = file.read_bytes()
        spelt = re.search(wanted, text_in(file))
        if any(word in raw for word in coded) or spelt or re.search(wanted, file.name):
            found[file.relative_to(folder).as_posix()] = spelt[0] if spelt else "in its bytes"
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A log, products and customers, as of a config that is smaller than the small one."""
    folder = tmp_path_factory.mktemp("sources")
    size = SyntheticConfig(lines=4000, customers=300, products=60)
    generate(Config(synthetic=size), folder, format="csv")
    return folder


def made(run: Path) -> dict[str, str]:
    """Every file of a run, and its hash."""
    return {a["path"]: a["sha256"] for a in load(run / "manifest.json")["artifacts"]}


def test_nothing_is_left_of_customers_who_are_forgotten(sources, tmp_path):
    project = shop(tmp_path / "project", sources)
    home = project.home("shop")
    done = project.here("run", "--config", "shop")
    assert done.returncode == 0, done.stderr
    people = pd.read_parquet(home / "current/data/segments.parquet")["customer_id"]
    ids = people[people > "C00100"].sample(10, random_state=3).tolist()
    serving = home / "serving"
    first = current_bundle(serving)
    assert first is not None
    shutil.copytree(first, serving / "older")
    papers = json.loads((first / "manifest.json").read_text())
    facts = {key: papers[key] for key in ("depth", "counts")}
    (serving / "older/manifest.json").unlink()
    seal(serving / "older", {"version": "older", **facts})
    activate(serving, "older")
    assert rollback(serving) == first.name
    for command in ("campaigns", "export"):
        assert project.here(command, "--config", "shop").returncode == 0
    (home / "mlflow.db").write_bytes(" ".join(ids).encode("utf-16-le"))
    (project.root / "_site").mkdir()
    (project.root / "_site/search.json").write_text(json.dumps(ids))
    killed = project.root / f"_site-{'0' * 16}.part"
    shutil.copytree(project.root / "_site", killed)
    held = traces(home, ids)
    assert len(held) > 15 and any("campaigns" in name for name in held)

    client = TestClient(
        api._make_app(api.Settings(serving, log=False)), base_url="http://localhost"
    )
    with client:
        assert client.get(f"/v1/segments/{ids[0]}").status_code == 200
        add_forgotten(serving, ids[:1])
        wait_for(lambda: client.get(f"/v1/segments/{ids[0]}").status_code == 404)
        (tmp_path / "erase.csv").write_text("customer_id\n" + "\n".join(ids))
        done = project.call("forget", str(tmp_path / "erase.csv"), "--config", "shop")
        assert done.returncode == 0, done.stderr
        wait_for(lambda: client.get("/health").json()["model_version"] != first.name)
        for who in ids:
            assert client.get(f"/v1/segments/{who}").status_code == 404
            told = client.post("/v1/recommend", json={"customer_id": who}).json()
            assert not told["known_customer"]
        assert client.get(f"/v1/segments/{people[0]}").status_code == 200

    assert traces(project.root, ids) == {}
    assert not (project.root / "_site").exists()
    assert f"transactions: {sources}/transactions.csv" in done.stdout
    (report,) = (home / "erasures").iterdir()
    assert load(report)["customers"] == load(report)["known_before"] == 10

    never = tmp_path / "never"
    never.mkdir()
    for file in sources.glob("*.csv"):
        lines = file.read_text().splitlines(keepends=True)
        kept = [x for x in lines if not any(who in x for who in ids)]
        (never / file.name).write_text("".join(kept))
        assert len(kept) < len(lines) or file.name == "products.csv"
    other = shop(tmp_path / "other", never)
    assert other.here("run", "--config", "shop").returncode == 0
    whole = made(other.home("shop") / "current")
    assert made(home / "current") == whole
    assert current_bundle(serving).name == current_bundle(other.home("shop") / "serving").name

    # the next import does not bring them back: it makes what that of the other shop has made, of
    # which all else is made
    assert project.here("run", "--config", "shop", "--to", "01").returncode == 0
    assert traces(project.root, ids) == {}
    again = made(home / "to-01")
    assert {"data/transactions.parquet", "data/customers.parquet"} <= set(again)
    assert again.items() <= whole.items()


@pytest.mark.parametrize(
    "who,asked",
    [
        ("C00001", ["C00001", " C00001", "C00001\u200b", "C00001\ufeff", "\u00a0C00001\t"]),
        ("Zoe\u0308 ☀", ["Zoë ☀", "Zoe\u0308 ☀", "Zoë ☀ ", "\u2060Zoë ☀"]),
        ("a/b", ["a/b", "a/b "]),
        ("17850.0", ["17850", "17850.0", "1.785E4"]),
        ("00017", ["00017", "00017 "]),
        (LONG, [LONG]),
    ],
)
def test_whoever_is_forgotten_is_not_found_in_any_writing(tmp_path, who, asked):
    """And nobody else is forgotten, however alike the ids are."""
    ids = ["C00001", "C0000", "C000011", "c00001", "Zoë ☀", "Zoe ☀", "a/b", "a", "b", LONG]
    ids += ["17850", "017850", "178500", "17", "00017", "17.00"]
    whole = tables("v1") | {"lists": {"any": [], "discovery": []}, "similar": None}
    whole |= {"popular": popular_list(["P1"], "popular now"), "segments": champions(ids)}
    whole |= {"products": pd.DataFrame({"product_id": ["P1"]})}
    whole |= {"bought": pd.DataFrame({"customer_id": ids, "product_id": "P1"})}
    write_bundle(tmp_path / "v1", **whole, version="v1")
    activate(tmp_path, "v1")
    app = api._make_app(api.Settings(tmp_path, log=False))
    with TestClient(app, base_url="http://localhost") as client:
        add_forgotten(tmp_path, [who])
        app.state.desk.refresh()
        for written in asked:
            path = f"/v1/segments/{quote(written, safe='/')}"
            assert client.get(path).status_code == 404, written
            assert client.get(path, headers={"If-None-Match": "*"}).status_code == 404
            told = client.post("/v1/recommend", json={"customer_id": written}).json()
            assert not told["known_customer"], written
        known = [client.get(f"/v1/segments/{quote(i, safe='/')}").status_code for i in ids]
        assert known.count(404) == 1 and ids[known.index(404)] in asked


@pytest.mark.parametrize(
    "who,words",
    [
        ("", "Name a customer's id, or a file with a column customer_id"),
        ("C00001", "There is no finished run of 'shop'"),
        ("erase.tsv", "The file erase.tsv does not exist"),
        ("lists/erase", "The file lists/erase does not exist"),
        ("a/b", "an id that looks like a file goes into such a file"),
        ("blank.csv", "Nobody is named"),
    ],
)
def test_forgetting_nobody_is_refused_in_one_sentence(sources, tmp_path, who, words):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "configs").mkdir()
    config = {"name": "shop", "data": {"transactions": str(sources / "transactions.csv")}}
    (tmp_path / "configs/shop.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "blank.csv").write_text("customer_id,name\n,Ann\n,Bob\n")
    done = Project(tmp_path).here("forget", *([who] if who else []), "--config", "shop")
    assert done.returncode in (2, 4) and words in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "runs").exists()
