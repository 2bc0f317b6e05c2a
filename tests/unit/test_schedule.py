"""Schedules: what settings.ini may say, when ticks are due anywhere, and what becomes of each."""

import os
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.ledgers import fresh_file

from tallybook import schedule
from tallybook.errors import ConfigError
from tallybook.params import parse_parameters
from tallybook.runs import (
    LedgerState,
    claim,
    expire_lost,
    finish,
    get_run,
    list_runs,
    open_ledger,
    read_mark,
    request_run,
    retry,
)
from tallybook.schedule import (
    Misfire,
    Overlap,
    Section,
    next_ticks,
    parse_schedule,
    plan,
    plan_into,
    read_schedule,
    retry_at,
    tick_parameters,
    ticks,
)
from tallybook.types import RunState

SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FATES = {LedgerState.REQUESTED, LedgerState.COALESCED, LedgerState.EXPIRED, LedgerState.SKIPPED}


def section(cron="0 6 * * *", **more):
    """A schedule of the main report."""
    return Section(**{"name": "daily", "report": "category_totals", "cron": cron, **more})


def within(one, start, end):
    """All ticks of a schedule after a moment, up to another."""
    return list(takewhile(lambda tick: tick <= end, ticks(one, start)))


def utc(*parts):
    """A moment."""
    return datetime(*parts, tzinfo=UTC)


class TestSection:
    """What a section may say."""

    def test_defaults(self):
        """Two settings are enough."""
        [made] = parse_schedule(
            {
                "tallybook": {"worker_count": "4"},
                "schedule.a": {"report": "category_totals", "cron": " 0  6 * * * ", "misfire": ""},
            }
        )
        assert made == section(name="a")
        assert (made.cron, made.time_zone, made.enabled) == ("0 6 * * *", "UTC", True)
        assert made.retries == dict.fromkeys(
            [RunState.CELL_FAILED, RunState.KERNEL_DIED, RunState.TIMED_OUT, RunState.LOST], 2
        )

    def test_everything(self):
        """Each setting, as it is written in settings.ini."""
        [made] = parse_schedule(
            {
                "Schedule.a-1": {
                    "report": "category_totals",
                    "cron": "0 6 * * MON-FRI",
                    "time_zone": "Europe/Berlin",
                    "misfire": "run-all",
                    "misfire_limit": "7",
                    "grace": "90s",
                    "deadline": "1h 30m",
                    "timeout": "2d",
                    "retries": "kernel_died 3, lost 1",
                    "backoff": "5m",
                    "backoff_limit": "2 h",
                    "overlap": "allow",
                    "enabled": "false",
                },
                "schedule.a-1.parameters": {"top": "5", "since": "today-7d", "until": ""},
            }
        )
        assert made == section(
            "0 6 * * MON-FRI",
            name="a-1",
            time_zone="Europe/Berlin",
            misfire=Misfire.RUN_ALL,
            misfire_limit=7,
            grace=timedelta(seconds=90),
            deadline=timedelta(minutes=90),
            timeout=timedelta(days=2),
            retries={RunState.KERNEL_DIED: 3, RunState.LOST: 1},
            backoff=timedelta(minutes=5),
            backoff_limit=timedelta(hours=2),
            overlap=Overlap.ALLOW,
            enabled=False,
            parameters={"top": "5", "since": "today-7d"},
        )

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("cron", "0 6 * *", "cron = 0 6 * *: should have 5 fields"),
            ("cron", "0 0 6 * * *", "should have 5 fields"),
            ("cron", "0 6 30 2 *", "bad day-of-month"),
            ("cron", "0 0 */30 2 MON#5", "it never comes due"),
            ("cron", "x 6 * * *", "bad minute"),
            ("time_zone", "berlin", "there is no such zone. Did you mean 'Europe/Berlin'?"),
            ("time_zone", "??", "Such as Europe/Berlin or UTC"),
            ("misfire", "run", "misfire = run: should be 'run-latest', 'run-all' or 'skip'"),
            ("misfire_limit", "0", "greater than or equal to 1"),
            ("grace", "soon", "should be a span of time such as 90s"),
            ("grace", "5", "should be a span of time such as 90s"),
            ("grace", "9 m and more", "should be a span of time such as 90s"),
            ("backoff", "367d", "backoff = 367d: should be between 0s and 366d"),
            ("timeout", "0s", "timeout = 0s: should be longer than 0s"),
            ("retries", "many", "should be a number such as 2, or kernel_died 3"),
            ("retries", "21", "less than or equal to 20"),
            ("retries", "gate_failed 1", "gate_failed is never retried: the same data fails again"),
            (
                "retries",
                "ok 1",
                "ok is not retried; cell_failed, kernel_died, timed_out, lost are.",
            ),
            ("retries", "kernel_dead 1", "Did you mean 'kernel_died'?"),
            ("overlap", "wait", "should be 'skip', 'queue' or 'allow'"),
            ("enabled", "perhaps", "valid boolean"),
            ("report", "totals", "there is no report 'totals'"),
            ("deadlin", "1h", "deadlin is unknown. Did you mean 'deadline'?"),
            (
                "parameters",
                '{"top": 5}',
                "[schedule.a.parameters], and in it lines such as top = 5",
            ),
        ],
    )
    def test_mistakes(self, name, text, said):
        """Each is told with what was found and what would be right."""
        settings = {"report": "category_totals", "cron": "0 6 * * *", name: text}
        with pytest.raises(ConfigError) as error:
            parse_schedule({"schedule.a": settings})
        assert said in str(error.value)
        assert str(error.value).startswith("1 setting of the schedule is wrong:\n  [schedule.a] ")

    def test_all_at_once(self):
        """Also titles, what is missing, and parameters."""
        with pytest.raises(ConfigError) as error:
            parse_schedule(
                {
                    "schedule": {"cron": "0 6 * * *"},
                    "schedule.a.paramters": {"top": "5"},
                    "schedule.b.parameters": {"top": "many"},
                    "schedule.ü": {"report": "category_totals", "cron": "0 6 * * *"},
                    "schedule.c": {"report": "category_totals", "cron": "0 6 * * *"},
                    "schedule.c.parameters": {"top": "many", "since": "someday"},
                }
            )
        assert str(error.value).splitlines() == [
            "6 settings of the schedule are wrong:",
            "  [schedule] needs a name, as in [schedule.morning]",
            "  [schedule.a.paramters] is unknown; there is [schedule.a.parameters]",
            "  [schedule.b] report is missing",
            "  [schedule.b] cron is missing",
            "  [schedule.ü] name = ü: string should match pattern '^[A-Za-z0-9_-]+$'",
            "  [schedule.c] category_totals: 2 parameters are wrong",
            *str(error.value).splitlines()[7:],
        ]
        assert "top: " in str(error.value)
        assert "since: " in str(error.value)

    def test_file(self, tmp_path, monkeypatch):
        """The file is settings.ini of the folder whose settings count."""
        assert read_schedule(tmp_path / "none.ini") == []
        monkeypatch.setenv("TALLYBOOK_SETTINGS_DIR", str(tmp_path))
        assert read_schedule() == []
        (tmp_path / "settings.ini").write_text(
            "[schedule.a]\nreport = category_totals\ncron = 0 6 * * *\n"
        )
        assert read_schedule() == [section(name="a")]


ODD_ZONES = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Havana",
    "America/Nuuk",
    "America/Scoresbysund",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Gaza",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Chatham",
    "UTC",
]
TIMES = [(0, 0), (0, 30), (1, 59), (2, 30), (23, 30)]


def days_of(one, year):
    """On which days of a year a schedule runs, as its own zone counts them."""
    start, end = utc(year, 1, 1) - 2 * DAY, utc(year + 1, 1, 1) + 2 * DAY
    days = [tick.astimezone(ZoneInfo(one.time_zone)).date() for tick in within(one, start, end)]
    return Counter(day for day in days if day.year == year)


def once_a_day(zone, year, hour, minute):
    """Assert that a daily job runs once on each day that there is."""
    days = days_of(section(f"{minute} {hour} * * *", time_zone=zone), year)
    length = (date(year + 1, 1, 1) - date(year, 1, 1)).days
    assert set(days.values()) == {1}, zone
    missing = {date(year, 1, 1) + DAY * n for n in range(length)} - days.keys()
    assert all(not exists(day, zone) for day in missing), (zone, missing)


def exists(day, zone):
    """Whether a day occurs somewhere: some zones have left one out."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - DAY
    steps = (start + MINUTE * 15 * n for n in range(4 * 72))
    return any(step.astimezone(ZoneInfo(zone)).date() == day for step in steps)


class TestTicks:
    """When a schedule is due."""

    @pytest.mark.parametrize("zone", ODD_ZONES)
    def test_daily(self, zone):
        """Once a day, on both days on which clocks move, whatever the hour."""
        for hour, minute in TIMES:
            once_a_day(zone, 2024, hour, minute)

    @pytest.mark.parametrize(
        ("zone", "year"),
        [("Pacific/Apia", 2011), ("Pacific/Kwajalein", 1993), ("America/Sao_Paulo", 2018)],
    )
    def test_days_left_out(self, zone, year):
        """A day that is left out has no run, and the next one has no two."""
        for hour, minute in TIMES:
            once_a_day(zone, year, hour, minute)

    @pytest.mark.hypothesis
    @given(
        zone=st.sampled_from(sorted(available_timezones())),
        year=st.integers(2022, 2026),
        hour=st.integers(0, 23),
        minute=st.integers(0, 59),
    )
    @settings(max_examples=25)
    def test_any_zone(self, zone, year, hour, minute):
        """Anywhere, in any year, at any minute."""
        once_a_day(zone, year, hour, minute)

    @pytest.mark.hypothesis  # so that `make soak` tries all zones
    @pytest.mark.parametrize("year", range(2022, 2027))
    def test_every_zone(self, year):
        """Each zone of zoneinfo, at the two hours at which most clocks move."""
        for zone in sorted(available_timezones())[:: 1 if SOAK else 40]:
            for hour, minute in ((0, 0), (2, 30)):
                once_a_day(zone, year, hour, minute)

    @pytest.mark.hypothesis
    @given(
        zone=st.sampled_from(ODD_ZONES),
        cron=st.sampled_from(
            [
                "0 * * * *",
                "*/20 * * * *",
                "30 2 * * *",
                "*/20 2,23 * * *",
                "0 */6 * * *",
                "15 0-23 * * SUN",
                "0 0 L * *",
            ]
        ),
        start=st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC)),
        cut=st.integers(0, 20),
    )
    def test_from_anywhere(self, zone, cron, start, cut):
        """In order, each once, and the same ones from wherever one starts."""
        one = section(cron, time_zone=zone)
        found = list(islice(ticks(one, start), 30))
        assert all(early < late for early, late in pairwise([start, *found]))
        assert list(islice(ticks(one, found[cut]), 29 - cut)) == found[cut + 1 :]
        assert list(islice(ticks(one, found[cut] - timedelta(microseconds=1)), 1)) == [found[cut]]

    @pytest.mark.parametrize("zone", ODD_ZONES)
    def test_hourly(self, zone):
        """Every hour is an hour after the last, all year."""
        step = 10 * MINUTE if zone == "Australia/Lord_Howe" else HOUR  # it moves by half an hour
        cron = "*/10 * * * *" if zone == "Australia/Lord_Howe" else "30 * * * *"
        one = section(cron, time_zone=zone)
        for moved in (utc(2024, 3, 1), utc(2024, 9, 25)):
            found = within(one, moved, moved + 65 * DAY)
            assert {late - early for early, late in pairwise(found)} == {step}

    @pytest.mark.parametrize(
        ("cron", "day", "expected"),
        [
            ("30 2 * * *", "2026-03-29", ["03:00+02:00"]),
            ("30 2 * * *", "2026-10-25", ["02:30+02:00"]),
            ("0,30 2,3 * * *", "2026-03-29", ["03:00+02:00", "03:30+02:00"]),
            ("*/30 2 * * *", "2026-10-25", ["02:00+02:00", "02:30+02:00"]),
            ("0 2 * * SUN", "2026-10-25", ["02:00+02:00"]),
        ],
    )
    def test_berlin(self, cron, day, expected):
        """The two nights, label by label."""
        zone = ZoneInfo("Europe/Berlin")
        start = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=zone)
        found = within(section(cron, time_zone="Europe/Berlin"), start, start + 23 * HOUR)
        local = [tick.astimezone(zone) for tick in found]
        assert [f"{tick:%H:%M}{tick.isoformat()[-6:]}" for tick in local] == expected

    def test_an_end(self):
        """An expression that comes due no more ends, though settings cannot hold one."""
        one = section().model_copy(update={"cron": "0 0 */30 2 MON#5"})
        assert next_ticks(one, NOON, 3) == []

    def test_for_people(self):
        """In the schedule's own zone."""
        found = next_ticks(section(time_zone="Asia/Tokyo"), NOON, 2)
        assert [tick.isoformat() for tick in found] == [
            "2026-11-25T06:00:00+09:00",
            "2026-11-26T06:00:00+09:00",
        ]


POLICIES = st.fixed_dictionaries(
    {
        "cron": st.sampled_from(["*/20 * * * *", "30 2 * * *", "0 */3 * * *", "0 0-23 * * *"]),
        "time_zone": st.sampled_from(ODD_ZONES),
        "misfire": st.sampled_from(Misfire),
        "misfire_limit": st.integers(1, 4),
        "grace": st.sampled_from(["0s", "1m", "1h"]),
        "deadline": st.sampled_from([None, "0s", "30m", "1d"]),
        "overlap": st.sampled_from(Overlap),
    }
)
JUMPS = st.sampled_from([0, 1, 30, 60, 599, 3600, 7200, 86_400, -1, -3600, -86_400])


class TestPlan:
    """What becomes of each tick."""

    def fates(self, now=NOON, unfinished=None, **policy):
        """The states of the hourly ticks of the last five hours, in order."""
        decisions = plan(section("0 * * * *", **policy), now - 5 * HOUR, now, unfinished=unfinished)
        return "".join(decision.state.value[0] for decision in decisions)

    def test_policies(self):
        """Each of them; r is requested, c coalesced, e expired, s skipped."""
        late = NOON + 10 * MINUTE
        assert self.fates() == "ccccr"
        assert self.fates(late) == "ccccr"
        assert self.fates(misfire="run-all") == "rrrrr"
        assert self.fates(late, misfire="run-all", misfire_limit=2) == "cccrr"
        assert self.fates(late, misfire="skip") == "sssss"
        assert self.fates(misfire="skip") == "ssssr"
        assert self.fates(grace="3h", misfire="skip") == "srrrr"
        assert self.fates(late, deadline="5m") == "eeeee"
        assert self.fates(late, misfire="run-all", deadline="3h") == "eerrr"
        assert self.fates(unfinished=7) == "ccccr"
        assert self.fates(unfinished=7, overlap="allow") == "ccccr"
        assert self.fates(unfinished=7, overlap="skip") == "ccccs"
        assert self.fates(unfinished=None, overlap="skip", misfire="run-all") == "rrrrr"

    def test_reasons(self):
        """Whatever does not run says why."""
        late = NOON + 10 * MINUTE
        one = section("0 * * * *", deadline="4h", overlap="skip")
        assert [decision.reason for decision in plan(one, NOON - 6 * HOUR, late, unfinished=7)] == [
            "its deadline had passed when it was planned",
            "its deadline had passed when it was planned",
            "later ones were due as well (misfire = run-latest)",
            "later ones were due as well (misfire = run-latest)",
            "later ones were due as well (misfire = run-latest)",
            "run 7 had not ended (overlap = skip)",
        ]
        [skipped, _] = plan(section("0 * * * *", misfire="skip"), NOON - 2 * HOUR, NOON)
        assert skipped.reason == "nobody was there to see it (misfire = skip)"

    @pytest.mark.parametrize("misfire", Misfire)
    def test_portions(self, misfire, monkeypatch):
        """Planned in portions or at once, each tick has the same fate."""
        one = section("* * * * *", misfire=misfire, misfire_limit=3)
        whole = plan(one, NOON - HOUR, NOON)
        for portion in (1, 2, 7, 59, 60, 61):
            monkeypatch.setattr(schedule, "PORTION", portion)
            found, since = [], NOON - HOUR
            while decisions := plan(one, since, NOON):
                found += decisions
                since = decisions[-1].tick
            assert found == whole

    @pytest.mark.hypothesis
    @given(
        policy=POLICIES,
        start=st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC)),
        jumps=st.lists(JUMPS, max_size=8),
        unfinished=st.sampled_from([None, 7]),
    )
    @settings(max_examples=500 if SOAK else 100)  # times 20 in the soak
    def test_never_nothing(self, policy, start, jumps, unfinished):
        """Under any clock each tick gets one fate: runs, coalesced, expired or skipped."""
        one = section(**policy)
        now = planned = start
        decided = []
        for jump in jumps:
            now += timedelta(seconds=jump)
            decisions = plan(one, planned, now, unfinished=unfinished)
            assert all(tick.reason or tick.state is LedgerState.REQUESTED for tick in decisions)
            decided += decisions
            planned = max(planned, now)
        assert [decision.tick for decision in decided] == within(one, start, planned)
        counts = Counter(decision.state for decision in decided)
        assert counts.keys() <= FATES
        assert sum(counts.values()) == len(decided)


class TestParameters:
    """What a run for a tick is told."""

    def test_days(self):
        """Days are those of the tick in the schedule's zone, also in defaults."""
        model = parse_parameters('Since: date = "today-1d"\nuntil: date = "today"\ntop: int = 5')
        one = section(time_zone="Asia/Tokyo", parameters={"since": "month_start"})
        assert tick_parameters(one, model, utc(2026, 11, 30, 20)) == {
            "Since": "2026-12-01",
            "until": "2026-12-01",
            "top": 5,
        }


class TestRetry:
    """When a run that failed is tried again."""

    @pytest.mark.parametrize("state", RunState)
    def test_states(self, tmp_path, state):
        """By its state, later each time, and not for ever."""
        one = section(retries="kernel_died 3, timed_out 1", backoff="1m", backoff_limit="3m")
        pauses = []
        with closing(open_ledger(fresh_file(tmp_path))) as ledger:
            request_run(ledger, "totals", {}, now=NOON)
            now = NOON
            while run := claim(ledger, "anna", now=now, lease_seconds=60):
                again = retry_at(one, run, state, now=now)
                finish(ledger, run, state, now=now, retry_at=again)
                pauses += [(again - now) / MINUTE] if again else []
                now = again or now
        expected = {RunState.KERNEL_DIED: [1, 2, 3], RunState.TIMED_OUT: [1]}
        assert pauses == expected.get(state, [])

    def test_defaults(self, tmp_path):
        """A data gate, a wrong parameter, a skip: never."""
        with closing(open_ledger(fresh_file(tmp_path))) as ledger:
            run = request_run(ledger, "totals", {}, now=NOON)
        retried = {state for state in RunState if retry_at(section(), run, state, now=NOON)}
        assert retried == set(section().retries)


class TestPlanInto:
    """Every due tick is in the ledger once."""

    def test_days(self, ledger):
        """New, due, not due, asleep, put back."""
        one = section(parameters={"since": "yesterday"}, deadline="2h", timeout="90s")
        assert plan_into(ledger, [one], now=NOON) == []
        assert plan_into(ledger, [one], now=NOON + 17 * HOUR) == []
        [run] = plan_into(ledger, [one], now=NOON + 18 * HOUR)
        assert (run.schedule, run.tick, run.state) == ("daily", NOON + 18 * HOUR, "requested")
        assert run.parameters["since"] == "2026-11-24"
        assert (run.start_by, run.timeout_seconds) == (run.tick + 2 * HOUR, 90)
        assert (run.exclusive, run.max_attempts) == (True, 3)
        assert plan_into(ledger, [one], now=NOON + 18 * HOUR) == []
        slept = plan_into(ledger, [one], now=NOON + 18 * HOUR + 3 * DAY)
        assert [run.state for run in slept] == ["expired", "expired", "requested"]
        assert plan_into(ledger, [one], now=NOON) == []
        assert plan_into(ledger, [one], now=NOON + 18 * HOUR + 3 * DAY) == []

    def test_retry_of_what_did_not_run(self, ledger):
        """It has the parameters of its own day."""
        one = section(parameters={"since": "yesterday"})
        plan_into(ledger, [one], now=NOON)
        coalesced, _ = plan_into(ledger, [one], now=NOON + 2 * DAY)
        assert coalesced.state == "coalesced"
        assert retry(ledger, coalesced.id, now=NOON).parameters["since"] == "2026-11-24"

    def test_overlap(self, ledger):
        """An earlier run that has not ended is in the way until it has."""
        one = section("0 * * * *", overlap="skip")
        plan_into(ledger, [one], now=NOON)
        [first] = plan_into(ledger, [one], now=NOON + HOUR)
        [second] = plan_into(ledger, [one], now=NOON + 2 * HOUR)
        assert second.reason == f"run {first.id} had not ended (overlap = skip)"
        run = claim(ledger, "anna", now=NOON + 2 * HOUR, lease_seconds=60)
        finish(ledger, run, RunState.OK, now=NOON + 2 * HOUR)
        [third] = plan_into(ledger, [one], now=NOON + 3 * HOUR)
        assert third.state == "requested"

    def test_rule_that_changed(self, ledger):
        """It counts from now on, and so does one that is switched on again."""
        hourly, daily = section("0 * * * *"), section()
        off = section("0 * * * *", enabled=False)
        assert plan_into(ledger, [off], now=NOON) == []
        assert read_mark(ledger, "daily") is None
        plan_into(ledger, [daily], now=NOON)
        assert plan_into(ledger, [hourly], now=NOON + 5 * HOUR) == []
        assert len(plan_into(ledger, [hourly], now=NOON + 6 * HOUR)) == 1
        assert plan_into(ledger, [off], now=NOON + 7 * HOUR) == []
        assert plan_into(ledger, [off], now=NOON + 8 * HOUR) == []
        assert plan_into(ledger, [hourly], now=NOON + 9 * HOUR + MINUTE) == []
        assert len(plan_into(ledger, [hourly], now=NOON + 10 * HOUR)) == 1

    def test_portions(self, ledger, monkeypatch):
        """More ticks than go into one transaction."""
        monkeypatch.setattr(schedule, "PORTION", 7)
        one = section("*/10 * * * *")
        plan_into(ledger, [one], now=NOON)
        written = plan_into(ledger, [one], now=NOON + 5 * HOUR)
        assert [run.tick for run in written] == [NOON + n * 10 * MINUTE for n in range(1, 31)]
        assert [run.state for run in written] == ["coalesced"] * 29 + ["requested"]
        assert read_mark(ledger, "daily").planned_until == NOON + 5 * HOUR

    def test_somebody_else_was_first(self, ledger, monkeypatch):
        """Then it looks again, and finds nothing to do."""
        one = section()
        plan_into(ledger, [one], now=NOON)
        mark = read_mark(ledger, "daily")
        assert len(plan_into(ledger, [one], now=NOON + DAY)) == 1
        stale = [mark]
        monkeypatch.setattr(
            schedule, "read_mark", lambda *asked: stale.pop() if stale else read_mark(*asked)
        )
        assert plan_into(ledger, [one], now=NOON + DAY) == []
        assert not stale
        assert len(list_runs(ledger).runs) == 1

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"report": "gone"}, "there is no report 'gone'"),
            ({"parameters": {"nosuch": "1"}}, "there is no such parameter"),
        ],
    )
    def test_report_that_changed(self, ledger, change, said):
        """A tick that cannot run any more is not lost: it says why."""
        one = section("0 * * * *").model_copy(update=change)
        plan_into(ledger, [one], now=NOON)
        coalesced, stuck = plan_into(ledger, [one], now=NOON + 2 * HOUR)
        assert (coalesced.state, stuck.state) == ("coalesced", "usage")
        assert "later ones" in coalesced.reason
        assert said in stuck.reason

    @pytest.mark.hypothesis
    @given(
        policy=POLICIES,
        steps=st.lists(st.tuples(JUMPS, st.booleans(), st.sampled_from(RunState)), max_size=6),
    )
    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_planned_is_what_became(self, tmp_path, policy, steps):
        """Planned = ran + coalesced + expired + skipped, whatever clocks and workers do."""
        one = section(**policy)
        with closing(open_ledger(fresh_file(tmp_path))) as ledger:
            now = latest = NOON
            plan_into(ledger, [one], now=now)
            for jump, works, state in steps:
                now += timedelta(seconds=jump)
                latest = max(latest, now)
                plan_into(ledger, [one], now=now)
                if works and (run := claim(ledger, "anna", now=now, lease_seconds=60)):
                    again = retry_at(one, run, state, now=now)
                    finish(ledger, run, state, now=now, retry_at=again)
            ran = {run.id for run in list_runs(ledger, limit=100_000).runs if run.attempt}
            end = latest + 2 * DAY
            expire_lost(ledger, now=end)
            while run := claim(ledger, "bert", now=end, lease_seconds=60):
                ran.add(run.id)
                finish(ledger, run, RunState.OK, now=end)
            found = list_runs(ledger, limit=100_000).runs
            assert sorted(run.tick for run in found) == within(one, NOON, latest)
            never = Counter(run.state for run in found if run.id not in ran)
            assert never.keys() <= FATES - {LedgerState.REQUESTED}
            assert len(found) == len(ran) + sum(never.values())
            assert all(get_run(ledger, number).finished_at for number in ran)
