"""The partition ring: which partitions there are, who owns them, and which instances live. Never imports mimir_ingest.

model, merge, clock, codec     entries, how two values of one are joined, what is newer, bytes
replica, upkeep, edits         what a reader of the store knows; what keeps the store whole and small; changes
ring, tokens                   the immutable view that finds a key's partition
shuffle_shard, go_rand         a tenant's partitions
lifecycle, assignment, owners  what an ingester does, what it should own, whom to ask
kv/                            where the ring is kept: memory, SQLite, a compacted Kafka topic
watch, follow, lifecycler, …   shells over the above, the only ones that know asyncio
"""
