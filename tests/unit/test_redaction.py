"""No secret is in what is shown to strangers, however it was written; what they need is still there."""

from __future__ import annotations

import base64
import time
from urllib.parse import quote

import pytest

from binder_onprem.support.pseudonyms import anonymous, names_in, people, pseudonym
from binder_onprem.support.redaction import GONE, net, redacted, values_of, words_of

CANARY = "hunter2SECRET"
BODY = "MHcCAQEEIABCDEFhunter2SECRETabcdefghijklmnopqrstuvwxyz0123456789+"
KEY = f"-----BEGIN EC PRIVATE KEY-----\n{BODY}\nABCDEFhunter2SECRET==\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize("line", [
    "GET /user/x/lab?token=hunter2SECRET HTTP/1.1",
    "GET /user/x/lab?a=1&token=hunter2SECRET&b=2",
    "http://h/v2/git/x?token%3Dhunter2SECRET",
    "http://h/lab%253Ftoken%253Dhunter2SECRET",
    "/oauth?code=hunter2SECRET&state=hunter2SECRET",
    "https://user:hunter2SECRET@git.example/r",
    "https://hunter2SECRET@git.example/r",
    "https://user:pa/ss@hunter2SECRET@git.example/r",
    "postgresql+asyncpg://binder:hunter2SECRET@db:5432/binder",
    "ssh://git:hunter2SECRET@git.example/r",
    "v2/git/https%3A%2F%2Fuser%3Ahunter2SECRET%40git.example%2Fr/HEAD",
    "v2/git/https%253A%252F%252Fuser%253Ahunter2SECRET%2540git.example",
    "fatal: could not read from me:hunter2SECRET@git.example",
    "Authorization: Bearer hunter2SECRET",
    "authorization: token hunter2SECRET",
    "Proxy-Authorization: Basic aHVudGVyMg== hunter2SECRET",
    '{"Authorization": "token hunter2SECRET", "Accept": "x"}',
    "{'Cookie': 'a=\"1\"; s=hunter2SECRET', 'x': 'y'}",
    'Set-Cookie: a="b c"; jupyterhub-session-id=hunter2SECRET; Path=/',
    'headers="{\\"Cookie\\": \\"s=hunter2SECRET\\"}" x=1',
    "got basic hunter2SECRETabc",
    "password: hunter2SECRET",
    "password: correct horse hunter2SECRET staple",
    "password:hunter2SECRET",
    "Password = hunter2SECRET",
    "db_password=a,b;c&hunter2SECRET",
    'password=ab"hunter2SECRET',
    "password='it''s hunter2SECRET'",
    'password="a \\" hunter2SECRET"',
    'password="open hunter2SECRET',
    'password="a"hunter2SECRET',
    "CONFIGPROXY_AUTH_TOKEN=hunter2SECRET",
    "PRIVATE_TOKEN => 'hunter2SECRET'",
    '{"client_secret":"hunter2SECRET"}',
    '{"a": "{\\"password\\": \\"hunter2SECRET\\", \\"b\\": 1}"}',
    '{"a": "{\\\\\\"password\\\\\\": \\\\\\"hunter2SECRET\\\\\\"}"}',
    "auth: {username: pull, password: hunter2SECRET}",
    '"auth": "aHVudGVyMlNFQ1JFVA hunter2SECRET"',
    "tokens: [one1, hunter2SECRET]",
    "client-key-data: hunter2SECRET",
    "k3s agent --token hunter2SECRET --server x",
    "argv: ['x', '--password', 'hunter2SECRET']",
    'argv: ["--api-key", "hunter2SECRET"]',
    "login with password hunter2SECRET failed",
    "the token is hunter2SECRET",
    "X-Api-Key: hunter2SECRET",
    "_xsrf=hunter2SECRET",
    "jwt eyJhbGciOiJIUzI1NiJ9.hunter2SECRET.abc",
    "ghp_hunter2SECREThunter2SECRET",
    "glpat-hunter2SECREThunter2SECRET",
    "K10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa::server:hunter2SECRET",
    "push:$2b$04$hunter2SECREThunter2SECREThunter2SECRET",
    "AGE-SECRET-KEY-1hunter2SECRET",
    f"key: {KEY!r}",
    "tail of " + KEY.splitlines()[1] + "\n" + "\n".join(KEY.splitlines()[2:]),
    "2026 head x[1]: " + KEY.replace("\n", "\n2026 head x[1]: "),
    KEY.rpartition("-----END")[0],
    "secret: |\n  first\n  hunter2SECRET\nnext: 1",
    "tokens:\n- hunter2SECRET\n- b",
    "a:\n  tokens:\n    - hunter2SECRET\n  b: 1",
    "- secret:\n    hunter2SECRET",
    'password: "one\n  hunter2SECRET"',
    "password: one\n\n  hunter2SECRET",
    '{\n  "secrets": {\n    "x": "hunter2SECRET"\n  }\n}',
])  # fmt: skip
def test_what_looks_like_a_secret_goes(line: str) -> None:
    found = redacted(line)
    assert "hunter2" not in found
    assert GONE in found
    assert redacted(found) == found


@pytest.mark.parametrize("line", [
    "Nov 26 15:00:00 head k3s[12]: Started container registry.test:5000/binder/x@sha256:0123456789abcdef",
    "push_account_file: /etc/binder-onprem/registry-push",
    "token_file: /etc/x",
    "password: null",
    "http://127.0.0.1:8585/v2/git/x",
    "ssh://git@git.example/group/repo.git",
    "git@git.example:group/repo.git",
    "ExecStart=/usr/local/bin/k3s server",
    "PWD=/root",
    "sessions: {kind: kubernetes, namespace: binder}",
    "auth:\n  htpasswd:\n    realm: reg\n    path: /etc/binder-registry/push.htpasswd",
    "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ\n-----END CERTIFICATE-----",
    "12:34:56 error: no route to host",
    "tokenizer failed, secretary said",
])  # fmt: skip
def test_what_is_none_stays(line: str) -> None:
    assert redacted(line) == line


def test_what_stands_around_a_secret_stays() -> None:
    assert redacted("- password: x1\n  realm: y\nb: 2") == f"- password: {GONE}\n  realm: y\nb: 2"
    assert redacted('{"token": "a", "code": "limit"}') == f'{{"token": "{GONE}", "code": "limit"}}'
    assert redacted("token=a1 level=info msg=x") == f"token={GONE} level=info msg=x"
    assert redacted("a\n" + KEY + "\nb").splitlines() == ["a", GONE, "b"]
    assert redacted("https://u:p@git.example/r") == f"https://{GONE}@git.example/r"


@pytest.mark.parametrize("form", [
    "x hunter2SECRET y", "xhunter2SECRETy", quote("a/hunter2SECRET"), base64.b64encode(b"hunter2SECRET").decode(),
    *(base64.b64encode(b"u" * before + b":hunter2SECRET" + b"." * behind).decode() for before in range(3) for behind in range(3)),
])  # fmt: skip
def test_a_known_value_goes_in_each_form(form: str) -> None:
    known = net({CANARY})
    found = redacted(f"x {form} z", known)
    assert GONE in found
    assert CANARY not in found
    for word in found.split():
        assert b"hunter2" not in base64.b64decode(word.replace(GONE, "")[: len(word.replace(GONE, "")) // 4 * 4] or "AAAA")


def test_a_known_value_goes_in_urls_and_json() -> None:
    value = 'pa"ss/wörd 1'
    for form in ('pa\\"ss/w\\u00f6rd 1', quote(value, safe=""), quote(quote(value, safe=""), safe=""), value):
        assert redacted(f"<{form}>", net({value})) == f"<{GONE}>"


def test_a_value_that_a_line_is_cut_in_was_replaced_before() -> None:
    assert CANARY[:4] not in redacted("x" * 32764 + CANARY, net({CANARY}))


def test_words_that_any_text_has_are_no_known_values() -> None:
    assert net({"a", "push", ""}) == ()


def test_files_of_secrets_give_their_values() -> None:
    assert words_of("hunter2SECRET\n") == {CANARY}
    assert {CANARY, f"push:{CANARY}"} <= words_of(f"push:{CANARY}\n")
    assert CANARY in words_of(f"CONFIGPROXY_AUTH_TOKEN={CANARY}\n")
    assert "correct horse battery" in words_of("correct horse battery")
    assert BODY in words_of(KEY)
    kubeconfig = f"apiVersion: v1\nclusters:\n- cluster:\n    server: https://head:6443\n  name: default\nusers:\n- user:\n    token: {CANARY}\n"
    assert words_of(kubeconfig) & {CANARY, "https://head:6443", "default", "head:6443", "clusters"} == {CANARY}


def test_files_of_settings_give_what_is_secret_in_them() -> None:
    text = (
        f"home: /var/lib/x\ndatabase: postgresql://b:{CANARY}%2F1@db/b\nregistry:\n  secret: 'other-secret'\n  token_file: /etc/t\nlog_level: info\n"
    )
    assert values_of(text) == {f"b:{CANARY}%2F1", f"b:{CANARY}/1", f"{CANARY}%2F1", f"{CANARY}/1", "other-secret", "'other-secret'"}


@pytest.mark.parametrize("text", [
    'token="' * 6000, "a:" * 20000, "/user/" * 6000, "%25" * 12000, "x" * 32000 + "@", "password " * 5000, "://a:" * 7000, "--a-" * 9000,
    '\\"' * 16000, "password=" + ",;&" * 10000, "- " * 16000 + "token:", "a.b@c." * 6000, "[" * 30000, 'authorization:"' * 3000,
])  # fmt: skip
def test_hostile_lines_take_no_time(text: str) -> None:
    start = time.process_time()
    anonymous(redacted(text), people(names_in(text))[:10], b"k")
    assert time.process_time() - start < 2


PEOPLE = b"0123456789abcdef"


def test_a_person_has_the_same_pseudonym_everywhere_and_programs_keep_their_names() -> None:
    text = (
        'GET /jupyter/hub/api/users/alice%40uni.example/servers\n{"user": "alice@uni.example", "by": "bob"} User logged in: bob\n'
        "User=binder-front\n/user/x-0123456789abcdef/lab"
    )
    names = people(names_in(text), {"binder-front"})
    assert names == ("alice@uni.example", "bob")
    alice, bob = (pseudonym(name, PEOPLE) for name in names)
    assert anonymous(text, names, PEOPLE) == text.replace("alice%40uni.example", alice).replace("alice@uni.example", alice).replace("bob", bob)
    assert pseudonym("bob", b"another") != bob


@pytest.mark.parametrize("line", [
    "200 GET /jupyter/hub/home (dora@10.1.2.3) 3 ms", "302 GET / (dora@::ffff:10.1.2.3)", "dn uid=dora,ou=people",
    "rhost= user=dora", "GET /user/dora",
])  # fmt: skip
def test_names_are_found_where_people_are_named(line: str) -> None:
    assert people(names_in(line)) == ("dora",)


def test_addresses_of_mail_go_and_units_stay() -> None:
    assert (
        anonymous("carol@uni.example user@1000.service git@git.example", (), PEOPLE)
        == f"{pseudonym('carol@uni.example', PEOPLE)} user@1000.service git@git.example"
    )
