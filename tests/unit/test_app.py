"""A process that cannot go on says why, in one tree of errors."""

import pytest

from mimir_ingest import app
from mimir_ingest.config.settings import load
from mimir_ingest.errors import IngestError, LogUnavailable
from partitions.errors import RingUnavailable


@pytest.mark.parametrize("cause", [LogUnavailable("no log"), RingUnavailable("no ring", retriable=False)])
def test_a_component_that_fails_ends_the_process_with_its_cause(monkeypatch, cause):
    async def fail(process):
        raise cause

    told = []
    monkeypatch.setattr(app.Process, "run", fail)
    with pytest.raises(IngestError, match=r"no log|no ring") as error:
        app.run(load([], {})[0], leave=told.append)
    assert told == [error.value]
    assert error.value.error_id == cause.error_id
