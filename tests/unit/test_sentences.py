"""What the service says, in the reader's language."""

from __future__ import annotations

import ast
import json
import re
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from binder_onprem import outcome, queueing
from binder_onprem.events import Phase, Progress, Stage
from binder_onprem.providers import links, refs
from binder_onprem.web import locale
from binder_onprem.web.sentences import Sentences
from tests.unit import spoken
from tests.unit.webstand import Play, stand
from tests.unit.webstand import lines as log_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CATALOGUES = locale.read()
FRENCH = CATALOGUES.sentences["fr"]
ASKED = Progress(Phase.WAITING, "Looking up https://example.org/o/r at HEAD...\n", Stage.RESOLVE, 1)


def french() -> dict[str, str]:
    marked = CATALOGUES.translations["fr"]._catalog
    return {
        source.removeprefix("message\x04"): text for source, text in marked.items() if isinstance(source, str) and source.startswith("message\x04")
    }


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def test_every_sentence_of_the_source_has_a_french_entry() -> None:
    said = spoken.sentences()
    assert len(said) > 200
    missing = {source: where for source, where in said.items() if source not in french()}
    paste = "\n".join(f'# {where}\nmsgctxt "message"\nmsgid {quoted(source)}\nmsgstr ""\n' for source, where in missing.items())
    assert not missing, f"Add to web/locale/fr/LC_MESSAGES/messages.po, {{}} becoming {{0}}, {{1}}, ... in msgstr:\n\n{paste}"


def test_modules_left_out_exist() -> None:
    assert spoken.COMMAND_LINE.keys() | spoken.PASSED_ON | spoken.SAYS_PROGRESS <= spoken.modules().keys()


def test_a_sentence_is_read_from_every_form_of_source() -> None:
    reader = spoken.Reader({})
    module = spoken.Module("m", ast.parse("def f(x):\n    y = 'is big' if x else f'is {x} small'\n    raise E(f'It {y}, {x:.3g}.')"))
    scope = module.tree.body[0]
    call = next(node for node in ast.walk(scope) if isinstance(node, ast.Call))
    assert reader.texts(call.args[0], module, scope) == {"It {}, {}."}
    assert reader.found.keys() == {"is big", "is {} small"}


def test_translations_use_the_values_there_are() -> None:
    for source, text in french().items():
        assert text, source
        assert "{}" not in text, source
        used = {int(number) for number in re.findall(r"\{(\d+)\}", text)}
        # The plural's letter is the one value that French can do without.
        assert used == set(range(source.count("{}"))) - ({1} if "minute{} ago" in source else set()), source
        assert source[0].isspace() == text[0].isspace(), source
        assert "'" not in re.sub(r"`[^`]*`", "", text), source
        assert not re.search(r" [:;!?»]|« ", text), source


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (refs.no_ref("nope").message, "Le dépôt n\u2019a ni branche, ni étiquette, ni commit «\xa0nope\xa0». Vérifiez l\u2019orthographe"),
        (outcome.cancelled("the administrator").message, "La construction a été annulée par l\u2019administrateur."),
        (queueing.waiting(queueing.Place(3, 600.0)), "En attente du début de la construction… (place 3 dans la file, environ 10 min)\n"),
        (
            links.bad_form("a/b", "c", "a/c").message,
            "Le lien n\u2019a pas la forme «\xa0a/b\xa0»\xa0; reçu\xa0: «\xa0c\xa0». Vouliez-vous dire «\xa0a/c\xa0»\xa0?",
        ),
        (
            "Dockerfile, line 3: ENV before FROM is not allowed here. Begin with FROM.",
            "Dockerfile, ligne 3, non autorisé ici\xa0: ENV avant FROM. Comm",
        ),
        ("pip install x: failed with exit status 1. The last lines of the log say why.", "pip install x\xa0: échec avec le code de retour 1. Les"),
        (
            "The session did not start: its container was removed. It said last:\nTraceback\n",
            "La session n\u2019a pas démarré\xa0: son conteneur a été supp",
        ),
        ("Nobody knows this sentence.", "Nobody knows this sentence."),
        ("", ""),
    ],
)
def test_what_is_said_is_told_in_french(said: str, told: str) -> None:
    assert FRENCH.translate(said).startswith(told)
    assert CATALOGUES.told("en", said) == said
    assert FRENCH.translate(said).endswith("\n") == said.endswith("\n")


def test_parts_of_a_longer_sentence() -> None:
    what = "environment.yml needs packages from a conda channel"
    said = f"{what}, and none can be reached from here (no answer from h). Ask the administrator to set mirrors.conda."
    assert FRENCH.translate(said).startswith(
        "environment.yml demande des paquets d\u2019un canal conda, mais rien de cela n\u2019est accessible d\u2019ici (pas de réponse"
    )


def test_values_are_kept_and_may_change_places() -> None:
    sentences = Sentences({"{} of {} failed.": "Sur {1}, {0} a échoué.", "x is {}": "{0} {1}"})
    assert sentences.translate("{1} of {0}{} failed.") == "Sur {0}{}, {1} a échoué."
    assert sentences.translate("x is 1") == "1 "
    assert sentences.translate("a of b failed") == "a of b failed"


def test_hostile_messages_cost_little() -> None:
    began = time.process_time()
    for text in ("{} of " * 3000, '"' * 19_000, ": failed" * 2400, "Dockerfile, line " + ": is not allowed here. " * 800, ". " * 9000, "x" * 10**6):
        FRENCH.translate(text)
    assert time.process_time() - began < 2


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def told(client: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None) -> list[str]:
    async with client.get(url, headers={"Accept": "text/event-stream"} | (headers or {})) as answer:
        return [json.loads(line[6:])["message"] for line in (await answer.text()).split("\n") if line.startswith("data: ")]


async def test_the_stream_speaks_french_only_when_asked(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    log = Progress(Phase.BUILDING, "The build failed.\n", Stage.BUILD, 9)
    built = Progress(Phase.BUILT, "Found built image, launching...\n", Stage.LAUNCH, 1)
    async with stand(tmp_path, Play([ASKED, *log_lines(1), log, built, refs.no_ref("x")])) as at:
        english = await told(client, f"{at.url}build/gh/o/r/HEAD", {"Accept-Language": "fr", "Cookie": "binder-lang=fr"})
        assert english == await told(client, f"{at.url}build/gh/o/r/HEAD?lang=../fr")
        french = await told(client, f"{at.url}build/gh/o/r/HEAD?lang=fr")
        early = await told(client, f"{at.url}build/gh/o/r/HEAD?lang=fr&build_token=x")
    assert english == [ASKED.message, "line 1\n", log.message, built.message, refs.no_ref("x").message + "\n"]
    assert french[0] == "Recherche de https://example.org/o/r, version HEAD…\n"
    assert french[1:3] == ["line 1\n", log.message]
    assert french[3] == "Image déjà construite, lancement…\n"
    assert french[4].startswith("Le dépôt n\u2019a ni branche")
    assert early == ["Jeton de construction invalide. Rechargez la page pour en obtenir un nouveau.\n"]


async def test_errors_answer_in_the_requests_language(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with stand(tmp_path) as at:
        async with client.get(f"{at.url}nope", headers={"Accept": "application/json", "Accept-Language": "fr"}) as answer:
            body = await answer.json()
        async with client.get(f"{at.url}nope", headers={"Accept": "application/json"}) as answer:
            plain = await answer.json()
        async with client.get(f"{at.url}v2/nope/x/HEAD", headers={"Accept": "text/html", "Accept-Language": "fr"}) as answer:
            page = await answer.text()
    assert (body["code"], body["message"]) == ("not_found", "Il n\u2019y a rien à cette adresse.")
    assert plain["message"] == "There is nothing at this address."
    assert "V\u00e9rifiez le lien ou cr\u00e9ez-en un nouveau." in page


def test_pages_do_not_carry_the_sentences() -> None:
    assert not any("{}" in source or "\x04" in source for source in CATALOGUES.strings("fr"))
