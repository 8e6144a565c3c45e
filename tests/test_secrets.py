"""Passwords and keys do not leave: whatever form they have, and whichever way a text goes. The mask
looks at each sign a bounded number of times, whatever the signs are.
"""

import logging
import os
import random
import time

import pytest
import yaml

from retail_ci.cli import answer, check
from retail_ci.core.config import load_config
from retail_ci.core.errors import (
    ConfigError,
    RunError,
    one_line,
    shown,
    translating,
    without_secrets,
)
from retail_ci.serve import api

SECRET = "hunter2"
FORMS = {
    "login": "postgresql://ann:hunter2@host/shop",
    "blank in a login": "postgresql://ann:the hunter2@host/shop",
    "an @ and a blank in a login": "postgresql://ann:a@b the hunter2@host/shop",
    "an address and a blank in a login": "postgresql://ann:a@b:1/c hunter2@host/shop",
    "signs in a login": "postgresql://ann:a/b@hunter2#?@host/shop",
    "token for a login": "https://hunter2@host/shop",
    "Oracle": "jdbc:oracle:thin:ann/hunter2@//host:1521/shop",
    "SQL Server": "jdbc:sqlserver://host;user=ann;password=hunter2;encrypt=true",
    "ODBC": "DRIVER={SQL};PWD={a;hunter2};SERVER=host",
    "query": "postgresql://host/shop?user=ann&password=hunter2",
    "signature": "https://host/shop?sv=1&sig=hunter2",
    "quoted": "password='the, hunter2' of ann",
    "marks within": "password=a\"b'hunter2",
    "blank": "password=the hunter2",
    "YAML": "password: hunter2",
    "JSON": '{"password": "the \\"hunter2\\"", "user": "ann"}',
    "JSON in JSON": '{\\"password\\": \\"hunter2\\"}',
    "list": '{"secrets": ["a", "hunter2"]}',
    "header": "Authorization: Bearer hunter2",
    "bearer": "Bearer hunter2",
    "environment": "PGPASSWORD=hunter2 psql",
    "cloud": "AWS_SECRET_ACCESS_KEY=a/hunter2+b",
    "option": "--password hunter2",
    "Python": "Settings(user='ann', api_key=SecretStr('hunter2'))",
    "SQL": "CREATE SECRET (TYPE s3, KEY_ID 'ann', SECRET 'hunter2')",
    "XML": "<password>the hunter2</password>",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_no_message_holds_a_secret(text, tmp_path, monkeypatch, capsys):
    around = (text, f"The source '{text}' is wrong.", f"cannot connect ({text}): refused")
    for said in around:
        assert SECRET not in without_secrets(said), said
        assert SECRET not in shown(said) + shown([said]) + shown({"a": said}) + one_line(said, 20)
        with pytest.raises(RunError) as caught, translating(RunError, "It cannot be read"):
            raise ValueError(said)
        assert SECRET not in str(caught.value) and "It cannot be read" in str(caught.value)
    monkeypatch.chdir(tmp_path)
    assert answer(check, source=text) in (2, 3)
    assert SECRET not in "".join(capsys.readouterr())
    assert not any(SECRET in p.read_text() for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_the_log_of_the_service_holds_no_secret(text):
    reader, writer = os.pipe()
    outlet = api.Outlet(writer)
    record = logging.LogRecord("uvicorn", logging.ERROR, "", 1, "failed: %s", (text,), None)
    api._Aside(outlet).emit(record)
    outlet.close(600)
    os.close(writer)
    with os.fdopen(reader) as said:
        line = said.read()
    assert line.startswith("ERROR: failed: ") and SECRET not in line


@pytest.mark.parametrize("name", ["login", "blank in a login", "token for a login", "query"])
def test_a_config_that_holds_a_secret_is_refused_so_no_run_keeps_it(name, tmp_path):
    """Neither manifest nor MLflow nor a page can show what no config holds."""
    uri = FORMS[name]
    sections = [{"mlflow": {"tracking_uri": uri}}, {"data": {"transactions": uri}}]
    for number, section in enumerate(sections):
        file = tmp_path / f"shop{number}.yaml"
        file.write_text(yaml.safe_dump(section))
        with pytest.raises(ConfigError, match="holds a password") as caught:
            load_config(file)
        assert SECRET not in str(caught.value)


PIECES = (
    ["a.", "://", "a://", "a://b:", "a://b:c ", "a://b:1 ", "@", ":@", "https://", "${A}", "{", "}"]
    + ["jdbc:oracle:x:", "jdbc:oracle:x:u/", "Bearer ", "bearer ", "basic a", "basic a=", "x="]
    + ["password", "password=", 'password="', "password='", 'password=\\"', "password={", "pass"]
    + ["password   ", '"password": "', "<password>", "</", "--password ", "SECRET '", "a: ", ". A"]
    + ["\\", '"', "'", "`", " ", "\n", "=", "&", "&a", "--", "password=${A}", '\\" ', "password=[("]
)


def pace() -> float:
    """Seconds of the processor for a sum of half a million squares, about 0.03 on a usual one."""
    began = time.thread_time()
    sum(i * i for i in range(500_000))
    return time.thread_time() - began


def test_no_text_holds_the_mask_up():
    """100,000 signs take as long as a few fixed sums; a pattern that goes back took a minute."""
    dice = random.Random(0)
    repeated = [*PIECES, *("".join(dice.choices(PIECES, k=3)) for _ in range(25))]
    backslashes = "".join("password=" + "\\" * n + '"' for n in range(440))
    texts = [(piece * 100_000)[:100_000] for piece in repeated]
    before = pace()
    for text in [*texts, *("password=" + t for t in texts[:20]), backslashes]:
        began = time.thread_time()
        without_secrets(text)
        assert time.thread_time() - began < 40 * before, text[:60]


def test_generated_secrets_are_masked_in_every_form():
    """Whatever signs a secret has, as long as its form can hold them."""
    dice = random.Random(1)
    signs = "abcXYZ019 _-+/.:;,!#%&=?@*~^|<>()[]{}$"
    for _ in range(2000):
        secret = "K7" + "".join(dice.choices(signs, k=dice.randint(1, 20))) + "7K"
        login = secret.replace("@", "") if " " in secret else secret  # what follows an @ is a host
        for said in (
            f"postgresql://ann:{login}@host/shop",
            f"{{'user': 'ann', 'password': '{secret}', 'a': 1}}",
            f'{{"password": "{secret}", "a": 1}}',
            f"password='{secret}' user=ann",
        ):
            assert "7K" not in without_secrets(said), said
