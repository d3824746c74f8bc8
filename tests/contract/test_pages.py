"""The page at /ui without a browser: who may see and do what, what forms must carry, what headers say."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import httpx
import numpy as np
import pytest

from mier_client.values import Session
from mier_service.access.keys import Scope
from mier_service.ui.routes import Pages, build_pages
from tests.contract import tiny
from tests.contract.browsing import Site, adapted, form_token, log_in
from tests.contract.conftest import REWARD
from tests.contract.helpers import CALL_S, batch, submit
from tests.contract.keys import bearer, make_key, revoke, wait_until

NO_SCRIPT = re.compile(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:|https?://(?!127\.0\.0\.1)", re.I)
WHY = {"reason": "stumbles on turns"}
DEEDS = {
    "promote": (Scope.ADMIN, {"version": "1", **WHY}),
    "rollback": (Scope.ADMIN, WHY),
    "pin": (Scope.ADMIN, {"version": "2", **WHY}),
    "unpin": (Scope.ADMIN, WHY),
    "pause": (Scope.ADAPT, {}),
    "resume": (Scope.ADAPT, {}),
    "cancel": (Scope.ADAPT, {"operation": "none"}),
}


@pytest.fixture
def session(site: Site) -> Session:
    with site.api() as api:
        return adapted(api, REWARD)


@pytest.fixture
def admin(site: Site) -> Iterator[httpx.Client]:
    with site.visitor(site.keys[Scope.ADMIN]) as http:
        yield http


def do(http: httpx.Client, session: Session, deed: str, fields: dict[str, str], **headers: str) -> httpx.Response:
    path = f"/ui/sessions/{session.id}"
    return http.post(f"{path}/{deed}", data={"form_token": form_token(http, path), **fields}, headers=headers)


def acting(site: Site, session: Session) -> int:
    with site.api() as api:
        return api.get_session(session.id, CALL_S).active_version


def test_every_page_needs_a_login(site: Site) -> None:
    """Broken on purpose: a route under a prefix that the guard does not know. The list is the router's own."""
    nobody = cast(Pages, type("Nothing", (), {"core": None, "logins": None}))
    with site.visitor() as http:
        for route in cast(Any, build_pages(nobody).routes):
            path = re.sub(r"\{\w+\}", "x", route.path)
            for method in route.methods:
                found = http.request(method, path)
                if path == "/ui/login":
                    assert found.status_code in (200, 415)
                elif method == "GET" and not path.endswith("/events"):
                    assert (found.status_code, found.headers["location"]) == (303, f"/ui/login?next={path}")
                else:
                    assert found.status_code == 401, (method, path)


def test_a_key_is_shown_once(site: Site) -> None:
    """Broken on purpose: the key itself as the cookie; a cookie that scripts can read, or that other sites send."""
    key = site.keys[Scope.ACT]
    with site.visitor() as http:
        found = log_in(http, key)
        assert (found.status_code, found.headers["location"]) == (303, "/ui")
        cookie = found.headers["set-cookie"].lower()
        assert {"httponly", "samesite=strict", "path=/ui"} <= {part.strip() for part in cookie.split(";")}
        assert "secure" not in cookie  # there is no TLS here, and a browser would drop it
        assert key not in cookie
        page = http.get("/ui")
        assert page.status_code == 200
        assert key not in page.text
        assert http.get("/sessions").status_code == 401, "a page's cookie is no key of the API"


@pytest.mark.parametrize("key", ["", "letmein", f"mier_{'0' * 12}_{'0' * 64}"])
def test_a_bad_key_is_refused_in_the_form(site: Site, key: str) -> None:
    """Broken on purpose: a redirect whatever came."""
    with site.visitor() as http:
        found = log_in(http, key)
        assert found.status_code == 401
        assert 'role="alert"' in found.text
        assert "set-cookie" not in found.headers


def test_after_a_logout_the_cookie_means_nothing(site: Site) -> None:
    """Broken on purpose: only the browser told to forget it."""
    with site.visitor(site.keys[Scope.ACT]) as http:
        kept = dict(http.cookies)
        http.post("/ui/logout", data={"form_token": form_token(http, "/ui")})
        assert not dict(http.cookies)
        assert http.get("/ui", headers={"cookie": "; ".join(f"{k}={v}" for k, v in kept.items())}).status_code == 303


def test_a_login_ends_with_its_key(site: Site) -> None:
    """Broken on purpose: `enter_as` trusting that the key was good once."""
    key = make_key(site.server.data, Scope.ACT)
    wait_until(site.server.http, key, good=True)
    with site.visitor(key) as http:
        assert http.get("/ui").status_code == 200
        revoke(site.server.data, key)
        wait_until(site.server.http, key, good=False)
        assert http.get("/ui").status_code == 303


@pytest.mark.parametrize("onward", ["https://evil.example/ui", "//evil.example", "/ui/../docs", "/ui\r\nx: y", "/docs"])
def test_the_login_leads_to_these_pages_alone(site: Site, onward: str) -> None:
    """Broken on purpose: `next` taken as it comes."""
    with site.visitor() as http:
        assert log_in(http, site.keys[Scope.ACT], onward).headers["location"] == "/ui"
        assert http.get("/ui/open", params={"session": f"../..{onward}"}).headers["location"] == "/ui"
        onward = "/ui/sessions/abc"
        assert log_in(http, site.keys[Scope.ACT], onward).headers["location"] == onward


def test_pages_say_what_a_browser_may_do_with_them(site: Site, admin: httpx.Client, session: Session) -> None:
    """Broken on purpose: refusals without headers; a style in an attribute, which the policy would drop."""
    paths = ["/ui", f"/ui/sessions/{session.id}", "/ui/sessions/nope", "/ui/nowhere", "/ui/login", "/ui/open?session=x"]
    for path in paths:
        found = admin.get(path)
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["cache-control"] == "no-store"
        assert not NO_SCRIPT.search(found.text), (path, NO_SCRIPT.search(found.text))
    for asset in set(re.findall(r'(?:src|href)="(/ui/static/[^"]+)"', admin.get("/ui").text)):
        found = httpx.get(site.server.http + asset, trust_env=False)
        assert found.status_code == 200, "static files need no login: the login page needs them"
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["..%2f..%2froutes.py", "../routes.py", "%2e%2e/ui.css", "vendor", ""])
def test_static_files_are_those_of_their_folder(site: Site, admin: httpx.Client, path: str) -> None:
    """Broken on purpose: a folder listed, or one level too high served."""
    base = re.findall(r'"(/ui/static/[^/"]+)/', admin.get("/ui").text)[0]
    assert admin.get(f"{base}/{path}").status_code == 404


def test_forms_of_others_change_nothing(site: Site, admin: httpx.Client, session: Session) -> None:
    """Broken on purpose: the token not looked at; one token for all logins."""
    path = f"/ui/sessions/{session.id}"
    with site.visitor(site.keys[Scope.ADMIN]) as other:
        foreign = form_token(other, path)
    own = form_token(admin, path)
    sent: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),
        ({"form_token": foreign}, {}),
        ({"form_token": own[:-1]}, {}),
        ({"form_token": "ü"}, {}),
        ({"form_token": own}, {"sec-fetch-site": "cross-site"}),
        ({"form_token": own}, {"sec-fetch-site": "same-site"}),
        ({"form_token": own}, {"origin": "https://evil.example"}),
        ({"form_token": own}, {"origin": "null"}),
    ]
    for fields, headers in sent:
        found = admin.post(f"{path}/rollback", data={**WHY, **fields}, headers=headers)
        assert found.status_code == 403, (fields, headers)
    assert acting(site, session) == 2
    headers = {"origin": site.server.http, "sec-fetch-site": "same-origin"}
    assert admin.post(f"{path}/rollback", data={**WHY, "form_token": own}, headers=headers).status_code == 303
    assert acting(site, session) == 1


def test_where_nobody_is_asked_for_a_key_forms_must_be_of_this_page_all_the_same(http: httpx.Client) -> None:
    """Broken on purpose: no token where there is no login; any site could then steer a robot through a browser."""
    session = http.post("/sessions", json={"checkpoint": REWARD}).json()
    path = f"/ui/sessions/{session['id']}"
    assert http.get("/ui/login").headers["location"] == "/ui"
    assert http.post(f"{path}/pause").status_code in (403, 415)
    assert http.post(f"{path}/pause", data={"form_token": ""}).status_code == 403
    assert http.post(f"{path}/pause", data={"form_token": form_token(http, path)}).status_code == 303
    assert http.get(f"/sessions/{session['id']}").json()["state"] == "paused"


def test_deeds_are_the_use_cases(site: Site, admin: httpx.Client, session: Session) -> None:
    """Each, in an order in which each can be. Broken on purpose: `once` not passed on; a deed that does another's."""
    once = {"once": "a-form-sent-twice"}
    for _ in range(2):
        found = do(admin, session, "rollback", WHY | once)
        assert (found.status_code, found.headers["location"]) == (303, f"/ui/sessions/{session.id}?did=rollback")
    assert "what acted before acts again" in admin.get(found.headers["location"]).text
    assert acting(site, session) == 1
    assert do(admin, session, "promote", {"version": "2", **WHY}).status_code == 303
    assert do(admin, session, "pin", {"version": "1", **WHY}).status_code == 303
    refused = do(admin, session, "promote", {"version": "2", **WHY})
    assert refused.status_code == 409
    assert "is pinned" in refused.text
    assert do(admin, session, "unpin", WHY).status_code == 303
    assert do(admin, session, "pause", {}).status_code == 303
    assert do(admin, session, "resume", {}).status_code == 303
    kinds = [row[0] for row in site.server.rows("SELECT kind FROM promotions WHERE session_id = ?", session.id)]
    assert kinds == ["publish", "publish", "rollback", "promote", "pin", "unpin"]


@pytest.mark.parametrize("deed", sorted(DEEDS))
def test_a_key_that_may_not_is_refused_and_sees_no_button(site: Site, session: Session, deed: str) -> None:
    """Broken on purpose: the button left out, and the deed done all the same for who sends the form anyway."""
    needed, fields = DEEDS[deed]
    weaker = Scope.ADAPT if needed is Scope.ADMIN else Scope.ACT
    with site.visitor(site.keys[weaker]) as http:
        page = http.get(f"/ui/sessions/{session.id}").text
        assert f'action="/ui/sessions/{session.id}/{deed}"' not in page
        path = "/ui"
        found = http.post(f"/ui/sessions/{session.id}/{deed}", data={"form_token": form_token(http, path), **fields})
        assert found.status_code == 403
        assert f"scope {needed}" in found.text
    assert acting(site, session) == 2


def test_a_bound_key_sees_its_session_alone(site: Site, session: Session) -> None:
    """Broken on purpose: `history` without the session's id; fine-tunes of all sessions in the overview."""
    with site.api() as api:
        other = adapted(api, REWARD)
    key = make_key(site.server.data, Scope.ADMIN, session=session.id)
    wait_until(site.server.http, key, good=True)
    with site.visitor(key) as http:
        assert session.id in http.get("/ui").text
        assert other.id not in http.get("/ui").text
        assert http.get(f"/ui/sessions/{session.id}").status_code == 200
        for path in (f"/ui/sessions/{other.id}", f"/ui/sessions/{other.id}/events", "/ui/sessions/nope"):
            assert http.get(path).status_code == 403
        fields = {"form_token": form_token(http, "/ui"), **WHY}
        assert http.post(f"/ui/sessions/{other.id}/rollback", data=fields).status_code == 403
    assert acting(site, other) == 2


def test_who_may_only_act_is_shown_no_fine_tunes(site: Site, session: Session) -> None:
    """Broken on purpose: operations with the rest of a session's history."""
    with site.visitor(site.keys[Scope.ACT]) as http:
        assert "Seeing fine-tunes needs a key with scope adapt" in http.get(f"/ui/sessions/{session.id}").text
        assert "running," not in http.get("/ui").text


def test_a_page_follows_what_happens(site: Site, admin: httpx.Client, session: Session) -> None:
    """Everything at once, then what changed. Broken on purpose: all sections each time; none where only others act."""
    with admin.stream("GET", f"/ui/sessions/{session.id}/events") as stream:
        events = _sections(stream)
        first = next(events)
        assert set(first) == {"state", "returns", "learning", "strangeness", "context", "lineage", "record"}
        with site.api() as api:
            api.pause(session.id, "", CALL_S)
        changed = next(events)
        assert set(changed) == {"state"}
        assert "paused" in changed["state"]


def test_what_episodes_came_to_is_told_by_version(site: Site, admin: httpx.Client, session: Session) -> None:
    """Broken on purpose: returns of all sessions; those of episodes that have not ended."""
    ended = np.zeros(tiny.HORIZON_STEPS, np.bool_)
    ended[-1] = True
    with site.api() as api:
        submit(api, session, replace(batch(tiny.HORIZON_STEPS, seed=9, episode=8, version=2), truncated=ended))
        submit(api, session, batch(5, episode=9, version=2))
    total = site.server.rows("SELECT total FROM episode_returns WHERE session_id = ?", session.id)[0][0]
    page = admin.get(f"/ui/sessions/{session.id}").text
    (drawn,) = re.findall(r'id="returns-chart" data-chart="([^"]*)"', page)
    (line,) = json.loads(html.unescape(drawn))["lines"]
    assert line["label"] == "v2"
    assert line["y"] == [pytest.approx(total, rel=1e-4)]
    assert "over 1 episode<" in page


def test_a_stream_ends_with_its_key(site: Site, session: Session) -> None:
    """Broken on purpose: the gate asked once, at its beginning."""
    key = make_key(site.server.data, Scope.ACT)
    wait_until(site.server.http, key, good=True)
    with site.visitor(key) as http, http.stream("GET", f"/ui/sessions/{session.id}/events") as stream:
        lines = stream.iter_lines()
        assert any(line.startswith("event: sections") for line in lines)
        revoke(site.server.data, key)
        assert any(line.startswith("event: problem") for line in lines)


def test_whatever_comes_is_answered(site: Site, admin: httpx.Client, session: Session) -> None:
    """A page that says what is wrong, never a fault. Broken on purpose: `int(version)` as it comes."""
    path = f"/ui/sessions/{session.id}"
    token = form_token(admin, path)
    form = {"content-type": "application/x-www-form-urlencoded"}
    ok = f"form_token={token}"
    answers = [
        (415, admin.post(f"{path}/pause", content=b"{}", headers={"content-type": "application/json"})),
        (413, admin.post(f"{path}/pause", content=b"a=" + b"b" * 20_000, headers=form)),
        (400, admin.post(f"{path}/pause", content=b"\xff\xfe", headers=form)),
        (400, admin.post(f"{path}/pause", content=b"a=%ff", headers=form)),
        (400, admin.post(f"{path}/pause", content=b"&".join(b"a=%d" % i for i in range(40)), headers=form)),
        (404, admin.post(f"{path}/explode", data={"form_token": token})),
        (404, admin.post("/ui/sessions/nope/pause", data={"form_token": token})),
        (405, admin.post(path, data={"form_token": token})),
        (404, admin.get("/ui/")),
        (422, admin.get("/ui", params={"page_token": "x" * 200})),
        (422, admin.get("/ui", params={"page_token": "no token"})),
        (422, admin.post(f"{path}/pause", data={"form_token": token, "once": "x" * 1000})),
        (422, admin.post(f"{path}/rollback", data={"form_token": token})),
        (422, admin.post(f"{path}/rollback", data={"form_token": token, "reason": "x" * 501})),
        (404, admin.post(f"{path}/cancel", content=f"{ok}&operation=%3Cscript%3E", headers=form)),
        *(
            (status, admin.post(f"{path}/promote", data={"form_token": token, "reason": "r", "version": text}))
            for status, text in (
                (422, ""),
                (422, "two"),
                (422, "-1"),
                (422, "0"),
                (422, "9" * 10),
                (404, "77"),
                (422, "²"),
            )
        ),
    ]
    assert [answer.status_code for _, answer in answers] == [status for status, _ in answers]
    for _, answer in answers:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert not NO_SCRIPT.search(answer.text)
    assert acting(site, session) == 2


def test_what_callers_wrote_is_shown_as_text(site: Site, admin: httpx.Client, session: Session) -> None:
    """Broken on purpose: autoescape off."""
    assert do(admin, session, "rollback", {"reason": "<script>alert(1)</script>"}).status_code == 303
    page = admin.get(f"/ui/sessions/{session.id}").text
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page


def test_the_apis_refusals_stay_problems(site: Site) -> None:
    """Broken on purpose: `is_page` of what only begins with the same letters."""
    for path in ("/uix", "/sessions", "/v1/ui"):
        found = httpx.get(site.server.http + path, trust_env=False)
        assert found.headers["content-type"] == "application/problem+json"
    found = httpx.get(site.server.http + "/v1/ui", headers=bearer(site.keys[Scope.ADMIN]), trust_env=False)
    assert found.status_code == 404


def _sections(stream: httpx.Response) -> Iterator[dict[str, str]]:
    for line in stream.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))
