"""Where events of sessions go besides the log: to Prometheus and OpenTelemetry, each behind an extra of its name."""
