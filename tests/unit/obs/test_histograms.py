"""Our histograms say what the library's say."""

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from mimir_ingest.obs.histograms import Histogram
from mimir_ingest.obs.metrics import new_registry

BOUNDS = (-1.0, 0.0, 0.25, 1.0, 7.0)


@pytest.mark.parametrize("bounds", [BOUNDS, BOUNDS[1:]])
@given(
    observed=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(BOUNDS) | st.floats(-9, 9) | st.just(float("inf")))
    )
)
def test_the_text_of_a_scrape_is_the_librarys(bounds, observed):
    new_registry()  # switches `_created` off
    texts = []
    for kind in (Histogram, prometheus_client.Histogram):
        registry = CollectorRegistry()
        labelled = kind("h", "Help.", ["l"], buckets=bounds, registry=registry)
        plain = kind("p_seconds", "Help.", buckets=bounds, registry=registry)
        for label, amount in observed:
            labelled.labels(label).observe(amount)
            plain.observe(amount)
        texts.append(generate_latest(registry))
    assert texts[0] == texts[1]
