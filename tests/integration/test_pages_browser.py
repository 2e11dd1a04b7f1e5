"""The worklist and a study's page in Chromium: live, by keyboard, in both languages, and under the strict policy."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, timedelta

import pytest
import sqlalchemy as sa
from fhir_facade.app import create_app as create_fhir_app
from playwright.sync_api import Browser, Route, expect

from gateway.services import Counters
from gateway.store import Store
from gateway.store.tables import job, study
from gateway.web import HttpParts, create_app
from gateway.web.auth import Access
from tests.browser import chromium, watched_page
from tests.integration.worklist_rows import add_finding, add_images, add_job, found_pneumonia
from tests.stores import NOON
from tests.unit.web.serving import served

BEARER = "correct horse"
TOKEN = Access("token", [hashlib.sha256(BEARER.encode()).hexdigest()])
LIVE_MS = 120_000
"""After which a page hangs: no measure of what is fast enough."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give Chromium to all tests here."""
    expect.set_options(timeout=LIVE_MS)
    with chromium() as started:
        yield started


@contextmanager
def address(store: Store, access: Access) -> Iterator[str]:
    """Serve the application; give its address."""
    closing = threading.Event()
    fhir = create_fhir_app(store, zone=UTC)
    with served(create_app(HttpParts(store, fhir, access, Counters(), 0, closing=closing))) as client:
        try:
            yield str(client.base_url).rstrip("/")
        finally:
            closing.set()


def arrives(store: Store, uid: str, name: str, minute: int = 0) -> None:
    """Let a study begin to arrive."""
    at = NOON + timedelta(minutes=minute)
    with store.write() as connection:
        add_images(connection, uid, patient_name=name, state="receiving", last_received_at=at)


def is_found_suspicious(store: Store, uid: str) -> None:
    """Let a study that arrived get its result."""
    with store.write() as connection:
        which = study.c.study_instance_uid == uid
        connection.execute(sa.update(study).where(which).values(state="routed", suspicion=0.97))
        job_id = add_job(connection, uid, summary=found_pneumonia(area=100.0))
        add_finding(connection, uid, job_id, "pneumonia")


def test_the_worklist_fills_while_it_is_open(sqlite_store: Store, browser: Browser) -> None:
    """Studies appear, change and move up without a reload; the focus stays on its row, and a reader is told."""
    with address(sqlite_store, Access("none")) as at, watched_page(browser) as seen:
        page = seen.page
        page.goto(f"{at}/worklist")
        expect(page.get_by_role("heading", name="No study has arrived yet")).to_be_visible()
        expect(page.locator("#live")).to_have_text("Live", timeout=LIVE_MS)
        page.evaluate("window.stays = true")
        arrives(sqlite_store, "1.1", "Doe^Jane", minute=1)
        expect(page.locator("#rows tr")).to_have_count(1, timeout=LIVE_MS)
        arrives(sqlite_store, "1.2", "Roe^Rick")
        expect(page.locator("#rows tr")).to_have_count(2, timeout=LIVE_MS)
        expect(page.locator("#news")).to_have_text("1 new study")
        page.keyboard.press("j")
        page.keyboard.press("j")
        is_found_suspicious(sqlite_store, "1.2")
        expect(page.locator("#rows tr").first).to_contain_text("Roe, Rick", timeout=LIVE_MS)

        expect(page.locator("#rows tr").first).to_contain_text("Pneumonia 97 %")
        expect(page.locator("#rows tr").first.locator("a.open")).to_be_focused()
        assert page.evaluate("window.stays") is True
        seen.picture("worklist")
        assert (seen.errors, seen.refused, seen.strangers) == ([], [], []), seen.failed


def test_what_came_before_the_page_listens_is_shown(sqlite_store: Store, browser: Browser) -> None:
    """A study may arrive after the list was made and before anybody would be told."""

    def late(route: Route) -> None:
        arrives(sqlite_store, "1.1", "Doe^Jane")
        route.continue_()

    with address(sqlite_store, Access("none")) as at, watched_page(browser) as seen:
        seen.page.route("**/worklist/events", late, times=1)
        seen.page.goto(f"{at}/worklist")

        expect(seen.page.locator("#rows tr")).to_have_count(1)


def test_by_keyboard_from_study_to_study(sqlite_store: Store, browser: Browser) -> None:
    """The key j and Enter open, j goes on to the next one, u goes back to the filtered list, / searches."""
    for number, name in enumerate(("Doe^Jane", "Roe^Rick", "Poe^Paul")):
        arrives(sqlite_store, f"1.{number}", name, minute=9 - number)
    with address(sqlite_store, Access("none")) as at, watched_page(browser, "zh-CN") as seen:
        page = seen.page
        page.goto(f"{at}/worklist?modality=DX")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Doe, Jane")
        page.wait_for_load_state()  # the heading is there before the keys are heard
        page.keyboard.press("j")
        expect(page.get_by_role("heading", level=1)).to_have_text("Roe, Rick")
        page.wait_for_load_state()  # the heading is there before the keys are heard
        page.keyboard.press("u")
        expect(page).to_have_url(f"{at}/worklist?modality=DX")
        page.wait_for_load_state()
        page.keyboard.press("/")
        page.keyboard.type("paul")
        page.keyboard.press("Enter")
        expect(page.locator("#rows tr")).to_have_count(1)
        expect(page.get_by_role("heading", level=1)).to_have_text("工作列表")
        page.get_by_role("link", name="English").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Worklist")

        assert page.url == f"{at}/worklist?q=paul&modality=DX"
        assert seen.errors == [], seen.failed


def test_a_study_page_follows_but_never_under_the_hand(sqlite_store: Store, browser: Browser) -> None:
    """A result appears by itself; a comment that is being typed is not taken away."""
    arrives(sqlite_store, "1.1", "Doe^Jane")
    with address(sqlite_store, Access("none")) as at, watched_page(browser) as seen:
        page = seen.page
        page.goto(f"{at}/studies/1.1")
        expect(page.locator("#live")).to_have_text("Live", timeout=LIVE_MS)
        is_found_suspicious(sqlite_store, "1.1")
        expect(page.locator(".findings")).to_contain_text("97.0 %", timeout=LIVE_MS)
        page.keyboard.press("v")
        page.keyboard.type("Grey")
        page.wait_for_timeout(1500)
        with sqlite_store.write() as connection:
            connection.execute(sa.update(study).values(priority="stat"))
            connection.execute(sa.update(job).values(reason="x"))
        expect(page.locator("#about .badge.stat")).to_be_visible(timeout=LIVE_MS)

        expect(page.locator("form.verify [name=observer]")).to_have_value("Grey")
        seen.picture("study")
        assert seen.errors == [], seen.failed


def test_signing_in_and_out(sqlite_store: Store, browser: Browser) -> None:
    """A form of ours is taken from a real browser; after signing out the page is closed again."""
    with address(sqlite_store, TOKEN) as at, watched_page(browser) as seen:
        page = seen.page
        page.goto(f"{at}/worklist?state=failed")
        page.get_by_label("Access token").fill(BEARER)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{at}/worklist?state=failed")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.goto(f"{at}/worklist")

        assert "/login" in page.url
        assert seen.errors == [], seen.failed
