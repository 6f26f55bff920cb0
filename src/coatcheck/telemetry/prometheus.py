"""Events and the state of a process as Prometheus metrics; the extra is `coatcheck[metrics]`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coatcheck.compose import Coatcheck
from coatcheck.events import Event, Kind


class PrometheusEvents:
    """Counts events by their kind, as `coatcheck_session_events_total`; hand it to `Coatcheck(on_event=...)`.

    Args:
        registry: where the metric is registered.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._events = Counter(
            "coatcheck_session_events", "Steps of sessions' lives, by kind.", ("kind",), registry=registry
        )
        for kind in get_args(Kind):
            self._events.labels(kind)  # at 0 from the start, so that the first of a kind is an increase

    def __call__(self, event: Event) -> None:
        """Count an event."""
        self._events.labels(event.kind).inc()


class ProcessCollector(Collector):
    """What this process knows of revocations, when it is asked; `registry.register(ProcessCollector(coatcheck))`.

    `coatcheck_feed_silence_seconds` is how long nothing was heard from the feed: past the policy's `stale_after` tokens
    are no longer trusted. `coatcheck_revocations` is how many are remembered.
    """

    def __init__(self, coatcheck: Coatcheck) -> None:
        self._coatcheck = coatcheck

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics; called at each scrape."""
        silence = GaugeMetricFamily("coatcheck_feed_silence_seconds", "Since anything was heard from the feed.")
        silence.add_metric((), self._coatcheck.verifier.silence() / 1000)
        yield silence
        remembered = GaugeMetricFamily("coatcheck_revocations", "Revocations that this process remembers.")
        remembered.add_metric((), len(self._coatcheck.revocations))
        yield remembered
