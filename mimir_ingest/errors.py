"""The error tree.

    IngestError
    ├─ ClientError               blame=client, never retried; the bad part is dropped and counted
    │  ├─ InvalidRequest         the body or a parameter cannot be read
    │  ├─ RequestTooLarge        a declared or actual size is over its limit
    │  ├─ InvalidSeries          one series breaks a validation rule
    │  ├─ LimitExceeded          names the limit, its value and the setting to change
    │  ├─ ReplicasDidNotMatch    a request of a replica that is not elected: dropped on purpose
    │  ├─ TenantError            missing or malformed tenant id
    │  └─ QueryError             parse errors, type errors, evaluation errors, limits of a query
    ├─ LogError                  LogUnavailable (retriable) · OffsetOutOfRange · RecordTooLarge · RecordCorrupt ·
    │                            RecordVersionUnsupported · ReadConsistencyUnmet (retriable)
    ├─ StorageError              StoreUnavailable (retriable) · BlockNotFound · BlockCorrupt
    ├─ MemoryBudgetExceeded      a job that would need more memory than it was given
    ├─ ElectionUnavailable       a new cluster's replica could not be elected (retriable)
    ├─ OwnerError                OwnerUnavailable · AnswerCorrupt · PartitionsUnreadable (all retriable)
    └─ InvariantViolated         a bug; carries the state, is never swallowed

Every class has four attributes, and the HTTP edge reads only these: `error_id` (permanent text, Mimir's
`err-mimir-…` where Mimir has the error), `blame` (`client` or `server`), `retriable`, `http_status`.
Constructors may override `error_id` and `http_status` per instance where one class stands for a family of Mimir's ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal


class IngestError(Exception):
    """Root of the tree."""

    error_id: str = "internal"
    blame: ClassVar[Literal["client", "server"]] = "server"
    retriable: bool = False
    http_status: int = 500

    def __init__(self, message: str, *, error_id: str | None = None, http_status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if error_id is not None:
            self.error_id = error_id
        if http_status is not None:
            self.http_status = http_status


class ClientError(IngestError):
    """The sender has to change something; repeating the request cannot help."""

    error_id = "bad-data"
    blame = "client"
    http_status = 400


class InvalidRequest(ClientError):
    """A body or parameter that cannot be read."""

    error_id = "invalid-request"


class RequestTooLarge(ClientError):
    """A declared or actual size over its limit."""

    error_id = "err-mimir-distributor-max-write-message-size"


class InvalidSeries(ClientError):
    """A series, sample or metadata item that breaks a validation rule; `error_id` is Mimir's id of the rule."""

    error_id = "invalid-series"


class LimitExceeded(ClientError):
    """A tenant or instance limit; the message names the setting to change."""

    error_id = "limit-exceeded"


class ReplicasDidNotMatch(ClientError):
    """A request of a replica that is not elected; senders take its status for success, as they should."""

    error_id = "replicas-did-not-match"
    http_status = 202

    def __init__(self, *, replica: str, elected: str, dropped: tuple[int, int, int] = (0, 0, 0)) -> None:
        """`dropped` counts the request's float samples, native histograms and exemplars."""
        super().__init__(f"replicas did not match, rejecting sample: replica={replica}, elected={elected}")
        self.dropped = dropped


class TenantError(ClientError):
    """`X-Scope-OrgID` is missing or malformed."""

    error_id = "tenant"
    http_status = 401


class QueryError(ClientError):
    """A query that cannot be answered; `error_type` is the envelope's `errorType`."""

    error_id = "query"
    http_status = 422

    def __init__(self, message: str, *, error_type: str = "execution", http_status: int | None = None) -> None:
        status = {"bad_data": 400, "execution": 422, "canceled": 499, "timeout": 503, "internal": 500, "not_found": 404}
        super().__init__(message, http_status=http_status or status[error_type])
        self.error_type = error_type


class LogError(IngestError):
    """Root of the partition log's errors."""

    error_id = "log"


class LogUnavailable(LogError):
    """The broker or database did not answer, or not in time."""

    error_id = "log-unavailable"
    retriable = True


class ReadConsistencyUnmet(LogUnavailable):
    """A partition's owner does not have what a read demands, or not in time; another owner may."""

    error_id = "read-consistency"


class OffsetOutOfRange(LogError):
    """A read below the partition's start, or past its end; carries the valid range."""

    error_id = "log-offset-out-of-range"

    def __init__(self, *, partition: int, offset: int, start_offset: int, end_offset: int) -> None:
        super().__init__(
            f"offset {offset} of partition {partition} is outside the log's range [{start_offset}, {end_offset}]"
        )
        self.partition, self.offset = partition, offset
        self.start_offset, self.end_offset = start_offset, end_offset


class RecordTooLarge(LogError):
    """One item larger than the log takes in a record (client's fault: 400)."""

    error_id = "err-mimir-distributor-max-write-request-data-item-size"
    http_status = 400


class RecordCorrupt(LogError):
    """A record value that does not decode; the message says section, byte offset and lengths."""

    error_id = "record-corrupt"


class RecordVersionUnsupported(LogError):
    """A record of a version this program does not know. The reader stops; it never skips."""

    error_id = "record-version-unsupported"


class StorageError(IngestError):
    """Root of object storage errors."""

    error_id = "storage"


class StoreUnavailable(StorageError):
    """Object storage did not answer."""

    error_id = "storage-unavailable"
    retriable = True


class BlockNotFound(StorageError):
    """A block that should be in the bucket is not."""

    error_id = "block-not-found"


class BlockCorrupt(StorageError):
    """A block whose bytes contradict the format; the message names file, section and byte offset."""

    error_id = "block-corrupt"


class MemoryBudgetExceeded(IngestError):
    """A job that would need more memory than it was given; the message says how much."""

    error_id = "memory-budget-exceeded"


class ElectionUnavailable(IngestError):
    """The HA tracker's store did not answer when a cluster was seen for the first time."""

    error_id = "ha-tracker-unavailable"
    retriable = True


class OwnerError(IngestError):
    """Root of the errors of reading partitions from the processes that own them."""

    error_id = "owner"
    retriable = True


class OwnerUnavailable(OwnerError):
    """A process did not answer, or not in time; another owner may."""

    error_id = "owner-unavailable"


class AnswerCorrupt(OwnerError):
    """A process sent bytes that are no answer; the message says what is wrong with them."""

    error_id = "answer-corrupt"


class PartitionsUnreadable(OwnerError):
    """Partitions that no healthy owner answers for, and that the bucket does not have whole."""

    error_id = "partitions-unreadable"

    def __init__(self, partitions: Mapping[int, str]) -> None:
        """`partitions` maps each to the reason."""
        super().__init__("; ".join(f"partition {p}: {reason}" for p, reason in sorted(partitions.items())))
        self.partitions = dict(partitions)


class InvariantViolated(IngestError):
    """A bug in this program."""

    error_id = "invariant-violated"
