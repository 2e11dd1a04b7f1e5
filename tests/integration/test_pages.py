"""The pages as a browser gets them: languages, filters, a study with its past, live updates, sign-in, errors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, timedelta

import httpx
import pytest
import sqlalchemy as sa
from fhir_facade.app import create_app as create_fhir_app

from gateway.services import Counters
from gateway.store import Store, open_store
from gateway.store.tables import delivery, study, web_session
from gateway.web import HttpParts, create_app
from gateway.web.auth import Access
from gateway.web.rendering import Site
from tests.integration.worklist_rows import (
    add_images,
    add_job,
    found_pneumonia,
    not_evaluable,
    suspicious,
    verified,
)
from tests.stores import NOON
from tests.unit.web.serving import served

BEARER = "correct horse"
OPEN = Access("none")
TOKEN = Access("token", [hashlib.sha256(BEARER.encode()).hexdigest()])
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
CHINESE = {**BROWSER, "Accept-Language": "zh-CN,zh;q=0.9"}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'--"

Serve = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture
def serve(sqlite_store: Store) -> Serve:
    """Give a function that serves the application over a fresh store."""

    def serve(access: Access = OPEN, **values: object) -> AbstractContextManager[httpx.Client]:
        parts = {"store": sqlite_store, "fhir": create_fhir_app(sqlite_store, zone=UTC), "access": access}
        return served(create_app(HttpParts(**parts | {"counters": Counters(), "reserve_bytes": 0} | values)))

    return serve


@pytest.fixture
def client(serve: Serve) -> Iterator[httpx.Client]:
    """Give a client of an application without authentication."""
    with serve() as made:
        made.headers.update(BROWSER)
        yield made


def text_of(page: str) -> str:
    """Return what a page says, without markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("&nbsp;", " ")


def test_a_line_says_how_urgent_what_and_why(sqlite_store: Store, client: httpx.Client) -> None:
    """Priority, suspicion, class with probability, state with its reason, number of priors."""
    suspicious(sqlite_store, priority="stat", patient_id="P", study_date="20260301", patient_birth_date="20230115")
    with sqlite_store.write() as connection:
        add_images(connection, "1.3", patient_id="P", study_date="20250301")
        add_job(connection, "1.3", summary=not_evaluable(), reason="not evaluable: The view is LL.")

    page = client.get("/worklist").text
    said = text_of(page)

    assert "STAT" in said
    assert "Pneumonia 97 %" in said
    assert "3 y" in said
    assert "Not evaluable The view is LL." in said
    assert 'href="/studies/1.2#priors" title="1 earlier study of this patient">1<' in page


def test_the_whole_list_in_chinese(sqlite_store: Store, client: httpx.Client) -> None:
    """The browser's language; results are translated too, the reason of a known code by its heading."""
    suspicious(sqlite_store)
    with sqlite_store.write() as connection:
        add_images(connection, "1.3")
        add_job(connection, "1.3", summary=not_evaluable(), reason="not evaluable: The view is LL.")

    answer = client.get("/worklist", headers=CHINESE)
    said = text_of(answer.text)

    assert '<html lang="zh-Hans"' in answer.text
    assert "Accept-Language" in answer.headers["vary"]
    assert "肺炎 97 %" in said
    assert "无法评估 投照体位不在模型适用范围内" in said
    assert "Preliminary" not in said


def test_the_switches_are_kept_and_lead_back(client: httpx.Client) -> None:
    """Language and brightness stay; the way back never leads to another site; what is unknown is not kept."""
    switched = client.get("/preferences", params={"language": "zh", "theme": "light", "next": "/worklist?q=a"})
    page = client.get("/worklist").text
    astray = client.get("/preferences", params={"theme": "<b>", "next": "https://evil.example"})

    assert (switched.status_code, switched.headers["location"]) == (303, "/worklist?q=a")
    assert '<html lang="zh-Hans" data-theme="light">' in page
    assert astray.headers["location"] == "/worklist"
    assert "set-cookie" not in astray.headers


def test_filters_stand_in_the_address_and_in_the_form(sqlite_store: Store, client: httpx.Client) -> None:
    """What was asked for is shown as chosen, escaped, and the pager keeps it."""
    with sqlite_store.write() as connection:
        for number in range(51):
            add_images(connection, f"1.{number}", study_description='Thorax "ap"')

    page = client.get("/worklist", params={"q": 'thorax "ap"', "modality": "DX", "from": "2025-01-01"})
    missing = client.get("/worklist", params={"q": "<b>nobody</b>"}).text
    dated = client.get("/worklist", params={"q": 'thorax "ap"', "modality": "DX"}).text

    assert page.status_code == 200
    assert 'value="thorax &#34;ap&#34;"' in page.text
    assert '<option value="DX" selected>' in page.text
    assert "No study matches" in page.text
    assert 'href="/worklist?q=thorax+%22ap%22&amp;modality=DX&amp;page=2"' in dated
    assert "&lt;b&gt;nobody" in missing
    assert 'href="/worklist">show all studies' in missing


def test_an_empty_gateway_says_how_to_send(serve: Serve) -> None:
    """AE title and port are those of the settings."""
    with serve(site=Site(ae_title="AI_GATE", dicom_port=11118)) as client:
        page = client.get("/worklist").text

    assert "No study has arrived yet" in page
    assert "AI_GATE" in page
    assert "11118" in page


def test_a_site_can_hide_who_it_is(sqlite_store: Store, serve: Serve) -> None:
    """Neither the list nor the study's page nor its title tells what the site does not show."""
    named = {"patient_name": "Doe^Jane", "patient_id": "P-17", "accession_number": "ACC-1"}
    suspicious(sqlite_store, **named, patient_birth_date="20230115", study_date="20260301")
    with serve(site=Site(shows=("accession",))) as client:
        pages = client.get("/worklist").text + client.get("/studies/1.2").text

    assert "ACC-1" in pages
    assert [word for word in ("Doe", "Jane", "P-17", "2023") if word in pages] == []


def test_a_study_with_its_past(sqlite_store: Store, client: httpx.Client) -> None:
    """Uncertainty, alternatives, trend over priors, revisions, who verified what, deliveries with their reasons."""
    job_id = suspicious(sqlite_store, patient_id="P", patient_id_issuer="A", study_date="20260301")
    same = {"patient_id": "P", "patient_id_issuer": "A"}
    row = {"job_id": job_id, "destination": "PACS", "state": "waiting", "attempts": 2, "created_at": NOON}
    with sqlite_store.write() as connection:
        add_images(connection, "1.1", study_date="20250301", **same)
        add_job(connection, "1.1", summary=found_pneumonia(0.6, area=125.0))
        add_images(connection, "1.0", study_date="20240301", **same)
        add_job(connection, "1.0", summary=found_pneumonia(0.6, area=999.0), verification=verified("reject"))
        add_job(connection, "1.2", revision=2, state="dead", reason="DecoderDiedError: no answer")
        waits = {"available_at": NOON + timedelta(minutes=5), "reason": "refused with 0xA700"}
        connection.execute(sa.insert(delivery).values(**row, **waits))

    said = text_of(client.get("/studies/1.2").text)

    assert "97.0 %" in said
    assert "Uncertainty 19 %" in said
    assert "100 cm²" in said
    assert "-20 %" in said
    assert "2025-03-01 125" in said
    assert "999" not in said  # withdrawn by a person
    assert "Revision 2 failed; what is shown below is of revision 1." in said
    assert "refused with 0xA700" in said
    assert "Next try" in said


def test_a_study_says_among_which_classes_the_true_one_is(sqlite_store: Store, client: httpx.Client) -> None:
    """As the report says it, in both languages; of a model that states no coverage nothing is said."""
    suspicious(sqlite_store)
    silent = found_pneumonia()
    del silent["outcomes"][0]["findings"][0]["label_set"]
    with sqlite_store.write() as connection:
        add_images(connection, "1.3")
        add_job(connection, "1.3", summary=silent)

    said = text_of(client.get("/studies/1.2").text)
    chinese = text_of(client.get("/studies/1.2", headers=CHINESE).text)

    assert (
        "By the algorithm one of: Normal, Pneumonia. So it is in 90 % of cases like those of its calibration." in said
    )
    assert "算法判断为以下之一:正常、肺炎。在与其校准病例相似的病例中,90 % 如此。" in chinese
    assert "one of" not in text_of(client.get("/studies/1.3").text)


def test_a_verified_study_says_by_whom(sqlite_store: Store, client: httpx.Client) -> None:
    """Name, organisation and comment stand by the result and in the history."""
    with sqlite_store.write() as connection:
        add_images(connection, "1.2")
        add_job(connection, "1.2", summary=found_pneumonia(), verification=verified("correct"))

    said = text_of(client.get("/studies/1.2").text)

    assert said.count("Grey^Meredith, Seattle Grace") + said.count("Grey, Meredith, Seattle Grace") >= 2
    assert "Corrected" in said
    assert "agreed" in said


@pytest.mark.parametrize("uid", ["..%2F..%2Fetc%2Fpasswd", "%2e%2e", "<script>", "1.2.9", "x" * 3000])
def test_no_study_under_a_made_up_uid(client: httpx.Client, uid: str) -> None:
    """A page that says so, with a way out, and nothing of the UID as markup."""
    answer = client.get(f"/studies/{uid}")

    assert answer.status_code == 404
    assert "There is no such page" in answer.text
    assert 'href="/worklist"' in answer.text
    assert "<script>" not in answer.text


def test_a_hostile_study_is_shown_as_text(sqlite_store: Store, client: httpx.Client) -> None:
    """Markup in every field, 64 kB in those that take it, and a UID that climbs: text, and links that stay here."""
    uid = '../1"><script>'
    fields = ("patient_name", "patient_id", "study_description", "accession_number", "patient_sex", "study_date")
    with sqlite_store.write() as connection:
        add_images(connection, uid, HOSTILE[:16], **dict.fromkeys(fields, HOSTILE), referring_physician=HOSTILE)
        add_job(connection, uid, HOSTILE, state="dead", reason=HOSTILE)
        add_images(connection, "1.3", **dict.fromkeys(fields[:4], "A" * 65536))
        add_job(connection, "1.3", summary=found_pneumonia(), verification=verified(HOSTILE))

    pages = [client.get("/worklist", headers=headers).text for headers in (BROWSER, CHINESE)]
    pages.append(client.get("/studies/1.3").text)
    pages.append(client.get("/studies/..%2F1%22%3E%3Cscript%3E").text)

    for page in pages:
        assert page.count("<script") == page.count('<script src="/assets/')
        assert "<img src=x" not in page
        assert 'href="/studies/../' not in page
    assert max(len(page) for page in pages[:2]) < 40_000


def test_errors_are_pages_for_browsers_and_json_for_programs(client: httpx.Client) -> None:
    """The same refusal twice, each in the form that the asker can use."""
    page = client.get("/nowhere")
    program = client.get("/nowhere", headers={"Accept": "*/*"})

    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert program.json() == {"error": "Not Found"}


def test_without_a_database_there_is_a_page_that_tries_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    """503 as a page, in the browser's language, that asks again by itself."""
    store = open_store("postgresql://postgres@127.0.0.1:1/none", tmp_path_factory.mktemp("away"))
    parts = HttpParts(store, create_fhir_app(store), OPEN, Counters(), 0)
    with served(create_app(parts)) as client:
        answer = client.get("/worklist?q=a", headers=CHINESE)

    assert answer.status_code == 503
    assert answer.headers["refresh"] == "10"
    assert "数据库没有响应" in answer.text
    assert 'href="/worklist?q=a"' in answer.text


def test_a_browser_is_sent_to_the_sign_in_and_back(sqlite_store: Store, serve: Serve) -> None:
    """A token opens a session; the cookie is out of reach for scripts and other sites, and holds no token."""
    suspicious(sqlite_store)
    with serve(TOKEN) as client:
        client.headers.update(BROWSER)
        sent = client.get("/studies/1.2?done=stat")
        form = client.get(sent.headers["location"])
        signed = client.post("/login", data={"token": BEARER, "next": "/studies/1.2"})
        cookie = signed.headers["set-cookie"]
        page = client.get("/studies/1.2")
        again = client.get("/login")

    assert sent.headers["location"] == "/login?next=%2Fstudies%2F1.2%3Fdone%3Dstat"
    assert 'value="/studies/1.2?done=stat"' in form.text
    assert (signed.status_code, signed.headers["location"]) == (303, "/studies/1.2")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert BEARER not in cookie
    assert TOKEN.token_digests[0] not in cookie
    assert page.status_code == 200
    assert again.status_code == 303
    with sqlite_store.read() as connection:
        kept = connection.execute(sa.select(web_session)).one()
    assert kept.digest not in cookie


def test_a_wrong_token_opens_nothing(serve: Serve) -> None:
    """The page says so, and is as closed as before; programs go on getting 401."""
    with serve(TOKEN) as client:
        refused = client.post("/login", data={"token": "guess"}, headers=BROWSER)
        closed = client.get("/worklist")
        forged = client.get("/worklist", headers={"Cookie": f"hybridmed_session={'a' * 43}"})
        large = client.post("/login", data={"token": "x" * 70_000})

    assert refused.status_code == 401
    assert "This token is not known" in refused.text
    assert "set-cookie" not in refused.headers
    assert (closed.status_code, forged.status_code, large.status_code) == (401, 401, 413)


def test_a_session_ends(sqlite_store: Store, serve: Serve) -> None:
    """By signing out, by time, and when its token is taken out of the settings."""
    with serve(TOKEN) as client:
        cookies = []
        for _ in range(3):
            client.cookies.clear()
            client.post("/login", data={"token": BEARER})
            cookies.append(f"hybridmed_session={client.cookies['hybridmed_session']}")
        client.cookies.clear()

        def status(cookie: str) -> int:
            return client.get("/worklist", headers={"Cookie": cookie}).status_code

        page = client.get("/worklist", headers={"Cookie": cookies[0]}).text
        token = page.split('name="form_token" value="')[1].split('"')[0]
        own = {"Cookie": cookies[0], "Origin": str(client.base_url).rstrip("/")}
        stale = client.post("/logout", data={"form_token": "x"}, headers=own)
        out = client.post("/logout", data={"form_token": token}, headers=own)
        digest = hashlib.sha256(cookies[1].partition("=")[2].encode()).hexdigest()
        with sqlite_store.write() as connection:
            past = sa.update(web_session).where(web_session.c.digest == digest)
            connection.execute(past.values(expires_at=NOON - timedelta(days=9999)))
        statuses = [status(cookie) for cookie in cookies]
    with serve(Access("token", ["0" * 64])) as client:
        statuses.append(client.get("/worklist", headers={"Cookie": cookies[2]}).status_code)

    assert (stale.status_code, out.status_code) == (403, 303)
    assert statuses == [401, 401, 200, 401]


def test_another_site_cannot_act_for_a_signed_in_browser(serve: Serve) -> None:
    """A session's POST needs to come from our own pages; without authentication the same holds."""
    with serve(TOKEN) as client:
        client.post("/login", data={"token": BEARER})
        bare = client.post("/logout")
        crossed = client.post("/fhir/Patient/_search", headers={"Origin": "http://evil.example"})
        signed_in = client.get("/worklist").status_code
    with serve() as client:
        refused = client.post("/login", headers={"Sec-Fetch-Site": "cross-site"})

    assert [bare.status_code, crossed.status_code, refused.status_code] == [403, 403, 403]
    assert crossed.json()["resourceType"] == "OperationOutcome"
    assert signed_in == 200


def test_assets_are_open_and_change_with_their_content(serve: Serve) -> None:
    """The sign-in page has its style; a browser that has a file already gets 304."""
    with serve(TOKEN) as client:
        style = client.get("/assets/style.css")
        again = client.get("/assets/style.css", headers={"If-None-Match": style.headers["etag"]})
        outside = client.get("/assets/%2e%2e/pages.py")

    assert style.headers["content-type"].startswith("text/css")
    assert again.status_code == 304
    assert outside.status_code == 404


def test_a_raised_priority_moves_to_the_top(sqlite_store: Store, client: httpx.Client) -> None:
    """What is STAT stands first, whatever its suspicion."""
    suspicious(sqlite_store, "1.2", 0.9)
    suspicious(sqlite_store, "1.3", 0.6)
    with sqlite_store.write() as connection:
        connection.execute(sa.update(study).where(study.c.study_instance_uid == "1.3").values(priority="stat"))

    assert re.findall(r'data-uid="([^"]+)"', client.get("/worklist").text) == ["1.3", "1.2"]
