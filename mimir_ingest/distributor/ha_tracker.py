"""The HA tracker's shell: decides each request of a replica by the elections as this process knows them.

    request ─► election known? ─► elected: taken, and noted; not elected: noted and refused
                               ─► unknown: elected in the store, together with all that come meanwhile; then as above
    every second ─► what was noted since is written down where the store's time is old; fail-overs
    half-hourly  ─► silent clusters are given up

A request touches the store at the first sight of a cluster only; everything else is one change a second at most, of all
clusters that are due. While the store does not answer, known clusters go on with whom they have. The decisions are in
`ha_election`; where it differs from Mimir is in docs/decisions/0012.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable

import structlog

from mimir_ingest.distributor.ha_election import (
    Candidate,
    HaLimits,
    Sighting,
    Sightings,
    elected,
    first_elections,
    given_up,
    has_room,
    renewals,
)
from mimir_ingest.distributor.ha_labels import Sender
from mimir_ingest.distributor.messages import with_tenant_flags
from mimir_ingest.errors import ElectionUnavailable, LimitExceeded, ReplicasDidNotMatch
from mimir_ingest.obs.ha_metrics import HaTrackerMetrics
from partitions.errors import PartitionError, RingUnavailable
from partitions.model import ElectionDesc, RingDesc, election_key
from partitions.watch import RingWatcher

LOOK_S = 1.0
"""How often it is looked what is due. why: so much later than the time-out a fail-over may come, and so many changes a
second the store may get from one process."""
CLEAN_UP_S, CLEAN_UP_VARIANCE = 1800.0, 0.2
"""How often silent clusters are given up, more or less."""
TOO_MANY_CLUSTERS_ID = "err-mimir-tenant-too-many-ha-clusters"
TOO_MANY_HA_CLUSTERS = "too_many_ha_clusters"
"""Discard reason."""

_NOTHING = Sightings()
_log = structlog.get_logger()


class HaTracker:
    """Elections of all tenants in one process. Used from one event loop; owns the watcher from `start` to `close`.

    Parameters
    ----------
    watcher : RingWatcher
        Of the elections' store; not started.
    limits_for : str -> HaLimits
        A tenant's limits.
    timeout_s : float
        How long a request waits for the election of a cluster that is new.
    now_ms, monotonic_s
        Clocks.
    """

    def __init__(
        self,
        watcher: RingWatcher,
        *,
        limits_for: Callable[[str], HaLimits],
        metrics: HaTrackerMetrics,
        timeout_s: float = 2.0,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watcher, self._limits_for, self._metrics = watcher, limits_for, metrics
        self._timeout_s, self._now_ms, self._monotonic_s = timeout_s, now_ms, monotonic_s
        self._jitter = random.uniform(-1.0, 1.0)
        self._seen: dict[str, Sightings] = {}
        self._candidates: dict[str, Candidate] = {}
        self._next_round: asyncio.Task[None] | None = None
        self._rounds: set[asyncio.Task[None]] = set()
        self._electing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def desc(self) -> RingDesc:
        """The newest view of the elections."""
        return self._watcher.desc

    @property
    def waits_for(self) -> str | None:
        """Why the view is not confirmed at the moment, as a sentence for people, or None."""
        return self._watcher.waits_for

    async def start(self) -> None:
        """Read the elections, then begin to keep them; waits for a store that is down.

        Raises RingUnavailable for what waiting cannot mend.
        """
        await self._watcher.start()
        self._tasks = [
            asyncio.create_task(self._follow(), name="ha-tracker-follow"),
            asyncio.create_task(self._keep_up(), name="ha-tracker"),
        ]

    async def close(self) -> None:
        """Stop, and close the store. Idempotent."""
        tasks, self._tasks = [*self._tasks, *self._rounds], []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._watcher.close()

    async def admit(
        self,
        tenant: str,
        sender: Sender,
        limits: HaLimits,
        *,
        counts: tuple[int, int, int],
        sample_ms: int | None = None,
    ) -> None:
        """Return when a request's samples are to be taken.

        Parameters
        ----------
        counts : (int, int, int)
            Float samples, native histograms and exemplars of the request.
        sample_ms : int, optional
            The earliest sample's time (ms since the Unix epoch).

        Raises
        ------
        ReplicasDidNotMatch
            Another replica is elected.
        LimitExceeded
            It would be one cluster more than the tenant may have.
        ElectionUnavailable
            The cluster is new, and its election could not be stored.
        """
        now_ms = self._now_ms()
        key = election_key(tenant, sender.cluster)
        election = elected(self.desc, key)
        if election is None:
            election = await self._elect_first(tenant, sender, limits, now_ms)
        sighting = Sighting(sender.replica, now_ms, now_ms if sample_ms is None else min(sample_ms, now_ms))
        self._seen[key] = self._seen.get(key, _NOTHING).noted(sighting, election.replica)
        if election.replica != sender.replica:
            self._metrics.deduped_samples.labels(tenant, sender.cluster).inc(counts[0] + counts[1])
            raise ReplicasDidNotMatch(replica=sender.replica, elected=election.replica, dropped=counts)

    async def _elect_first(self, tenant: str, sender: Sender, limits: HaLimits, now_ms: int) -> ElectionDesc:
        """Return the election of a cluster that has none; who wins need not be the sender."""
        if not has_room(len(self.desc.elections.get(tenant, ())), limits):
            raise _too_many_clusters(limits)
        key = election_key(tenant, sender.cluster)
        self._candidates.setdefault(key, Candidate(tenant, sender.cluster, sender.replica, now_ms))
        if self._next_round is None:
            self._next_round = asyncio.create_task(self._hold_round(), name="ha-tracker-election")
            self._rounds.add(self._next_round)
            self._next_round.add_done_callback(self._end_round)
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(self._next_round)
        except PartitionError as error:
            raise ElectionUnavailable(f"the election of a replica could not be stored: {error.message}") from error
        except TimeoutError:
            raise ElectionUnavailable(
                f"the election of a replica was not stored within {self._timeout_s:g} s"
            ) from None
        election = elected(self.desc, key)
        if election is None:  # others of the same round took the last places
            raise _too_many_clusters(limits)
        return election

    async def _hold_round(self) -> None:
        """Elect all candidates that have come until the round before was over."""
        async with self._electing:
            self._next_round = None  # who comes from now on is in another one
            candidates, self._candidates = self._candidates, {}
            await self._change(
                lambda desc: first_elections(desc, candidates.values(), self._limits_for, self._now_ms())
            )

    def _end_round(self, ended: asyncio.Task[None]) -> None:
        self._rounds.discard(ended)
        if not ended.cancelled():
            ended.exception()  # who waited was told

    async def _change(self, edit: Callable[[RingDesc], Iterable[ElectionDesc]]) -> None:
        """Change elections in the store. Raises RingUnavailable, RingConflict."""

        def counted(desc: RingDesc) -> list[ElectionDesc]:
            wanted = list(edit(desc))
            for election in wanted:
                self._metrics.store_changes.labels(election.tenant, election.cluster).inc()
            return wanted

        await self._watcher.change(counted)

    async def _keep_up(self) -> None:
        clean_s = self._monotonic_s() + _clean_up_pause_s()
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.renew()
                if self._monotonic_s() >= clean_s:
                    clean_s = self._monotonic_s() + _clean_up_pause_s()
                    await self.clean_up()
            except Exception as error:  # why: without this task there would be no fail-over any more
                _log.exception("the HA tracker failed", err=str(error))

    async def renew(self) -> None:
        """Write down what is due, fail-overs included; nothing is due most of the time, and costs nothing."""

        def edit(desc: RingDesc) -> list[ElectionDesc]:
            return renewals(desc, self._seen, self._limits_for, self._now_ms(), jitter=self._jitter)

        if not edit(self.desc):
            return
        try:
            await self._change(edit)
        except PartitionError as error:
            _log.warning("elections could not be brought up to date", reason=error.message)

    async def clean_up(self) -> None:
        """Give up the clusters that are silent for long."""
        self._metrics.cleanup_started.inc()
        marked: list[ElectionDesc] = []

        def edit(desc: RingDesc) -> list[ElectionDesc]:
            marked[:] = given_up(desc, self._now_ms())
            return marked

        try:
            await self._change(edit)
        except PartitionError as error:
            self._metrics.cleanup_failed.inc()
            _log.warning("silent clusters could not be given up", reason=error.message)
            return
        self._metrics.cleanup_marked.inc(len(marked))

    async def _follow(self) -> None:
        """Tell of what changes, whoever changed it."""
        seen = self.desc
        while True:
            try:
                desc = await self._watcher.changed(seen)
            except RingUnavailable:  # the watcher is closed
                return
            for key, entry in desc.entries.items():
                before = seen.entries.get(key)
                if before is not entry and isinstance(entry, ElectionDesc):
                    self._note_change(elected(seen, key), entry)
            gone = sum(1 for key in seen.entries if key not in desc.entries)
            if gone:
                self._metrics.cleanup_deleted.inc(gone)
            seen = desc

    def _note_change(self, before: ElectionDesc | None, entry: ElectionDesc) -> None:
        if entry.deleted:
            self._seen.pop(entry.key, None)
            self._metrics.forget(entry.tenant, entry.cluster)
        elif before is None or before.replica != entry.replica:
            self._metrics.propagation_seconds.observe(max(self._now_ms() - entry.elected_ms, 0) / 1000)
            _log.info(
                "a replica is elected",
                user=entry.tenant,
                cluster=entry.cluster,
                replica=entry.replica,
                before=before.replica if before is not None else "",
            )


def _clean_up_pause_s() -> float:
    return CLEAN_UP_S * random.uniform(1 - CLEAN_UP_VARIANCE, 1 + CLEAN_UP_VARIANCE)


def _too_many_clusters(limits: HaLimits) -> LimitExceeded:
    return LimitExceeded(
        with_tenant_flags(
            "the write request has been rejected because the maximum number of high-availability (HA) clusters has "
            f"been reached for this tenant (limit: {limits.max_clusters})",
            TOO_MANY_CLUSTERS_ID,
            "distributor.ha-tracker.max-clusters",
        ),
        error_id=TOO_MANY_CLUSTERS_ID,
    )
