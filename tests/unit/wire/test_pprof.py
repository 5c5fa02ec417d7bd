from mimir_ingest.wire.pprof import Frame, encode_profile
from tests.support.profiles import read_profile

MAIN, READ, AGAIN = Frame("main", "a.py", 10), Frame("read", "b/ü.py", 7), Frame("main", "a.py", 11)


def test_a_profile_has_its_stacks_values_and_times():
    samples = {(READ, MAIN): (3, 30_000_000), (AGAIN,): (1, 2**40), (MAIN,): (0, -1)}
    data = encode_profile(
        (("samples", "count"), ("cpu", "nanoseconds")), samples, time_ns=17 * 10**17, duration_ns=10**9, period_ns=10**7
    )
    profile, found = read_profile(data)
    assert found == {tuple(map(tuple, stack)): values for stack, values in samples.items()}
    text = profile.string_table
    assert [(text[t.type], text[t.unit]) for t in profile.sample_type] == [
        ("samples", "count"),
        ("cpu", "nanoseconds"),
    ]
    assert (profile.time_nanos, profile.duration_nanos, profile.period) == (17 * 10**17, 10**9, 10**7)
    assert (text[profile.period_type.type], text[profile.period_type.unit]) == ("cpu", "nanoseconds")
    assert len(profile.function) == 2, "two lines of one function"


def test_an_empty_profile_says_what_it_would_count():
    profile, found = read_profile(encode_profile((("contentions", "count"),), {}, time_ns=5))
    assert (found, profile.period, len(profile.sample_type)) == ({}, 0, 1)
