"""Owned series: what the distributor would route to the same partition today (spec ingest-storage.md 9.7)."""

from prometheus_client import CollectorRegistry, Gauge

from mimir_ingest.distributor.route import route
from mimir_ingest.ingester.owned_series import OwnedSeries
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.log.contract import Record
from mimir_ingest.wire.record import VERSION_COLUMNAR, RecordSettings, encode_columnar
from partitions.model import PartitionState as State
from partitions.ring import PartitionRing
from tests.support.batches import write_batch

LIMITS = RecordSettings(max_series=0, out_of_order_window_ms=0, creation_grace_ms=600_000)
T0 = 1_700_000_000_000


def ring_of(*active):
    return PartitionRing.build(dict.fromkeys(active, State.ACTIVE))


def test_series_are_owned_where_the_distributor_would_send_them(monkeypatch):
    batch = write_batch([({"__name__": "m", "i": str(i)}, [(T0, 1.0)]) for i in range(400)])
    states = {}
    for partition in (0, 1, 7):
        states[partition] = PartitionState(
            "t", partition, settings=PartitionSettings(), default_record_settings=lambda _: LIMITS
        )
        value = encode_columnar(batch, LIMITS)
        states[partition].apply([Record(partition, 0, T0, b"a", value, VERSION_COLUMNAR)])
    rings = {"a": ring_of(0, 1, 2)}
    gauge = Gauge("owned", "", ["user"], registry=(registry := CollectorRegistry()))
    owned = OwnedSeries(gauge, rings.__getitem__)

    routed = {part.partition: len(part.rows) for part in route(batch, "a", rings["a"])}
    wanted = routed[0] + routed[1]
    assert 0 < wanted < 400
    counts = owned.count(states, owned.shards(states))
    assert counts == {"a": wanted}
    owned.show(counts)
    assert registry.get_sample_value("owned", {"user": "a"}) == wanted

    asked = []
    real = PartitionRing.lookup
    monkeypatch.setattr(PartitionRing, "lookup", lambda ring, tokens: asked.append(1) or real(ring, tokens))
    assert owned.count(states, owned.shards(states)) == counts
    assert not asked  # nothing changed
    rings["a"] = ring_of(7)
    assert owned.count(states, owned.shards(states)) == {"a": 400}
    rings["a"] = ring_of()
    assert owned.count(states, owned.shards(states)) == {"a": 0}
    owned.show({})
    assert registry.get_sample_value("owned", {"user": "a"}) is None
