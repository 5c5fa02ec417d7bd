"""The partition ring: tokens and the immutable lookup view. Never imports mimir_ingest."""
