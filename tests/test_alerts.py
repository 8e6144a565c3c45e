"""What Prometheus makes of the service's counts and of the alerts in examples/deploy, in the words
of its own tool: each alert fires where it should, and not where all is well.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import PATIENCE
from small_service import get, post, served, tables

from retail_ci.serve.bundle import activate, write_bundle

ALERTS = Path(__file__).parents[1] / "examples/deploy/alerts.yaml"
ME = 'job="retail-ci",instance="a"'
DAY = 86_400
# series: their values from minute to minute, as the service tells them when all is well
WELL = {
    f"up{{{ME}}}": "1x130",
    f'retail_ci_model_info{{{ME},version="v1"}}': "1x130",
    f"retail_ci_bundles_refused_total{{{ME}}}": "3x130",
    f"retail_ci_bundle_damaged{{{ME}}}": "0x130",
    f"retail_ci_log_lines_dropped_total{{{ME}}}": "5x130",
    f"retail_ci_bookings_failed_total{{{ME}}}": "0x130",
    f"retail_ci_data_until_timestamp_seconds{{{ME}}}": f"-{DAY}x130",
    f'retail_ci_requests_total{{{ME},route="/v1/recommend",status="200"}}': "0+6000x130",
    f'retail_ci_requests_total{{{ME},route="/v1/recommend",status="503"}}': "0+6x130",
    **{
        f'retail_ci_request_duration_seconds_bucket{{{ME},route="/v1/recommend",le="{le}"}}': (
            f"0+{count}x130"
        )
        for le, count in (("0.01", 5990), ("0.1", 6000), ("1.0", 6000), ("+Inf", 6000))
    },
}
ILL = {  # alert: what is different from when all is well; None for what is not told
    "RetailCiDown": {f"up{{{ME}}}": "0x130"},
    "RetailCiNotReady": {f'retail_ci_model_info{{{ME},version="v1"}}': None},
    "RetailCiBundleRefused": {f"retail_ci_bundles_refused_total{{{ME}}}": "0x120 1x10"},
    "RetailCiBundleDamaged": {f"retail_ci_bundle_damaged{{{ME}}}": "0x120 1x10"},
    "RetailCiModelsDiffer": {
        'retail_ci_model_info{job="retail-ci",instance="b",version="v2"}': "1x130"
    },
    "RetailCiBooksLost": {f"retail_ci_log_lines_dropped_total{{{ME}}}": "0x120 1+9x10"},
    "RetailCiDataStale": {
        f"retail_ci_data_until_timestamp_seconds{{{ME}}}": f"-{14 * DAY + 60}x130"
    },
    "RetailCiErrors": {
        f'retail_ci_requests_total{{{ME},route="/v1/recommend",status="503"}}': "0+120x130"
    },
    "RetailCiSlow": {
        f'retail_ci_request_duration_seconds_bucket{{{ME},route="/v1/recommend",le="{le}"}}': (
            f"0+{count}x130"
        )
        for le, count in (("0.01", 5000), ("0.1", 5900), ("1.0", 6000))
    },
}


@pytest.fixture(scope="module")
def promtool():
    """Prometheus's own tool: what it says, and whether it is content."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")

    def call(*words: str | Path, text: str = "") -> str:
        done = subprocess.run(
            [tool, *words], input=text, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


@pytest.fixture(scope="module")
def counts(tmp_path_factory) -> str:
    """What a service tells after a few requests; of two workers, which count together."""
    serving = tmp_path_factory.mktemp("serving")
    write_bundle(serving / "v1", **tables("v1"), version="v1", depth=20)
    activate(serving, "v1")
    with served(serving, "--workers", "2") as (base, _):
        post(f"{base}/v1/recommend", json={"customer_id": "C00001"})
        get(f"{base}/v1/segments/nobody")
        return get(f"{base}/metrics").text


def test_promtool_has_nothing_against_the_counts(promtool, counts):
    assert 'status="404"' in counts and promtool("check", "metrics", text=counts).strip() == ""


def test_the_alerts_are_valid_and_ask_for_what_the_service_tells(promtool, counts):
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", ALERTS)
    asked = set(re.findall(r"retail_ci_[a-z_]+", " ".join(rule["expr"] for rule in rules)))
    told = set(re.findall(r"^(retail_ci_[a-z_]+)[ {]", counts, re.M))
    assert len(asked) == 8 and asked <= told
    assert {rule["alert"] for rule in rules} == set(ILL)


@pytest.mark.parametrize("alert", [None, *ILL])
def test_an_alert_fires_where_it_should_and_alone(promtool, tmp_path, alert):
    given = {k: v for k, v in (WELL | ILL.get(alert, {})).items() if v is not None}
    fires = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else []
    asked = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": "125m",
        "exp_samples": fires,
    }
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [asked],
    }
    tests = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "case.yaml").write_text(json.dumps(tests))
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "case.yaml")
