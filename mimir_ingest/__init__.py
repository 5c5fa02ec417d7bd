"""Prometheus-compatible, multi-tenant metrics store with Grafana Mimir's HTTP API and Kafka ingest storage."""

__version__ = "0.1.0"
