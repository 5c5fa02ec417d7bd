"""Relabelling of pushed batches: samples stay beside their series, and what was decided is remembered."""

from __future__ import annotations

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.relabel import Relabeller
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.model.labels import encode_label_bytes
from mimir_ingest.model.relabel import Relabelling, parse_rules
from mimir_ingest.wire.remote_write_v1 import DecodedWrite
from tests.support.push_target import PushTarget, named


def test_a_batch_keeps_its_samples_beside_the_series_that_stay():
    rules = parse_rules(
        [{"source_labels": ["drop"], "regex": "1", "action": "drop"}, {"regex": "x", "action": "labeldrop"}]
    )
    sets = [encode_label_bytes({"__name__": "a", "drop": str(i % 2), "x": str(i)}) for i in range(4)]
    batch = WriteBatch.of_samples(sets, [1, 2, 3, 4], [10.0, 20.0, 30.0, 40.0])
    relabeller = Relabeller(remembered=2)
    relabelling = Relabelling(rules)
    for _ in range(2):
        after = relabeller.relabel(DecodedWrite(batch, 0, 0, False, False), "t", relabelling).batch
        assert after.values.tolist() == [10.0, 30.0]
        expected = WriteBatch.of_samples([encode_label_bytes({"__name__": "a", "drop": "0"})] * 2, [1, 3], [10.0, 30.0])
        assert after.labels.tobytes() == expected.labels.tobytes()
        assert after.hashes.tolist() == expected.hashes.tolist()


async def test_a_push_is_relabelled_before_it_is_validated():
    rules = parse_rules(
        [
            {"regex": "bad-name", "action": "labeldrop"},
            {"source_labels": ["__name__"], "regex": "noise.*", "action": "drop"},
        ]
    )
    async with PushTarget(DistributorLimits(relabelling=Relabelling(rules, ("pod",)))) as target:
        series = named(b"up", (b"bad-name", b"x"), (b"pod", b"7")), named(b"noise_total"), named(b"down")
        assert (await target.push(*series)).status_code == 200
        assert target.stored() == [(0, *named(b"up")), (0, *named(b"down"))]
