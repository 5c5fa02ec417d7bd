"""The partition log: one contract, an embedded implementation and Kafka."""
