"""A client of the HTTP API for notebooks and scripts: results as Arrow tables and pandas frames.

    from mimir_ingest.client import Client

    client = Client("http://localhost:9009", tenant="team-a")
    client.query_range("rate(http_requests_total[5m])", start, end, "1m").to_pandas()

Synchronous; every call is one request. Works with any server that answers Prometheus's API and this program's Arrow
(docs/format/arrow.md).
"""

from mimir_ingest.client.client import Client
from mimir_ingest.client.errors import ApiError, ClientFailure, NotReached
from mimir_ingest.client.results import QueryResult

__all__ = ["ApiError", "Client", "ClientFailure", "NotReached", "QueryResult"]
