"""Profiles read with the protobuf library."""

from __future__ import annotations

from tests.support.protobuf_schema import Profile


def read_profile(data: bytes) -> tuple[Profile, dict[tuple[tuple[str, str, int], ...], tuple[int, ...]]]:
    """Return the message, and its values by stack: functions, files and lines, the innermost first."""
    profile = Profile.FromString(data)
    text = profile.string_table
    assert text[0] == ""
    functions = {f.id: (text[f.name], text[f.filename]) for f in profile.function}
    places = {loc.id: (*functions[loc.line[0].function_id], loc.line[0].line) for loc in profile.location}
    samples = {tuple(places[i] for i in s.location_id): tuple(s.value) for s in profile.sample}
    assert len(samples) == len(profile.sample)
    return profile, samples
