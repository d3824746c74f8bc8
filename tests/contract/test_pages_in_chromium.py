"""The page at /ui as a person has it: a real Chromium, by keyboard, on a phone, light and dark.

Skipped where there is no Chromium: `apt-get install chromium`, or `playwright install chromium`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from mier_client.transport import Transport
from mier_service.access.keys import Scope
from tests.contract.browsing import Site, adapted
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, LEARN_S, batch, fine_tune, submit
from tests.contract.server import Server

WITHIN_MS = 60_000
"""How long a person would have to wait at worst, on a machine that does much else."""
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(found).exists():
            pytest.skip("no Chromium here: apt-get install chromium, or playwright install chromium")
        expect.set_options(timeout=WITHIN_MS)
        # Root has no sandbox; the only pages that it sees are ours.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """Whatever the browser complains of, a script's fault or what the policy forbids, fails the test."""
    yield from _opened(chromium, viewport=WIDE)


def _opened(chromium: Browser, **context: Any) -> Iterator[Page]:
    opened = chromium.new_context(**context)
    opened.set_default_timeout(WITHIN_MS)
    page = opened.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    yield page
    opened.close()
    # Chromium says so, too, where a page is a refusal.
    assert [c for c in complaints if "Failed to load resource" not in c] == []


@pytest.fixture
def robot(server: Server) -> Iterator[Transport]:
    transport = connect(server, "http")
    yield transport
    transport.close()


def tab_to(page: Page, text: str) -> Locator:
    """By the key alone, as who has no mouse."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if focused.count() and text in focused.inner_text():
            return focused
    raise AssertionError(f"no press of Tab leads to {text!r}")


def test_a_person_watches_a_robot_adapt(server: Server, robot: Transport, page: Page) -> None:
    """From the overview on, without a reload. Broken on purpose: the stream's first event alone applied."""
    page.goto(f"{server.http}/ui")
    session = robot.create_session(REWARD, 0, None, "", CALL_S)
    row = page.locator("#sessions tr", has=page.locator(f'a[title="{session.id}"]'))
    expect(row).to_contain_text("not adapted yet")
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(session.id[:8])
    expect(page.locator("#strangeness")).to_contain_text("Nothing was adapted yet")
    submit(robot, session, batch(40))
    expect(page.locator("#state")).to_contain_text("40")
    robot.adapt(session.id, ALL, "", CALL_S)
    expect(page.locator("#lineage li.active")).to_contain_text("adapted context")
    expect(page.locator("#strangeness canvas")).to_be_visible()
    expect(page.locator("#news")).to_have_text("version 2 acts")
    fine_tune(robot, session)
    expect(page.locator("#lineage li.active")).to_contain_text("fine-tuned")
    expect(page.locator("#learning td .mark")).to_have_text("succeeded")


def test_a_running_fine_tune_is_seen_and_stopped(server: Server, robot: Transport, page: Page) -> None:
    """Broken on purpose: progress rendered once; the form of another operation."""
    session = adapted(robot, REWARD)
    page.goto(f"{server.http}/ui/sessions/{session.id}")
    operation = robot.finetune(session.id, 200_000, 0, "", CALL_S)
    expect(page.locator("#learning .running")).to_contain_text(re.compile(r"Running: [1-9]"), timeout=1000 * LEARN_S)
    page.get_by_role("button", name="Cancel the fine-tune").click()
    expect(page.locator("#learning td .mark")).to_have_text("cancelled")
    assert robot.get_operation(operation.id, CALL_S).state.value == "cancelled"


def test_a_roll_back_by_keyboard_alone(server: Server, robot: Transport, page: Page) -> None:
    """Broken on purpose: a button that only a pointer reaches; the reason lost on its way to the record."""
    session = adapted(robot, REWARD)
    page.goto(f"{server.http}/ui/sessions/{session.id}")
    expect(page.locator("#link-text")).to_have_text("live")
    tab_to(page, "Roll back")
    page.keyboard.press("Enter")
    expect(page.locator("#rollback-reason")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#rollback-reason")).to_be_hidden()
    page.keyboard.press("Enter")
    page.keyboard.type("stumbles on turns")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Roll back to v1")
    page.keyboard.press("Enter")
    expect(page.locator(".alert.good")).to_be_focused()
    expect(page.locator("#lineage li.active")).to_contain_text("the checkpoint")
    expect(page.locator("#record tbody tr").first).to_contain_text("stumbles on turns")
    assert robot.get_session(session.id, CALL_S).active_version == 1


def test_who_writes_is_not_disturbed(server: Server, robot: Transport, page: Page) -> None:
    """News of the section waits until nobody writes in it. Broken on purpose: `writing` always false."""
    session = adapted(robot, REWARD)
    page.goto(f"{server.http}/ui/sessions/{session.id}")
    expect(page.locator("#link-text")).to_have_text("live")
    page.locator("#promote-1 summary").click()
    page.keyboard.type("half a rea")
    submit(robot, session, batch(40, seed=5, episode=1, version=2))
    robot.adapt(session.id, ALL, "", CALL_S)
    expect(page.locator("#state .tiles")).to_contain_text("v3")
    expect(page.locator("#lineage li")).to_have_count(2)
    expect(page.locator("#promote-1-reason")).to_have_value("half a rea")
    page.locator("h1").click()
    expect(page.locator("#lineage li")).to_have_count(3)


def test_a_key_that_may_not(site: Site, page: Page) -> None:
    """Broken on purpose: buttons for everybody. (That the service refuses is asked in `test_pages`.)"""
    with site.api() as api:
        session = adapted(api, REWARD)
    page.goto(f"{site.server.http}/ui/sessions/{session.id}")
    expect(page.get_by_label("Key")).to_be_focused()
    page.keyboard.type("letmein")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("mierctl keys create")
    page.keyboard.type(site.keys[Scope.ACT])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(session.id[:8])
    expect(page.get_by_text("need scope admin")).to_be_visible()
    for word in ("Roll back", "Promote", "Pin", "Pause"):
        expect(page.locator("main").get_by_text(re.compile(rf"^{word}"))).to_have_count(0)
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Key")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it(server: Server, robot: Transport, chromium: Browser, scheme: Any) -> None:
    """Nothing is wider than 390 px, and texts stand out from their ground (WCAG's 4.5). Broken on purpose: a table that
    stays one; the light palette's ink in the dark."""
    session = adapted(robot, REWARD)
    for page in _opened(chromium, viewport=PHONE, color_scheme=scheme, has_touch=True):
        for path in ("/ui", f"/ui/sessions/{session.id}", "/ui/sessions/nope"):
            page.goto(f"{server.http}{path}")
            assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], path
            assert page.evaluate(CONTRAST) == [], path


CONTRAST = """() => {
  const light = (c) => c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (e) => { for (; e; e = e.parentElement) {
    const c = rgba(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c.slice(0, 3); }
    return [255, 255, 255]; };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest("svg, .unseen, .skip")) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color).slice(0, 3)), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(`${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 30)}`);
  }
  return low;
}"""
"""Elements whose text has too little contrast."""
