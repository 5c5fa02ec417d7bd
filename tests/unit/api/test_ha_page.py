"""`/distributor/ha_tracker`: who is elected, as a page and as JSON (http-api 4.6)."""

import re

import httpx
from fastapi import FastAPI

from mimir_ingest.api.ha_tracker import ha_tracker_router
from mimir_ingest.api.index import standard_groups
from mimir_ingest.config.settings import load
from tests.support.ring import election, ring_of

PATH = "/distributor/ha_tracker"
NOW_MS = 1_771_320_600_000
"""2026-02-17T09:30:00Z"""


def client(*elections):
    limits = load([], {})[0].limits
    others = limits.overridden({"ha_tracker_failover_timeout": type(limits.ha_tracker_failover_timeout)(4 * 10**9)})
    app = FastAPI(openapi_url=None)
    app.include_router(
        ha_tracker_router(
            view=lambda: ring_of(*elections),
            limits_for=lambda tenant: others if tenant == "team-b" else limits,
            now_ms=lambda: NOW_MS,
        )
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


ELECTIONS = (
    election("prod", "r0", tenant="team-b", received_ms=NOW_MS - 5_000, elected_ms=NOW_MS - 5_400_000),
    election("prod", "r0", tenant="team-a", received_ms=NOW_MS - 5_001, elected_ms=NOW_MS - 5_400_000),
    election("<eu>/1", "r1", tenant="team-a", received_ms=NOW_MS - 20_000, elected_ms=NOW_MS - 1),
)


async def test_as_json_durations_are_nanoseconds_from_now_by_the_tenants_limits():
    async with client(*ELECTIONS) as http:
        answer = await http.get(PATH, headers={"Accept": "text/html, application/json"})
    rows = [
        ("team-a", "<eu>/1", "r1", "2026-02-17T09:29:59.999Z", "2026-02-17T09:29:40Z", -5_000_000_000, 10_000_000_000),
        ("team-a", "prod", "r0", "2026-02-17T08:00:00Z", "2026-02-17T09:29:54.999Z", 9_999_000_000, 24_999_000_000),
        ("team-b", "prod", "r0", "2026-02-17T08:00:00Z", "2026-02-17T09:29:55Z", 10_000_000_000, -1_000_000_000),
    ]
    names = ("userID", "cluster", "replica", "lastElectionTime", "electedLastSeenTime")
    names += ("updateDuration", "failoverDuration")
    assert answer.json() == {
        "elected": [dict(zip(names, row, strict=True)) for row in rows],
        "now": "2026-02-17T09:30:00Z",
    }
    assert answer.headers["content-type"] == "application/json"


async def test_nobody_is_null():
    async with client() as http:
        answer = await http.get(PATH, headers={"Accept": "application/json"})
        assert answer.json() == {"elected": None, "now": "2026-02-17T09:30:00Z"}
        assert "No replica has been elected." in (await http.get(PATH)).text


async def test_as_a_page_names_are_escaped_and_silence_is_shown():
    async with client(*ELECTIONS) as http:
        answer = await http.get(PATH)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>HA Tracker Status</title>" in answer.text
    titles = ["User ID", "Cluster", "Replica", "Last Election", "Elected Last Seen Time", "Time Until Update"]
    assert re.findall("<th>(.*?)</th>", answer.text) == [*titles, "Time Until Failover"]
    cells = re.findall("<td>(.*?)</td>", answer.text)
    assert cells[:7] == [
        *("team-a", "<code>&lt;eu&gt;/1</code>", "<code>r1</code>"),
        *("2026-02-17T09:29:59.999Z", "2026-02-17T09:29:40Z", "-5s", "10s"),
    ]
    assert cells[12:14] == ["9.9s", "24.9s"]
    assert re.match("-1s <span .*silent</span>", cells[-1])


def test_the_index_links_to_it_where_it_is():
    def links(*, ha_tracker):
        groups = standard_groups({"distributor"}, runtime_config=False, ha_tracker=ha_tracker)
        return [link.path for group in groups for link in group.links]

    assert "distributor/ha_tracker" in links(ha_tracker=True)
    assert "distributor/ha_tracker" not in links(ha_tracker=False)
