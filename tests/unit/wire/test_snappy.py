import tracemalloc

import pytest
import snappy as oracle
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.errors import InvalidRequest, RequestTooLarge
from mimir_ingest.wire import snappy


@given(st.binary(max_size=2000))
def test_blocks_of_the_other_library_open_and_ours_open_there(content):
    assert snappy.decompress(oracle.compress(content), max_bytes=2000) == content
    assert oracle.decompress(snappy.compress(content)) == content


@given(st.binary(max_size=200))
def test_any_bytes_are_opened_as_the_other_library_does_or_refused(body):
    try:
        content = snappy.decompress(body, max_bytes=1 << 20)
    except (InvalidRequest, RequestTooLarge):
        with pytest.raises(oracle.UncompressError):
            oracle.decompress(body)
    else:
        assert content == oracle.decompress(body)


def test_every_truncation_is_refused():
    block = oracle.compress(b"some words, some words, and some more words" * 20)
    for end in range(len(block)):
        with pytest.raises(InvalidRequest, match="snappy: corrupt input"):
            snappy.decompress(block[:end], max_bytes=10_000)


@pytest.mark.parametrize("body", [b"", b"\x80", b"\xff" * 20, b"\x80\x80\x80\x80\x80\x01"])
def test_an_unreadable_length_has_its_own_text(body):
    with pytest.raises(InvalidRequest) as caught:
        snappy.decompress(body, max_bytes=1 << 40)
    assert caught.value.message == "getting snappy decoded length: snappy: corrupt input"


def test_a_declared_size_over_the_limit_is_refused_with_mimirs_text():
    with pytest.raises(RequestTooLarge) as caught:
        snappy.decompress(oracle.compress(bytes(1001)), max_bytes=1000)
    assert caught.value.http_status == 400
    assert caught.value.message == (
        "the incoming push request has been rejected because its message size of 1001 bytes (uncompressed) is larger "
        "than the allowed limit of 1000 bytes (err-mimir-distributor-max-write-message-size). To adjust the related "
        "limit, configure -distributor.max-recv-msg-size, or contact your service administrator."
    )


def test_a_size_that_the_body_cannot_expand_to_costs_no_memory():
    claim = b"\x80\x80\x80\x32" + b"\x00a" * 20  # 104,857,600 bytes declared
    tracemalloc.start()
    with pytest.raises(InvalidRequest, match="decompress snappy: snappy: corrupt input"):
        snappy.decompress(claim, max_bytes=104857600)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 16


def test_the_compressed_size_is_checked_without_the_body():
    snappy.check_size(1000, max_bytes=1000, compressed=True)
    with pytest.raises(RequestTooLarge, match=r"of 1001 bytes \(compressed\) is larger than the allowed limit of 1000"):
        snappy.check_size(1001, max_bytes=1000, compressed=True)
