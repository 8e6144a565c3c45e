"""The service as a caller sees it: a real server on loopback, the contract of its pages, odd
requests, promotions under load.
"""

import asyncio
import contextlib
import hashlib
import importlib
import inspect
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import quote

import httpx2
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import alive, wait_for
from small_service import (
    LONG,
    PATIENCE,
    await_ready,
    free_port,
    get,
    listens,
    post,
    request_in_two,
    served,
    tables,
    whole_answer,
)

from retail_ci.cli import VARIABLES, answer, serve
from retail_ci.core.suppression import FORGOTTEN, add_forgotten
from retail_ci.serve import api
from retail_ci.serve.api import PUBLIC_PATHS, Settings, read_keys
from retail_ci.serve.bundle import (
    Bundle,
    activate,
    point_at,
    recommend,
    recommend_each,
    rollback,
    seal,
    segment_of,
    write_bundle,
)


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """A folder with three bundles; the first is current, the last is broken."""
    folder = tmp_path_factory.mktemp("serving")
    for mark in ("v1", "v2", "v3"):
        write_bundle(folder / mark, **tables(mark), version=mark, depth=20)
    with (folder / "v3" / "any_items.bin").open("r+b") as file:
        file.write(b"\xff")
    activate(folder, "v1")
    return folder


@pytest.fixture(scope="module")
def service(serving):
    """A running service."""
    with served(serving) as (base, _), httpx2.Client(base_url=base, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def patient(serving):
    """A service that waits as long as these tests do: its address and its process."""
    with served(serving, RETAIL_CI_TIMEOUT=str(PATIENCE)) as (base, process):
        yield base, process


BAD = [  # id, what to send, status
    ("n 0", {"customer_id": "C00001", "n_recommendations": 0}, 422),
    ("n 101", {"customer_id": "C00001", "n_recommendations": 101}, 422),
    ("n true", {"customer_id": "C00001", "n_recommendations": True}, 422),
    ("n text", {"customer_id": "C00001", "n_recommendations": "10"}, 422),
    ("n 1.5", {"customer_id": "C00001", "n_recommendations": 1.5}, 422),
    ("n null", {"customer_id": "C00001", "n_recommendations": None}, 422),
    ("id number", {"customer_id": 1}, 422),
    ("id empty", {"customer_id": ""}, 422),
    ("id too long", {"customer_id": LONG + "x"}, 422),
    ("no id", {}, 422),
    ("a list", [], 422),
    ("a word", "C00001", 422),
    ("null", None, 422),
    ("a typing mistake", {"customer_id": "C00001", "n_recomendations": 3}, 422),
    ("a thousand keys", {"customer_id": "C00001"} | {f"k{i}": i for i in range(1000)}, 422),
    ("exclude text", {"customer_id": "C00001", "exclude": "P0001"}, 422),
    ("exclude too many", {"customer_id": "C00001", "exclude": ["P0001"] * 1001}, 422),
    ("purchased text", {"customer_id": "C00001", "exclude_purchased": "yes"}, 422),
]


@pytest.mark.parametrize("body,status", [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_request_that_does_not_fit_is_refused_with_a_problem(service, body, status):
    answer = service.post("/recommend", json=body)
    assert (
        answer.status_code == status
        and answer.headers["content-type"] == "application/problem+json"
    )
    assert (
        answer.json()["status"] == status
        and answer.json()["request_id"] == answer.headers["x-request-id"]
    )


@pytest.mark.parametrize(
    "content,status",
    [
        (b"", 422),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"customer_id": "\\ud800"}', 422),
        (b"[" * 50_000, 400),
        (b"x" * 10_000_000, 413),
    ],
    ids=["empty", "half", "no UTF-8", "half a character", "deep", "10 MB"],
)
def test_a_body_that_is_no_json_is_refused(service, content, status):
    answer = service.post(
        "/recommend", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status and answer.json()["title"]
    assert service.get("/health/ready").status_code == 200


@pytest.mark.parametrize("who", ["C00001", "Zoë ☀", "a/b", LONG])
def test_any_known_id_is_found(service, who):
    answer = service.post("/recommend", json={"customer_id": who}).json()
    assert answer["known_customer"] and len(answer["recommendations"]) == 10
    assert service.get("/segments/" + quote(who)).json()["rfm_score"] == "543"


@pytest.mark.parametrize("n,lines", [(1, 1), (10, 10), (20, 20), (60, 60), (100, 60)])
def test_a_list_is_as_long_as_asked_or_says_why_not(service, n, lines):
    answer = service.post(
        "/recommend", json={"customer_id": "C00001", "n_recommendations": n}
    ).json()
    assert len({line["product_id"] for line in answer["recommendations"]}) == lines
    assert (lines == n) == ("notes" not in answer)


def test_the_example_of_the_brief(service):
    answer = service.post(
        "/recommend",
        json={"customer_id": "C00001", "last_purchased_product": "P0012", "n_recommendations": 10},
    ).json()
    assert (
        answer["customer_id"] == "C00001"
        and {line["method"] for line in answer["recommendations"]} == {"hybrid"}
        and len(answer["recommendations"]) == 10
    )


def test_somebody_unknown_gets_the_cold_start_list(service):
    answer = service.post("/recommend", json={"customer_id": "nobody"})
    assert (
        answer.status_code == 200
        and not answer.json()["known_customer"]
        and answer.json()["recommendations"][0]["method"] == "popular"
    )
    assert (
        service.get("/segments/nobody").status_code == 404
        and service.get("/products/nothing/similar").status_code == 404
    )


def test_many_customers_at_once(service):
    answer = service.post(
        "/recommend/batch",
        json={"customer_ids": ["C00002", "nobody", "C00001"], "n_recommendations": 2},
    ).json()
    assert [a["customer_id"] for a in answer["answers"]] == ["C00002", "nobody", "C00001"] and {
        a["model_version"] for a in answer["answers"]
    } == {answer["model_version"]}
    assert (
        service.post("/recommend/batch", json={"customer_ids": ["C00001"] * 1001}).status_code
        == 422
    )
    assert (
        len(
            service.post("/recommend/batch", json={"customer_ids": ["C00001"] * 1000}).json()[
                "answers"
            ]
        )
        == 1000
    )


def test_a_wrong_method_names_the_right_one(service):
    answer = service.get("/recommend")
    assert (
        answer.status_code == 405
        and answer.headers["allow"] == "POST"
        and answer.headers["content-type"] == "application/problem+json"
    )


def test_the_pages_for_developers_load_nothing_from_elsewhere(service):
    page = service.get("/docs").text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links and all(
        link.startswith("/") and service.get(link).status_code == 200 for link in links
    )


def test_the_contract_holds_for_generated_requests(patient, tmp_path):
    """schemathesis, every check; API_EXAMPLES of each kind of request, or for FUZZ_SECONDS whole
    sequences of them.
    """
    seconds = os.environ.get("FUZZ_SECONDS")
    some = ["-n", os.environ.get("API_EXAMPLES", "100"), "--seed", os.environ.get("API_SEED", "1")]
    slow = ["--request-timeout", str(PATIENCE), "--suppress-health-check", "too_slow"]
    words = ["fuzz", "--max-time", seconds] if seconds else ["run", *some]
    tool = str(Path(sys.executable).with_name("schemathesis"))
    base, process = patient
    done = subprocess.run(
        [tool, *words, f"{base}/openapi.json", "--checks", "all", "--no-color", *slow],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert process.poll() is None
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_beyond_this_machine_keys_are_needed(serving):
    tool = str(Path(sys.executable).with_name("retail-ci"))
    done = subprocess.run(
        [tool, "serve", "--bundle", str(serving), "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 2 and "needs API keys" in done.stderr and "Traceback" not in done.stderr
    )
    digest = hashlib.sha256(b"open sesame").hexdigest()
    with served(serving, RETAIL_CI_API_KEYS=digest, RETAIL_CI_RATE=ONE_A_DAY) as (base, _):
        assert (
            get(f"{base}/segments").status_code == 401
            and get(f"{base}/health/live").status_code == 200
        )
        statuses = [
            get(f"{base}/segments", headers={"X-API-Key": "open sesame"}).status_code
            for _ in range(3)
        ]
        assert statuses == [200, 429, 429]


def test_a_port_in_use_is_said(serving, service):
    tool = str(Path(sys.executable).with_name("retail-ci"))
    done = subprocess.run(
        [tool, "serve", "--bundle", str(serving), "--port", str(service.base_url.port)],
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 4
        and f"Cannot listen at 127.0.0.1:{service.base_url.port}" in done.stderr
        and "Traceback" not in done.stderr
    )


Seen = list[tuple[int, set]]


async def steady(base: str, rate: int, least: int, during) -> Seen:
    """Ask at a steady rate for as long as something else happens; the status and the versions in
    each answer.
    """
    seen: Seen = []
    limits = httpx2.Limits(max_connections=50, max_keepalive_connections=50)
    waiting = asyncio.Semaphore(500)  # where the machine cannot keep the rate
    async with httpx2.AsyncClient(base_url=base, limits=limits, timeout=None) as client:

        async def one(i: int) -> None:
            try:
                body = {"customer_id": f"C{i % 40 + 1:05d}"}
                answer = await client.post("/recommend", json=body)
            finally:
                waiting.release()
            told = answer.json()
            reasons = {line["reason"] for line in told["recommendations"]}
            seen.append((answer.status_code, {told["model_version"], *reasons}))

        began = time.perf_counter()
        tasks: list[asyncio.Task] = []
        other = asyncio.create_task(during(seen))
        while len(tasks) < least or not other.done():
            await waiting.acquire()
            await asyncio.sleep(max(0, began + len(tasks) / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(one(len(tasks))))
        await asyncio.gather(*tasks, other)
    return seen


async def until(what) -> None:
    """Wait for something beside what else happens."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(what):
            await asyncio.sleep(0.05)


def test_promotions_under_load_lose_nothing_and_mix_nothing(serving, patient):
    """Two promotions and one broken bundle in the middle of a steady load."""
    rate = int(os.environ.get("LOAD_RATE", "200"))
    least = int(rate * float(os.environ.get("LOAD_SECONDS", "8")))

    base, _ = patient

    def health() -> tuple[str, bool]:
        told = get(f"{base}/health").json()
        return told["model_version"], told["refused_bundle"] is not None

    async def during(seen: Seen) -> None:
        await until(lambda: len(seen) >= least / 4)
        await asyncio.to_thread(activate, serving, "v2")
        await until(lambda: sum(versions == {"v2"} for _, versions in seen) >= least / 4)
        with pytest.raises(Exception, match="any_items.bin"):
            await asyncio.to_thread(activate, serving, "v3")
        await asyncio.to_thread(point_at, serving, "v3")  # as if somebody had forced it
        await until(lambda: health() == ("v2", True))
        before = len(seen)
        await until(lambda: len(seen) >= before + least / 4)
        await asyncio.to_thread(activate, serving, "v1")
        await until(lambda: health() == ("v1", False) and seen[-1][1] == {"v1"})

    try:
        seen = asyncio.run(steady(base, rate, least, during))
    finally:
        activate(serving, "v1")
    assert len(seen) >= least and {status for status, _ in seen} == {200}
    assert all(len(versions) == 1 for _, versions in seen)
    assert set().union(*(versions for _, versions in seen)) == {"v1", "v2"}


ONE_A_DAY = "0.00001"  # customers a second: one, and then nobody for as long as a test takes
SENSITIVE = ["P0005", "P0059"]  # in the middle of the lists, and among the best sellers


def discreet_tables() -> dict:
    """A small bundle of which two products and a category are sensitive."""
    made = tables("v1")
    for name in ("lists", "popular", "similar"):
        for table in made["lists"].values() if name == "lists" else [made[name]]:
            kept = table[0] if isinstance(table, list) else table
            column = "similar_id" if name == "similar" else "product_id"
            kept = kept[~kept[column].isin(SENSITIVE)]
            if name == "lists":
                kept = kept.assign(rank=kept.groupby("customer_id").cumcount() + 1)
                table[0] = kept
            else:
                made[name] = kept.reset_index(drop=True)
    rank = range(1, len(made["similar"]) + 1)
    made["similar"] = made["similar"].assign(rank=rank)
    marked = made["products"]["product_id"].isin(SENSITIVE)
    kinds = made["products"]["category"].mask(marked, "intimate care")
    made["products"] = made["products"].assign(category=kinds)
    return made | {"sensitive": SENSITIVE}


def test_no_answer_and_no_line_of_the_log_names_what_is_sensitive(tmp_path):
    write_bundle(tmp_path / "v1", **discreet_tables(), version="v1", depth=20)
    activate(tmp_path, "v1")
    words = [*SENSITIVE, "intimate"]
    log = tmp_path / "log"
    with (
        served(tmp_path, log=log, RETAIL_CI_LOG="json") as (base, _),
        httpx2.Client(base_url=base, timeout=PATIENCE) as client,
    ):
        answers = []
        for version in ("", "/v1"):
            for last in (*SENSITIVE, "P0012", " P0005 "):
                body = {"customer_id": "C00001", "last_purchased_product": last}
                body["n_recommendations"] = 100
                answers.append(client.post(f"{version}/recommend", json=body))
                answers.append(client.get(f"{version}/products/{quote(last)}/similar?n=50"))
                body = {"customer_id": "nobody", "last_purchased_product": last}
                answers.append(client.post(f"{version}/recommend", json=body))
            for kind in ("intimate care", "Intimate Care ", "care"):
                body = {"customer_id": "nobody", "categories": [kind], "exclude": SENSITIVE}
                answers.append(client.post(f"{version}/recommend", json=body))
            body = {"customer_ids": ["C00001", "nobody"], "n_recommendations": 100}
            answers.append(client.post(f"{version}/recommend/batch", json=body))
            answers += [client.get(version + path) for path in ("/segments", "/model")]
        answers += [client.get(path) for path in ("/health", "/metrics", "/openapi.json")]
        told = [
            client.post("/v1/recommend", json={"customer_id": "C00001"} | odd).json()["notes"]
            for odd in (
                *({"last_purchased_product": p} for p in ("P0005", "nothing")),
                *({"categories": [c]} for c in ("intimate care", "nothing")),
            )
        ]
        asked = len(answers) + len(told)
        wait_for(lambda: log.read_text().count('"request_id"') > asked)  # and the readiness
    assert told[0] == told[1] and told[2] == told[3], "a masked one is like an unknown one"
    said = "\n".join(a.text for a in answers) + log.read_text()
    assert not [word for word in words if word.casefold() in said.casefold()]
    assert '"path":"/v1/products/{product_id}/similar"' in log.read_text()
    hidden = [a for a in answers if "P0005" in str(a.url)]
    assert hidden and all(a.status_code == 404 for a in hidden)
    assert "like P0012, which you bought last" in said


def test_an_error_is_logged_without_its_words():
    class Lines(list):
        put = list.append

    lines = Lines()
    said = " ".join(["C00001", "P0005"])  # the log shows lines of code, which hold no data
    try:
        raise ValueError(said)
    except ValueError as error:
        told = (type(error), error, error.__traceback__)
    record = logging.LogRecord("uvicorn", logging.ERROR, "", 0, "in an answer", None, told)
    api._Aside(lines).emit(record)
    (line,) = lines
    assert b"in an answer" in line and b"ValueError" in line and b"test_api.py" in line
    assert said.encode() not in line


def test_what_stays_the_same_is_not_sent_twice_and_keys_change_without_a_restart(tmp_path):
    write_bundle(tmp_path / "v1", **tables("v1"), version="v1", depth=20)
    activate(tmp_path, "v1")
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "shop").write_text(hashlib.sha256(b"one").hexdigest())
    log = tmp_path / "log"
    with served(tmp_path, log=log, RETAIL_CI_API_KEYS=f"@{keys}", RETAIL_CI_LOG="json") as (
        base,
        _,
    ):

        def ask(key: str, path: str = "/v1/segments/C00001", **headers: str) -> httpx2.Response:
            return get(base + path, headers={"Authorization": f"bearer {key}", **headers})

        trace = f"00-{'4bf92f3577b34da6' * 2}-00f067aa0ba902b7-01"
        assert ask("one", traceparent=trace).status_code == 200 and ask("two").status_code == 401
        assert ask("wrong", path="/docs").status_code == 200
        document = ask("wrong", path="/openapi.json").json()
        assert set(document["components"]["securitySchemes"]) == {"key", "bearer"}
        (keys / "till-4").write_text(hashlib.sha256(b"two").hexdigest())
        wait_for(lambda: ask("two").status_code == 200)
        assert ask("one").status_code == 200
        (keys / "shop").unlink()
        wait_for(lambda: ask("one").status_code == 401)
        assert ask("two").status_code == 200
        (keys / "till-4").unlink()
        wait_for(lambda: ask("two").status_code == 401)
        assert get(f"{base}/health/ready", headers={"X-Request-ID": "last"}).status_code == 200
        wait_for(lambda: '"request_id":"last"' in log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines() if line[:1] == "{"]
    assert {line["key"] for line in lines} == {"shop", "till-4", None}
    assert [x["key"] for x in lines if x["trace_id"] == "4bf92f3577b34da6" * 2] == ["shop"]


def test_another_name_for_this_machine_is_not_answered_without_keys(service):
    for host, status in (("elsewhere.example", 421), ("localhost:1", 200), ("[::1]", 200)):
        answer = service.get("/v1/segments", headers={"Host": host})
        assert answer.status_code == status, host
    told = service.get("/v1/segments", headers={"Host": "elsewhere.example"})
    assert told.headers["content-type"] == "application/problem+json"


def test_an_error_repeats_little_of_what_was_sent(service):
    """The name of a field stood in it twice, up to a megabyte each time."""
    for fields in ({"x" * 900_000: 1}, {f"{n}{'☀' * 9_000}": 1 for n in range(18)}):
        for path, who in (("/recommend", "customer_id"), ("/recommend/batch", "customer_ids")):
            told = service.post(f"/v1{path}", json=fields | {who: ["C00001"]})
            assert told.status_code == 422 and len(told.content) < 10_000
            name = next(iter(fields))[:100]
            assert any(e["field"] == f"{name}…" for e in told.json()["errors"])
            assert f"{name}…: Extra inputs are not permitted" in told.json()["detail"]


def test_without_keys_nobody_is_answered_through_a_proxy(serving, service):
    """A proxy on this machine speaks for callers from anywhere, and may set Host to localhost."""
    digest = hashlib.sha256(b"open sesame").hexdigest()
    with served(serving, RETAIL_CI_API_KEYS=digest) as (base, _):
        for name in ("Forwarded", "Via", "X-Forwarded-For", "x-forwarded-host", "X-Real-IP"):
            given = {name: "203.0.113.9"}
            told = service.post("/recommend", json={"customer_id": "C00001"}, headers=given)
            assert told.status_code == 403, name
            assert "came through a proxy. Set RETAIL_CI_API_KEYS" in told.json()["detail"]
            assert service.get("/v1/segments/C00001", headers=given).status_code == 403
            assert service.get("/health/live", headers=given).status_code == 200
            known = given | {"X-API-Key": "open sesame"}
            assert get(f"{base}/v1/segments/C00001", headers=known).status_code == 200


@pytest.mark.parametrize("path", ["/recommend/", "/v1/recommend/", "/v1/model/", "/metrics/"])
def test_a_slash_too_many_redirects_nobody(service, path):
    """A redirection would name http behind a proxy with TLS, and the key would go there."""
    for method in ("GET", "POST", "HEAD"):
        answer = service.request(method, path)
        assert answer.status_code == 404 and "location" not in answer.headers


def test_a_client_made_from_the_document_can_ask_everything(service):
    """The operation ids are names of functions, and each works with the document's own words."""
    document = service.get("/openapi.json").json()
    given = {
        "customer_id": "C00001",
        "product_id": "P0012",
        "recommend": {"customer_id": "C00001"},
        "recommend_batch": {"customer_ids": ["C00001"]},
    }
    names = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = operation["operationId"]
            assert re.fullmatch("[a-z_]+", name) and name not in names
            url = re.sub(r"{(\w+)}", lambda m: given[m[1]], path.replace(":path}", "}"))
            names[name] = service.request(method, url, json=given.get(name)).status_code
    assert set(names.values()) == {200} and {"recommend", "get_segment", "is_ready"} <= set(names)
    assert all(p.startswith(("/v1/", "/health", "/metrics")) for p in document["paths"])


GENERATOR = "lib/python*/site-packages/openapi_generator_cli/openapi-generator.jar"


@pytest.fixture(scope="module")
def generator() -> Path:
    """OpenAPI Generator, which makes clients for callers in any language."""
    found = next((Path(__file__).parents[1] / ".model-reader").glob(GENERATOR), None)
    if found is None or shutil.which("java") is None:
        pytest.skip("OpenAPI Generator or Java is not installed (make model-reader)")
    return found


def test_a_generated_client_asks_everything(serving, generator, tmp_path, monkeypatch):
    """A client that nobody wrote by hand: with the key, in the document's own types."""
    keys = hashlib.sha256(b"sesame").hexdigest()
    with served(serving, RETAIL_CI_API_KEYS=keys) as (base, _):
        (tmp_path / "openapi.json").write_bytes(get(f"{base}/openapi.json").content)
        made = ["generate", "-g", "python", "-i", "openapi.json", "-o", "made"]
        parts = "apis,models,supportingFiles,apiTests=false,modelTests=false,apiDocs=false"
        made += [f"--global-property={parts}", "--additional-properties=packageName=shop_client"]
        java = ["java", "-XX:TieredStopAtLevel=1", "-jar", generator]
        done = subprocess.run([*java, *made], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and "ERROR" not in done.stdout, done.stdout + done.stderr
        monkeypatch.syspath_prepend(tmp_path / "made")
        shop = importlib.import_module("shop_client")
        with shop.ApiClient(shop.Configuration(base, api_key={"key": "sesame"})) as client:
            answers = shop.AnswersApi(client)
            about = shop.ServiceApi(client)
            asked = shop.RecommendRequest(customer_id="C00001", n_recommendations=3)
            lines = answers.recommend(asked).recommendations
            assert [line.product_id for line in lines] == ["P0001", "P0002", "P0003"]
            many = answers.recommend_batch(shop.BatchRequest(customer_ids=["C00001", "C00002"]))
            assert [a.customer_id for a in many.answers] == ["C00001", "C00002"]
            assert answers.get_segment("Zoë ☀").segment == "Champions"
            assert answers.list_segments().segments[0]["segment"] == "Champions"
            assert answers.similar_products("P0012", n=2).similar[0].score == 0.9
            assert about.get_model().card["last_date"] == "2025-12-31"
            assert about.get_health().status == "ok" and about.is_alive() == {"status": "alive"}
            assert about.is_ready() and "retail_ci_model_info" in about.get_metrics()
            with pytest.raises(shop.exceptions.NotFoundException, match="no customer with this id"):
                answers.get_segment("nobody")
        with shop.ApiClient(shop.Configuration(base, api_key={"key": "wrong"})) as client:
            with pytest.raises(shop.exceptions.UnauthorizedException, match="An API key is needed"):
                shop.AnswersApi(client).list_segments()


def test_a_live_question_is_answered_before_a_large_batch(serving, monkeypatch):
    """A thousand customers, a thousand products left out: the question comes after and goes first.
    A slice is one customer here, so that no clock decides.
    """
    monkeypatch.setattr(api, "_SLICE", 0)
    app = api._make_app(Settings(serving, log=False, timeout=PATIENCE))
    app.state.desk.refresh()
    ids = [f"C{i:05d}" for i in range(1, 1001)]
    asked = {
        "customer_ids": ids,
        "exclude": [f"x{i}" for i in range(1000)],
        "n_recommendations": 100,
    }
    order = []

    async def ask(name: str, *request) -> tuple:
        answer = await answer_of(app, *request)
        order.append(name)
        return answer

    async def both() -> list[tuple]:
        body = json.dumps(asked).encode()
        batch = asyncio.create_task(
            ask("batch", "POST", "/v1/recommend/batch", "application/json", body)
        )
        while not app.state.batches.locked() and app.state.batches._value == 2:
            await asyncio.sleep(0)  # until it is being made
        assert not batch.done()
        alive = await ask("live", "GET", "/health/live", "", b"")
        return [await batch, alive]

    (status, headers, body), alive = asyncio.run(both())
    assert order == ["live", "batch"] and status == alive[0] == 200
    assert dict(headers)[b"content-length"] == b"%d" % len(body) and len(body) < 17_000_000
    answer = json.loads(body)
    api.Batch.model_validate(answer)
    assert [a["customer_id"] for a in answer["answers"]] == ids
    assert [a["known_customer"] for a in answer["answers"]] == [True] * 40 + [False] * 960
    assert {len(a["recommendations"]) for a in answer["answers"]} == {60}


def test_a_batch_of_any_valid_size_holds_nobody_up(patient):
    """The largest batches beside the question whether the process lives."""
    ids = [f"C{i % 40 + 1:05d}" for i in range(1000)]
    body = {"customer_ids": ids, "n_recommendations": 100}
    batches = [
        body | {"exclude": [f"X{i:04d}" for i in range(1000)]},
        body | {"exclude_purchased": True, "categories": ["care", "food"]},
        body | {"customer_ids": [f"nobody {i}" for i in range(1000)]},
    ]

    async def beside(base: str, pid: int) -> tuple[list[int], list[float], float]:
        """Statuses, and the processor time of the service: for each question, and for all."""
        waited = []
        async with httpx2.AsyncClient(base_url=base, timeout=PATIENCE) as client:
            await client.get("/health/live")
            start = processor_time(pid)
            many = [
                asyncio.create_task(client.post("/v1/recommend/batch", json=b)) for b in batches
            ]
            while not all(task.done() for task in many):
                began = processor_time(pid)
                await client.get("/health/live")
                waited.append(processor_time(pid) - began)
                await asyncio.sleep(0.002)
            return [(await task).status_code for task in many], waited, processor_time(pid) - start

    base, process = patient
    statuses, waited, whole = asyncio.run(beside(base, process.pid))
    assert statuses == [200] * 3
    assert len(waited) > 5 and np.median(waited) < whole / 8


def processor_time(pid: int) -> float:
    """Seconds that all threads of a process have computed."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(t.read_text().split()[0]) for t in threads) / 1e9


def held_while(step: asyncio.AbstractEventLoop, work) -> float:
    """The longest time for which some work keeps a loop from everything else; in the time that
    this processor takes for a fixed sum, which is about 20 ms on a usual one.
    """
    gaps = [0.0]

    async def tick() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            gaps.append(time.thread_time() - began)

    async def both() -> None:
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0)  # it begins before the work, and goes on after it
        await work()
        await asyncio.sleep(0)
        ticking.cancel()

    paces = [pace()]
    step.run_until_complete(both())
    paces.append(pace())
    return max(gaps) / max(paces)


def pace() -> float:
    """Seconds of the processor for a sum of half a million squares."""
    began = time.thread_time()
    sum(i * i for i in range(500_000))
    return time.thread_time() - began


def least_held(work) -> float:
    """The best of three: what the work costs, and not what else the machine does."""
    loop = asyncio.new_event_loop()
    found = [held_while(loop, work) for _ in range(3)]
    loop.close()
    return min(found)


# About 50 ms, as a multiple of the fixed sum.
SHORT = 2.5


def test_a_batch_computes_in_slices(serving):
    """50 ms of a usual processor is the most that the loop is held."""
    bundle = Bundle(serving / "v1")
    banned = [f"P{i:04d}" for i in range(1, 41)] + [f"X{i}" for i in range(960)]
    who = [f"C{i % 40 + 1:05d}" for i in range(1000)]
    pieces = []

    async def work() -> None:
        lists = recommend_each(bundle, who, 100, False, None, banned)
        pieces[:] = await api._in_slices(lists)

    longest = least_held(work)
    made = json.loads(b"[" + b"".join(pieces) + b"]")
    assert len(made) == 1000 and made[7] == recommend(bundle, who[7], 100, exclude=banned)
    assert len(pieces) > 1 and longest < SHORT


HEAPS = {  # bodies of close to a megabyte, and the largest that are valid
    "a batch": (
        "/v1/recommend/batch",
        {
            "customer_ids": [f"C{i % 40 + 1:05d}" for i in range(1000)],
            "n_recommendations": 100,
            "exclude": [f"{i:0128d}" for i in range(1000)],
            "categories": ["care", "food", *(f"{i:0128d}" for i in range(98))],
        },
        200,
    ),
    "numbers for ids": ("/v1/recommend/batch", {"customer_ids": [1] * 300_000}, 422),
    "ids without letters": ("/v1/recommend/batch", {"customer_ids": [""] * 200_000}, 422),
    "too many ids": ("/v1/recommend/batch", {"customer_ids": ["C00001"] * 90_000}, 422),
    "a thousand wrong ids": ("/v1/recommend/batch", {"customer_ids": [1] * 1000}, 422),
    "fields": ("/v1/recommend", {f"f{i}": i for i in range(60_000)}, 422),
    "lists in lists": ("/v1/recommend", [[[]] * 1000] * 200, 422),
    "an id": ("/v1/recommend", {"customer_id": "x" * 999_900}, 422),
    "what to leave out": ("/v1/recommend", {"customer_id": "x", "exclude": ["x"] * 200_000}, 422),
}


@pytest.mark.parametrize("path,body,status", HEAPS.values(), ids=HEAPS)
def test_no_request_holds_the_loop(serving, path, body, status):
    """50 ms of a usual processor at a time are the most for a valid one, and 100 ms for any."""
    app = api._make_app(Settings(serving, log=False))
    app.state.desk.refresh()
    data = json.dumps(body, separators=(",", ":")).encode()
    assert len(data) <= 1_000_000
    sent = []

    async def receive() -> dict:
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    async def work() -> None:
        headers = [(b"host", b"localhost"), (b"content-length", b"%d" % len(data))]
        await app(
            {
                "type": "http",
                "method": "POST",
                "path": path,
                "query_string": b"",
                "headers": [*headers, (b"content-type", b"application/json")],
                "server": ("127.0.0.1", 80),
                "client": ("127.0.0.1", 1),
                "scheme": "http",
            },
            receive,
            send,
        )

    asyncio.run(app(LIVE, None, send))  # what is only made once
    sent.clear()
    longest = least_held(work)
    assert sent[0]["status"] == status and longest < (SHORT if status == 200 else 2 * SHORT)


LIVE = {
    "type": "http",
    "method": "GET",
    "path": "/health/live",
    "query_string": b"",
    "headers": [(b"host", b"localhost")],
    "server": ("127.0.0.1", 80),
    "scheme": "http",
}


@pytest.mark.parametrize("reader", ["nobody reads", "full disk", "gone"])
def test_a_log_that_cannot_be_written_stops_no_answer(serving, reader):
    """More lines than a pipe holds, and then a stop in good time."""
    if reader == "full disk":
        out = os.open("/dev/full", os.O_WRONLY)
        other = os.dup(out)
    else:
        other, out = os.pipe()
    if reader == "gone":
        os.close(other)
    port = free_port()
    tool = str(Path(sys.executable).with_name("retail-ci"))
    start = [tool, "serve", "--bundle", str(serving), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_LOG, str(out), *start],
        pass_fds=[out],
        env=os.environ | {"RETAIL_CI_LOG": "json"},
    )
    base = f"http://127.0.0.1:{port}"
    try:
        await_ready(base, process)
        with httpx2.Client(base_url=base, timeout=PATIENCE) as client:
            for _ in range(1500):
                answer = client.post("/v1/recommend", json={"customer_id": "C00001"})
                assert answer.status_code == 200

            def told() -> str:
                return " ".join(client.get("/health").json()["troubles"])

            wait_for(told)
            assert "The log is not written" in told()
            metrics = client.get("/metrics").text
        assert "retail_ci_log_lines_dropped_total" in metrics
        process.terminate()
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait(60)
        for end in {out, other} - ({other} if reader == "gone" else set()):
            os.close(end)


# puts the log where it cannot be written once the service has said that it starts
WITH_LOG = """
import os, sys
from retail_ci.serve import api
out = int(sys.argv[1])
usual = api.Outlet.__init__
api.Outlet.__init__ = lambda self, fd, *rest: usual(self, out if fd == 1 else fd, *rest)
from retail_ci.cli import main
sys.argv = sys.argv[2:]
main()
"""


def test_the_watcher_survives_whatever_is_raised(serving, tmp_path):
    class Ill(api.KeyRing):
        def refresh(self) -> None:
            raise RuntimeError("nobody knows why")

    watcher = api.Watcher(api.BundleHolder(serving), Ill(Settings(tmp_path)))

    async def look() -> None:
        watching = asyncio.create_task(watcher.watch(0.01))
        await until(lambda: watcher.trouble and watcher.desk.bundle)
        watching.cancel()

    asyncio.run(look())
    assert "cannot be looked for at present: RuntimeError." in watcher.trouble
    assert watcher.desk.bundle.version == "v1", "bundles are looked for all the same"


def broken_shop(folder: Path) -> api.BundleHolder:
    """A desk with the bundle v1, beside which the link names v2, which is broken."""
    for name in ("v1", "v2"):
        write_bundle(folder / name, **tables(name), version=name, depth=20)
    activate(folder, "v1")
    desk = api.BundleHolder(folder)
    assert desk.refresh()
    with (folder / "v2/any_items.bin").open("r+b") as file:
        file.write(b"\xff")
    point_at(folder, "v2")
    assert not desk.refresh() and "any_items.bin" in desk.refused
    return desk


@pytest.mark.parametrize("newest", ["broken", "gone"])
def test_who_is_forgotten_leaves_the_answers_while_no_newer_bundle_is_taken(tmp_path, newest):
    desk = broken_shop(tmp_path)
    if newest == "gone":
        shutil.rmtree(tmp_path / "v2")
    assert segment_of(desk.bundle, "C00001") and segment_of(desk.bundle, "C00002")
    add_forgotten(tmp_path, ["C00001"])
    assert not desk.refresh() and desk.bundle.version == "v1"
    assert segment_of(desk.bundle, "C00001") is None and segment_of(desk.bundle, "C00002")
    assert not recommend(desk.bundle, "C00001")["known_customer"]
    (tmp_path / FORGOTTEN).write_text("{")
    desk.refresh()
    assert segment_of(desk.bundle, "C00001") is None, "a damaged list brings nobody back"


def test_a_bundle_that_fails_as_nobody_foresaw_is_refused_for_good(tmp_path, monkeypatch):
    """The reason stays in `/health`, and the bundle is counted once."""
    desk = broken_shop(tmp_path)

    def fail(bundle: Bundle) -> None:
        raise AttributeError("C00001 and P0005")

    monkeypatch.setattr(api, "self_test", fail)
    write_bundle(tmp_path / "v4", **tables("v4"), version="v4", depth=20)
    point_at(tmp_path, "v4")
    for _ in range(2):
        assert not desk.refresh() and desk.bundle.version == "v1"
        assert desk.refused == "The bundle v4 cannot be opened: AttributeError."
    assert desk.refusals == 2, "v2 and v4"


def test_metrics_keep_to_the_conventions(service):
    """What promtool's check asks: a word of help for each, counters that end in _total, base
    units, no type in a name.
    """
    service.get("/v1/segments")
    text = service.get("/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.M))
    kinds = {name: kind for name, kind in kinds.items() if not name.endswith("_created")}
    helped = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.M))
    assert kinds and set(kinds) <= set(helped)
    for name, kind in kinds.items():
        assert re.fullmatch("retail_ci_[a-z_]+", name), name
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search("_(counter|gauge|histogram|ms|milliseconds|minutes)(_|$)", name)
    assert 'retail_ci_model_info{version="v1"} 1.0' in text
    end = float(re.search(r"^retail_ci_data_until_timestamp_seconds (\S+)$", text, re.M)[1])
    assert end == pd.Timestamp("2026-01-01", tz="UTC").timestamp()
    wanted = {"requests_total", "request_duration_seconds", "bundles_refused_total"}
    assert {f"retail_ci_{n}" for n in wanted | {"log_lines_dropped_total"}} <= set(kinds)


def test_the_help_names_every_variable_that_is_read():
    read = set(re.findall(r'get\("([A-Z_]+)"', inspect.getsource(Settings)))
    assert {f"RETAIL_CI_{name}" for name in read} == set(VARIABLES)
    tool = str(Path(sys.executable).with_name("retail-ci"))
    told = subprocess.run([tool, "serve", "--help"], capture_output=True, text=True).stdout
    assert all(name in told for name in VARIABLES)


def test_a_batch_counts_its_customers(serving):
    digest = hashlib.sha256(b"open sesame").hexdigest()
    limit = {"RETAIL_CI_API_KEYS": digest, "RETAIL_CI_RATE": "1"}
    with served(serving, RETAIL_CI_TIMEOUT=str(PATIENCE), **limit) as (base, _):
        head = {"X-API-Key": "open sesame"}
        with httpx2.Client(base_url=base, headers=head, timeout=PATIENCE) as client:
            body = {"customer_ids": ["C00001"] * 1000}
            began = time.monotonic()
            assert client.post("/v1/recommend/batch", json=body).status_code == 200
            told = client.get("/v1/segments")
            passed = time.monotonic() - began
    # two customers may come at once, so that 998 are still to be waited for, and one more
    assert told.status_code == 429 and 999 - passed <= int(told.headers["retry-after"]) <= 1000


def test_a_file_cut_off_under_a_running_service_changes_no_answer(tmp_path):
    write_bundle(tmp_path / "v1", **tables("v1"), version="v1", depth=20)
    activate(tmp_path, "v1")
    with (
        served(tmp_path) as (base, process),
        httpx2.Client(base_url=base, timeout=PATIENCE) as client,
    ):
        before = client.post("/v1/recommend", json={"customer_id": "C00001"}).json()
        for file in sorted((tmp_path / "v1").glob("*.bin")):
            os.truncate(file, 1)
        wait_for(lambda: client.get("/health").json()["status"] == "damaged")
        for who in ("C00001", "C00040"):
            answer = client.post("/v1/recommend", json={"customer_id": who})
            assert answer.status_code == 200
        assert client.post("/v1/recommend", json={"customer_id": "C00001"}).json() == before
        assert process.poll() is None


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_lets_running_requests_finish(serving, workers):
    wait = {"RETAIL_CI_TIMEOUT": str(PATIENCE)}
    with served(serving, "--workers", str(workers), **wait) as (base, process):
        those = [process.pid] if workers == 1 else wait_for(lambda: children(process.pid, workers))
        wait_for(lambda: all(listens(pid, base) for pid in those))
        connection, rest = request_in_two(base, b'{"customer_id": "C00001"}')
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not any(listens(pid, base) for pid in those))
        assert process.poll() is None, "a request is under way"
        connection.sendall(rest)
        told = whole_answer(connection)
        assert told.startswith(b"HTTP/1.1 200") and b'"known_customer":true' in told
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)


def children(pid: int, many: int) -> list[int]:
    """The processes that one has started, once there are so many."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found] if len(found) == many else []


def test_a_body_that_does_not_arrive_is_a_408(serving):
    with served(serving, RETAIL_CI_TIMEOUT="1") as (base, _):

        def slow() -> bytes:
            """What came; nothing where a busy machine took a second to send the head."""
            with contextlib.suppress(ConnectionError):
                connection, _ = request_in_two(base, b'{"customer_id": "C00001"}')
                with connection:
                    return whole_answer(connection)
            return b""

        told = wait_for(slow)
    assert told.startswith(b"HTTP/1.1 408") and b"application/problem+json" in told
    assert b"longer than 1 seconds" in told


def test_logs_and_other_sites(serving, tmp_path):
    """The log is JSON without personal data; no other site may ask."""
    log = tmp_path / "log"
    with served(serving, log=log, RETAIL_CI_LOG="json") as (base, _):
        known = post(
            f"{base}/recommend",
            json={"customer_id": "C00001"},
            headers={"X-Request-ID": "till-7", "Origin": "https://elsewhere.example"},
        )
        odd = get(f"{base}/segments", headers={"X-Request-ID": 'a b"c'})
        ask = httpx2.request(
            "OPTIONS",
            f"{base}/recommend",
            headers={
                "Origin": "https://elsewhere.example",
                "Access-Control-Request-Method": "POST",
                "X-Request-ID": "last",
            },
            timeout=PATIENCE,
        )
        wait_for(lambda: '"request_id":"last"' in log.read_text())
        text = log.read_text()
    assert known.headers["x-request-id"] == "till-7"
    assert re.fullmatch("[0-9a-f]{16}", odd.headers["x-request-id"])
    assert ask.status_code == 405
    heads = (*known.headers, *ask.headers)
    assert not [h for h in heads if h.startswith("access-control")]
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    (mine,) = [line for line in lines if line["request_id"] == "till-7"]
    parts = {"time", "request_id", "trace_id", "key", "method", "path", "status", "ms"}
    assert set(mine) == parts and (mine["path"], mine["status"]) == ("/v1/recommend", 200)
    assert "C00001" not in text and "127.0.0.1" not in json.dumps(lines), (
        "neither what was sent nor who sent it"
    )


def test_keys_in_a_file(tmp_path):
    (tmp_path / "keys").write_text(
        f"# of the shop\n{hashlib.sha256(b'one').hexdigest()}  "
        f"-\n{hashlib.sha256(b'two').hexdigest().upper()} # the till\n\n"
    )
    one = hashlib.sha256(b"one").hexdigest()
    assert read_keys(f"@{tmp_path / 'keys'}") == {
        one: one[:8],
        hashlib.sha256(b"two").hexdigest(): "the-till",
    }
    (tmp_path / "none").write_text("# nothing yet\n")
    with pytest.raises(Exception, match="There is no key in"):
        Settings.from_environment({"RETAIL_CI_API_KEYS": f"@{tmp_path / 'none'}"})


def test_an_unknown_product_is_ignored_and_said(service):
    answer = service.post(
        "/recommend", json={"customer_id": "C00001", "last_purchased_product": "P9999"}
    )
    assert answer.status_code == 200 and answer.json()["notes"] == [
        "The last_purchased_product is unknown; it was ignored."
    ]
    assert (
        answer.json()["recommendations"]
        == service.post("/recommend", json={"customer_id": "C00001"}).json()["recommendations"]
    )


DAMAGE = {  # what is wrong with a bundle: the words that say so
    "a flipped byte": "The file any_items.bin of the bundle bad does not match the manifest",
    "a missing file": "The bundle bad lacks the file any_scores.bin",
    "from a newer version": (
        "The bundle bad has format 99, and this version reads up to 2. Install a newer "
        "retail_ci, or roll back"
    ),
    "from another data set": "was made from the data set 'a shop elsewhere'",
    "no manifest": "is not a serving bundle",
    "half a manifest": "The manifest of the bundle bad is damaged",
}


def damaged(folder: Path, what: str) -> Path:
    """A bundle with something wrong."""
    write_bundle(
        folder / "bad",
        **tables("bad")
        | {
            "card": {
                "last_date": "2025-12-31",
                "name": "a shop elsewhere" if what == "from another data set" else "my shop",
            }
        },
        version="bad",
        depth=20,
    )
    manifest = folder / "bad" / "manifest.json"
    if what == "a flipped byte":
        with (folder / "bad" / "any_items.bin").open("r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 1]))
    elif what == "a missing file":
        (folder / "bad" / "any_scores.bin").unlink()
    elif what == "from a newer version":
        seal(folder / "bad", json.loads(manifest.read_text()) | {"format": 99})
    elif what == "no manifest":
        manifest.unlink()
    elif what == "half a manifest":
        manifest.write_bytes(manifest.read_bytes()[:100])
    return folder / "bad"


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_bundle_starts_no_service(what, tmp_path, capsys, monkeypatch):
    damaged(tmp_path / "runs/my shop/serving", what)
    point_at(tmp_path / "runs/my shop/serving", "bad")
    for folder in ("configs", "nbs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "configs/mine.yaml").write_text("name: myshop")
    (tmp_path / "runs/my shop").rename(tmp_path / "runs/myshop")
    monkeypatch.chdir(tmp_path)
    if what == "from another data set":
        assert answer(serve, config="mine", port=free_port()) == 4
    else:
        assert answer(serve, bundle=str(tmp_path / "runs/myshop/serving"), port=free_port()) == 4
    said = capsys.readouterr().err
    assert DAMAGE[what] in said and said.count("\n") == 1


def test_a_running_service_keeps_what_it_has(tmp_path):
    write_bundle(
        tmp_path / "v1",
        **tables("v1") | {"card": {"last_date": "2025-12-31", "name": "my shop"}},
        version="v1",
        depth=20,
    )
    activate(tmp_path, "v1")
    with served(tmp_path) as (base, _):
        for what, words in DAMAGE.items():
            damaged(tmp_path, what)
            if what != "no manifest":
                with pytest.raises(Exception, match=re.escape(words)):
                    activate(tmp_path, "bad")
            assert (tmp_path / "current").resolve().name != "bad", "a promotion refuses it"
            point_at(tmp_path, "bad")  # as if somebody had forced it
            health = wait_for(lambda: (h := get(f"{base}/health").json())["refused_bundle"] and h)
            assert (
                words in health["refused_bundle"]
                and health["model_version"] == "v1"
                and health["status"] == "ok"
            )
            assert (
                post(f"{base}/recommend", json={"customer_id": "C00001"}).json()["model_version"]
                == "v1"
            )
            assert rollback(tmp_path) == "v1", "as the sentence says"
            wait_for(lambda: get(f"{base}/health").json()["refused_bundle"] is None)
            shutil.rmtree(tmp_path / "bad")


def test_the_lines_for_a_terminal_work(serving, service, tmp_path):
    """Every curl line of the API's page; sent by curl where it is installed, and otherwise as it
    says.
    """
    page = json.loads((Path(__file__).parents[1] / "nbs/07_api.ipynb").read_text(encoding="utf-8"))
    lines = re.findall(
        r"^curl .*$",
        "\n".join("".join(c["source"]) for c in page["cells"] if c["cell_type"] == "markdown"),
        re.M,
    )
    assert len(lines) >= 10
    for line in lines:
        words = shlex.split(
            line.replace("http://127.0.0.1:8000", str(service.base_url).rstrip("/"))
        )
        if shutil.which("curl"):
            text, status = subprocess.run(
                [*words, "-w", "\n%{http_code}"], capture_output=True, text=True, timeout=PATIENCE
            ).stdout.rsplit("\n", 1)
        else:
            url = next(w for w in words if w.startswith("http"))
            data = words[words.index("-d") + 1] if "-d" in words else None
            sent = httpx2.request(
                "POST" if data else "GET",
                url,
                content=data,
                headers={"Content-Type": "application/json"} if data else {},
            )
            text = sent.text
            status = sent.status_code
        assert int(status) == 200 and text, f"{line}: {status} {text[:200]}"


def test_the_containerfile_names_what_exists(service, monkeypatch):
    """It cannot be built in a test; but all that it copies, installs, sets and calls must be
    there.
    """
    root = Path(__file__).parents[1]
    text = (root / "Containerfile").read_text().replace("\\\n", " ")
    steps = [
        line.split(None, 1)
        for line in text.splitlines()
        if line.strip() and not line.startswith("#")
    ]

    def said(word):
        return [rest for name, rest in steps if name == word]

    ignored = [
        line
        for line in (root / ".containerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    for copy in said("COPY"):
        if not copy.startswith("--from"):
            assert all(
                (root / source).exists() and source not in ignored for source in copy.split()[:-1]
            ), copy
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(root / "settings.ini")
    installs = [step for run in said("RUN") for step in run.split("&&") if "pip install" in step]
    assert any("--requirement /wheels/serve.txt" in step for step in installs)
    assert any("--no-deps /wheels/*.whl" in step for step in installs)
    assert all(re.search(r"--requirement|--no-deps|--constraint", step) for step in installs)
    least = tuple(map(int, settings["DEFAULT"]["min_python"].split(".")))
    first, *others = said("FROM")
    image = re.fullmatch(r"\S+/python:(\d+)\.(\d+)\.\d+-slim\S*@sha256:[0-9a-f]{64} AS base", first)
    assert image and tuple(map(int, image.groups())) >= least
    assert others and all(rest.split()[0] == "base" for rest in others)
    names = set(re.findall(r"\bRETAIL_CI_\w+", text))
    assert names and all(name in (root / "retail_ci/serve/api.py").read_text() for name in names), (
        names
    )
    assert (
        said("USER")[0].isdigit() and said("USER")[0] != "0" and said("STOPSIGNAL") == ["SIGTERM"]
    )
    command = json.loads(said("ENTRYPOINT")[0])
    assert (
        command[:2] == ["retail-ci", "serve"]
        and "0.0.0.0" in command
        and {w.strip("-") for w in command if w.startswith("--")} <= set(serve.__annotations__)
    )
    (check,) = json.loads(re.search(r"CMD (\[.*\])", said("HEALTHCHECK")[0])[1])
    made = shlex.split(next(run for run in said("RUN") if run.startswith("printf")))
    assert made[-1] == f"/usr/local/bin/{check}" and "755" in made
    assert f'health-cmd="{check}"' in said("LABEL")[0] and f"--health-cmd {check}" in text
    code = "\n".join(made[2 : made.index(">")])
    assert any(path in code for path in PUBLIC_PATHS)
    code = code.replace("127.0.0.1:8000", f"127.0.0.1:{service.base_url.port}")
    code = re.sub(r"timeout=\d+", f"timeout={PATIENCE}", code)
    assert (
        subprocess.run([sys.executable, "-c", code], timeout=PATIENCE).returncode == 0
        and subprocess.run(
            [sys.executable, "-c", code.replace("/health/ready", "/segments/nobody")],
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
        ).returncode
    )
    assert (
        Settings.from_environment(
            {"RETAIL_CI_SERVING": "/serving", "RETAIL_CI_LOG": "json"}
        ).serving
        == Path("/serving")
        and api.PUBLIC_PATHS
    )


def test_the_recipes_name_what_exists():
    """Options, variables, probes, ports and mounted places of systemd, Kubernetes and nginx."""
    folder = Path(__file__).parents[1] / "examples/deploy"
    unit = (folder / "retail-ci.service").read_text()
    (start,) = re.findall("^ExecStart=(.*)$", unit, re.M)
    used = {w.strip("-") for w in start.split() if w.startswith("--")}
    assert used and used <= set(serve.__annotations__)
    port = start.split()[start.split().index("--port") + 1]
    assert f"server 127.0.0.1:{port};" in (folder / "nginx.conf").read_text()
    deployment, door, _ = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    (box,) = pod["containers"]
    given = {e["name"]: e["value"] for e in box["env"]}
    assert set(given) <= set(VARIABLES)
    assert set(re.findall(r"Environment=(RETAIL_CI_\w+)", unit)) <= set(VARIABLES)
    assert {w.strip("-") for w in box["args"] if w.startswith("--")} <= set(serve.__annotations__)
    probes = [box[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert all(p["path"] in PUBLIC_PATHS and p["port"] == "http" for p in probes)
    assert door["spec"]["ports"][0]["targetPort"] == box["ports"][0]["name"] == "http"
    mounted = {m["mountPath"]: m["name"] for m in box["volumeMounts"]}
    assert {given["RETAIL_CI_SERVING"], given["RETAIL_CI_API_KEYS"][1:]} <= set(mounted)
    assert set(mounted.values()) == {v["name"] for v in pod["volumes"]}
    assert all(m.get("readOnly") for m in box["volumeMounts"] if m["name"] != "tmp")
    assert "Environment=RETAIL_CI_API_KEYS=@/" in unit, "keys that are read again when they change"
    assert "ProtectSystem=strict" in unit and "limit_conn " in (folder / "nginx.conf").read_text()
    image = (folder.parents[1] / "Containerfile").read_text()
    assert "/serving:ro" in image and "/run/keys:ro" in image


def test_the_recipes_proxy_logs_no_customer():
    """An address such as /v1/segments/C00001 names one."""
    text = (Path(__file__).parents[1] / "examples/deploy/nginx.conf").read_text()
    (words,) = re.findall(r"^log_format retail_ci '(.*)';$", text, re.M)
    assert "$status" in words and not re.search(r"\$(request(?!_\w)|request_uri|uri|args)", words)
    assert re.findall(r"^ *access_log (.*);", text, re.M) == [
        "/var/log/nginx/retail_ci.log retail_ci"
    ]
    assert re.search("^ *error_log .* crit;", text, re.M)


def test_the_threat_model_names_tests_that_exist():
    """Each row can be checked, so each test that it names must be there."""
    root = Path(__file__).parents[1]
    page = (root / "nbs/07a_threat_model.ipynb").read_text(encoding="utf-8")
    tests = "".join(p.read_text(encoding="utf-8") for p in (root / "tests").glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 8 and not [name for name in named if f"def {name}(" not in tests]
    assert all((root / file).exists() for file in re.findall(r"`(tests/\w+\.py)`", page))


def test_several_workers_count_together_and_one_that_dies_is_replaced(serving):
    with served(serving, "--workers", "2") as (base, process):
        before = wait_for(lambda: children(process.pid, 2))
        for _ in range(20):
            assert get(f"{base}/segments").status_code == 200
        line = next(
            x
            for x in get(f"{base}/metrics").text.splitlines()
            if x.startswith('retail_ci_requests_total{route="/v1/segments"')
        )
        assert float(line.split()[-1]) == 20
        os.kill(min(before), signal.SIGKILL)
        now = wait_for(lambda: (c := children(process.pid, 2)) and set(c) != set(before) and c)
        assert len({*now} - {*before}) == 1
        for _ in range(20):
            assert get(f"{base}/segments/C00001").status_code == 200
        process.terminate()
        assert process.wait(PATIENCE) == 0 and not any(alive(p) for p in (*before, *now))


def test_several_workers_have_one_limit_for_a_key(serving):
    digest = hashlib.sha256(b"open sesame").hexdigest()
    limit = {"RETAIL_CI_API_KEYS": digest, "RETAIL_CI_RATE": ONE_A_DAY}
    with served(serving, "--workers", "2", **limit) as (base, _):
        head = {"X-API-Key": "open sesame"}
        links = [httpx2.Client(base_url=base, headers=head, timeout=PATIENCE) for _ in range(8)]
        statuses = [link.get("/segments").status_code for _ in range(10) for link in links]
        for link in links:
            link.close()
    assert statuses == [200] + [429] * 79


JSON = "application/json"
ODD = [  # content type and body of requests for a list that are usual, nearly so, or not at all
    *((JSON, json.dumps(body).encode()) for _, body, _ in BAD),
    *((JSON, json.dumps({"customer_id": who}).encode()) for who in ("C00001", "Zoë ☀", "nobody")),
    (JSON, b'{"customer_id": "C00001", "n_recommendations": 3.0, "exclude_purchased": true}'),
    (JSON, b'{"customer_id": "C00001", "n_recommendations": 1e400}'),
    (JSON, b'{"customer_id": "C00001", "n_recommendations": NaN}'),
    (JSON, b'{"customer_id": "C00001", "n_recommendations": 99999999999999999999999}'),
    (JSON, b'{"customer_id": "C00002", "customer_id": "C00001", "n_recommendations": 2}'),
    (JSON, b'{"customer_id": "\\ud800"}'),
    (JSON, b'{"customer_id": "a\tb"}'),
    (JSON, '{"customer_id": "C00001"}'.encode("utf-16")),
    (JSON, b"\xef\xbb\xbf" + b'{"customer_id": "C00001"}'),
    (JSON, b'{"customer_id": "C00001", "last_purchased_product": "P0012"}' + b" " * 5000),
    (JSON, b'{"customer_id": "C00001", "last_purchased_product": null, "categories": ["care"]}'),
    (JSON, b""),
    (JSON, b"[" * 900 + b"]" * 900),
    ("application/json; charset=latin-1", b'{"customer_id": "C00001"}'),
    ("application/merge-patch+json", b'{"customer_id": "C00001"}'),
    ("Application/JSON", b'{"customer_id": "C00001"}'),
    ("text/plain", b'{"customer_id": "C00001"}'),
    ("", b'{"customer_id": "C00001"}'),
]


def test_the_short_way_answers_as_the_long_one(serving, monkeypatch):
    """The same status, headers and bytes, whatever is asked."""
    paths = ["C00001", "nobody", "Zoë ☀", "a/b", "x" * 129, " ", "\udcff", "C00001/", ""]
    asked = [("POST", "/v1/recommend", kind, body) for kind, body in ODD]
    asked += [("GET", f"/v1/segments/{path}", "", b"") for path in paths]
    found = []
    for ways in (api._SHORT_WAYS, {}):
        monkeypatch.setattr(api, "_SHORT_WAYS", ways)
        app = api._make_app(Settings(serving, log=False))
        app.state.desk.refresh()
        found.append([asyncio.run(answer_of(app, *ask)) for ask in asked])
    for ask, short, long in zip(asked, *found):
        assert short == long, ask
    assert {status for status, _, _ in found[0]} == {200, 400, 404, 422}


async def answer_of(app, method: str, path: str, kind: str, body: bytes) -> tuple:
    """Status, headers and body, without the server around the app."""
    sent = []

    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"x-request-id", b"till-7")]
    headers += [(b"content-type", kind.encode())] * bool(kind)
    headers += [(b"content-length", b"%d" % len(body))] * (method == "POST")
    await app({**LIVE, "method": method, "path": path, "headers": headers}, receive, send)
    start, *parts = sent
    return start["status"], start["headers"], b"".join(part.get("body", b"") for part in parts)


def test_an_answer_that_is_on_its_way_is_not_answered_again(tmp_path):
    """What takes too long before its first byte is a 408; after it, nothing is mixed in."""

    def sent(begins: bool) -> list[int]:
        out = []

        async def page(scope, receive, send) -> None:
            if begins:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(30)

        async def send(message) -> None:
            out.append(message.get("status"))

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/docs",
            "headers": [],
            "server": ("127.0.0.1", 80),
        }
        asyncio.run(
            api.Gateway(page, Settings(tmp_path, timeout=0.2, log=False), api.Counts())(
                scope, None, send
            )
        )
        return out

    assert sent(True) == [200] and sent(False) == [408, None]


def test_a_service_starts_without_what_only_training_needs(serving):
    words = (
        "import sys, pathlib, retail_ci.serve.api as api\n"
        f"assert api.BundleHolder(pathlib.Path({str(serving)!r})).refresh()\n"
    )
    words += (
        "heavy = {'numpy', 'pandas', 'scipy', 'sklearn', 'matplotlib', 'mlflow', 'pyarrow', "
        "'ibis'} & set(sys.modules)\nassert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", words], timeout=PATIENCE).returncode == 0
