"""Bodies that nobody honest sends: the answer is 400 (or 200 where the damage still parses), never anything else."""

import asyncio
import tracemalloc

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.distributor.service import DistributorOptions
from tests.support.push_target import NOW_MS, PushTarget, named, write_request

MAX_BYTES = 1 << 20
REQUEST = write_request(
    [
        named(b"up", (b"instance", b"localhost:9090"), (b"job", b"node"), at=[NOW_MS, NOW_MS + 1]),
        named(b"http_requests_total", (b"code", b"200"), (b"path", "/caf\u00e9".encode())),
    ],
    [(1, b"up", b"Whether it is up.", b""), (2, b"http_requests", b"Requests.", b"requests")],
)


def snappy(body: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(body))


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


async def answers(bodies, allowed=(200, 400)):
    """Send all bodies to one program; check status and health, return the statuses."""
    statuses = []
    async with PushTarget(options=DistributorOptions(max_recv_msg_size=MAX_BYTES)) as target:
        for body in bodies:
            response = await target.post(body)
            assert response.status_code in allowed, (body, response.text)
            assert response.text == "" or response.text.endswith("\n")
            statuses.append(response.status_code)
        assert target.counters("cortex_distributor_inflight") == {}
        target.batches()
        assert (await target.post(snappy(REQUEST))).status_code == 200
    return statuses


async def test_a_body_cut_at_any_byte_is_refused_or_a_shorter_request():
    whole = snappy(REQUEST)
    assert set(await answers([whole[:i] for i in range(len(whole))])) == {400}
    cut = await answers([snappy(REQUEST[:i]) for i in range(len(REQUEST))])
    assert cut.count(200) < 8
    assert cut[0] == 200


async def test_any_flipped_bit_is_survived():
    for body, wrap in ((snappy(REQUEST), bytes), (REQUEST, snappy)):
        bodies = []
        for i in range(len(body)):
            for bit in range(8):
                damaged = bytearray(body)
                damaged[i] ^= 1 << bit
                bodies.append(wrap(damaged))
        statuses = await answers(bodies)
        assert {200, 400} == set(statuses)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_answered(body, compressed):

    asyncio.run(answers([snappy(body) if compressed else body]))


LENGTHS = [127, 128, 2**14, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


@pytest.mark.parametrize("length", LENGTHS)
async def test_a_length_past_the_end_is_refused_at_every_level(length):
    size = varint(length)
    label = b"\x0a" + size + b"x"
    levels = [
        b"\x0a" + size + b"x",
        b"\x1a" + size + b"x",
        b"\x0a" + varint(len(label)) + label,
        b"\x0a\x08\x0a\x06\x0a" + size,
        b"\x0a" + varint(len(size) + 1) + b"\x12" + size,
        b"\xfa\x01" + size,
    ]
    assert set(await answers([snappy(body) for body in levels])) == {400}
    # As the size that snappy declares.
    assert set(await answers([size + snappy(REQUEST)[2:], size])) == {400}


async def test_a_small_body_cannot_make_the_program_allocate_much():
    declared = [varint(MAX_BYTES), varint(MAX_BYTES) + b"\x00x", varint(MAX_BYTES) + b"\xff" * 50]
    await answers(declared)
    tracemalloc.start()
    try:
        await answers(declared)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_BYTES // 2


async def test_a_bomb_within_the_limit_is_handled_and_one_over_it_is_refused():
    series = named(b"up", (b"a", b"x" * 100))
    one = write_request([series])
    within = snappy(one * (MAX_BYTES // len(one)))
    assert len(within) < MAX_BYTES // 15
    assert await answers([within, snappy(bytes(MAX_BYTES + 1))]) == [200, 400]


@pytest.mark.parametrize(
    "request_body",
    [
        b"\x0a\x00" * 100_000,
        b"\x1a\x00" * 100_000,
        write_request([([(b"__name__", b"up")], [(NOW_MS - i, 1.0) for i in range(40_000)])]),
        write_request([([(b"__name__", b"up")], [(NOW_MS, 1.0)] * 40_000)]),
        write_request([([(b"l%05d" % i, b"v") for i in range(40_000)], [(NOW_MS, 1.0)])]),
        write_request([([(b"same", b"v")] * 40_000, [(NOW_MS, 1.0)])]),
        write_request([named(b"up", (b"a", b"\xff" * 900_000))]),
        write_request([named(b"up", (b"a" * 900_000, b"v"))]),
        write_request([named(b"-" * 900_000)]),
        b"\x78\x01" * 400_000,
    ],
    ids=[
        "series without anything",
        "metadata without anything",
        "falling timestamps",
        "one timestamp",
        "labels",
        "the same label",
        "a long invalid value",
        "a long name",
        "a long invalid metric name",
        "unknown fields",
    ],
)
async def test_requests_of_one_thing_many_times_are_answered_with_a_short_text(request_body):
    async with PushTarget() as target:
        response = await target.post(snappy(request_body))
        assert response.status_code in (200, 400)
        assert len(response.text) < 2000 or "label: '" in response.text
