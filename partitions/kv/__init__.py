"""Where the ring is kept: one contract; in memory, in the embedded log's database, in a compacted Kafka topic."""
