"""Events as OpenTelemetry has them, on the current span and counted; the extra is `coatcheck[otel]`."""

from __future__ import annotations

from opentelemetry import metrics, trace

from coatcheck.events import Event


class OpenTelemetryEvents:
    """Adds events to the current span, and counts them by kind; hand it to `Coatcheck(on_event=...)`.

    On the span stand the session's public id and the subject (`session.id`, `user.id` of the semantic conventions); the
    counter `coatcheck.session.events` has the kind only, so that it stays small.

    Args:
        meter_provider: whose meter counts; the global one, if left out.
    """

    def __init__(self, meter_provider: metrics.MeterProvider | None = None) -> None:
        meter = metrics.get_meter("coatcheck", meter_provider=meter_provider)
        self._events = meter.create_counter(
            "coatcheck.session.events", unit="{event}", description="Steps of sessions' lives, by kind."
        )

    def __call__(self, event: Event) -> None:
        """Record an event."""
        self._events.add(1, {"coatcheck.event.kind": event.kind})
        attributes = {"session.id": event.session_id, "coatcheck.event.reason": event.reason}
        if event.subject is not None:
            attributes["user.id"] = event.subject
        trace.get_current_span().add_event(f"coatcheck.session.{event.kind}", attributes)
