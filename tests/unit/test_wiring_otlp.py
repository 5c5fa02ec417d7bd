"""From the keys of limits to a tenant's translation of OTLP."""

from __future__ import annotations

import pytest

from mimir_ingest import wiring
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.settings import load
from mimir_ingest.wire.otlp_labels import OtlpSettings

LEGACY, UTF8 = "-validation.name-validation-scheme=legacy", "-validation.name-validation-scheme=utf8"
SUFFIXES = "-distributor.otel-metric-suffixes-enabled=true"
STRATEGY = "-distributor.otel-translation-strategy="


def translation(*flags: str) -> OtlpSettings:
    settings = load(flags, {})[0]
    settings_for = wiring.otlp_settings(settings, lambda tenant: settings.limits)
    assert settings_for("a") is settings_for("b")
    return settings_for("a")


def test_nothing_set_is_mimirs_translation_and_deltas_are_added_up():
    assert translation(LEGACY) == OtlpSettings(accumulate_deltas=True)


def test_deltas_are_refused_where_mimirs_records_are_written_which_cannot_tell_them():
    assert translation(LEGACY, "-ingest-storage.kafka.producer-record-version=1") == OtlpSettings()


@pytest.mark.parametrize(
    ("flags", "strategy"),
    [
        ([LEGACY], "UnderscoreEscapingWithoutSuffixes"),
        ([LEGACY, SUFFIXES], "UnderscoreEscapingWithSuffixes"),
        ([UTF8, SUFFIXES], "NoUTF8EscapingWithSuffixes"),
        ([UTF8], "NoTranslation"),
    ],
)
def test_a_strategy_follows_from_two_other_keys_and_may_say_the_same(flags, strategy):
    assert translation(*flags).strategy == strategy
    assert translation(*flags, STRATEGY + strategy).strategy == strategy


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            [LEGACY, STRATEGY + "NoTranslation"],
            "limits.otel_translation_strategy NoTranslation needs limits.name_validation_scheme utf8 and "
            "limits.otel_metric_suffixes_enabled false; they are legacy and false",
        ),
        (
            [UTF8, STRATEGY + "NoUTF8EscapingWithSuffixes"],
            "limits.otel_translation_strategy NoUTF8EscapingWithSuffixes needs limits.name_validation_scheme utf8 and "
            "limits.otel_metric_suffixes_enabled true; they are utf8 and false",
        ),
        ([STRATEGY + "Klingon"], 'limits.otel_translation_strategy is "Klingon"; it takes '),
    ],
)
def test_a_strategy_that_two_other_keys_contradict_is_a_configuration_error(flags, text):
    with pytest.raises(ConfigError) as refused:
        load(flags, {})
    assert text in str(refused.value)


def test_every_key_has_its_effect():
    made = translation(
        LEGACY,
        SUFFIXES,
        "-distributor.otel-created-timestamp-zero-ingestion-enabled=true",
        "-distributor.otel-promote-resource-attributes=host.name, k8s.pod.name,",
        "-distributor.otel-keep-identifying-resource-attributes=true",
        "-distributor.otel-convert-histograms-to-nhcb=true",
        "-distributor.otel-promote-scope-metadata=true",
        "-distributor.otel-native-delta-ingestion=true",
        "-distributor.otel-label-name-underscore-sanitization=false",
        "-distributor.otel-label-name-preserve-underscores=false",
    )
    assert made == OtlpSettings(
        strategy="UnderscoreEscapingWithSuffixes",
        promote_resource_attributes=frozenset({"host.name", "k8s.pod.name"}),
        promote_scope_metadata=True,
        keep_identifying_resource_attributes=True,
        convert_histograms_to_nhcb=True,
        native_delta_ingestion=True,
        accumulate_deltas=True,
        created_timestamp_zero_ingestion=True,
        label_name_underscore_sanitization=False,
        label_name_preserve_multiple_underscores=False,
    )
