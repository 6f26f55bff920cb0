"""S22, S23: what happens to sessions reaches the audit trail, the metrics and the traces, and never with a secret."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from coatcheck import Coatcheck, Expired, Policy, Session
from coatcheck.events import Event, OnEvent, all_of, log_event
from coatcheck.run import run
from coatcheck.telemetry.opentelemetry import OpenTelemetryEvents
from coatcheck.telemetry.prometheus import ProcessCollector, PrometheusEvents
from coatcheck.testing import SettableClock


def live(on_event: OnEvent) -> tuple[Session, list[str]]:
    """Lead one session from its sign-in to its end, and return it with its secrets."""
    clock = SettableClock()
    coat = Coatcheck(policy=Policy(idle=timedelta(hours=1)), clock=clock, on_event=on_event)
    run(coat.sessions.create())
    session = run(coat.sessions.create("ann", amr=("pwd",)))
    grant = run(coat.sessions.issue(session))
    run(coat.sessions.refresh(grant.refresh_token))
    run(coat.sessions.rotate(session))
    cookie = session.cookie
    assert cookie is not None
    clock.advance(timedelta(hours=2))
    with pytest.raises(Expired):
        run(coat.sessions.load(cookie))
    run(coat.sessions.revoke(session.id or "", reason="by an administrator"))
    return session, [cookie.value, grant.access_token, grant.refresh_token]


EVERYTHING = ["created", "signed_in", "refreshed", "rotated", "expired", "revoked"]


def test_s23_each_step_is_told_as_what_it_is() -> None:
    """A visit is no sign-in, and one that has expired is told of when somebody comes with its cookie."""
    seen: list[Event] = []
    session, _ = live(seen.append)
    assert [event.kind for event in seen] == EVERYTHING
    assert [event.subject for event in seen] == [None, *["ann"] * 5]
    assert seen[-1].session_id == session.id and seen[-1].reason == "by an administrator"


def test_s22_the_log_has_each_field_by_its_name_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "coatcheck.events"):
        session, secrets = live(log_event)
    fields = [vars(record)["coatcheck"] for record in caplog.records]
    assert [each["kind"] for each in fields] == EVERYTHING
    assert fields[-1] == {
        "kind": "revoked", "at": fields[-1]["at"], "session_id": session.id, "subject": "ann",
        "reason": "by an administrator", "address": "",
    }  # fmt: skip
    told = caplog.text + repr(fields)
    assert not any(secret in told for secret in secrets)


def test_one_sink_that_fails_keeps_no_other_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def broken(_: Event) -> None:
        raise RuntimeError("the disk is full")

    live(all_of(broken, lambda event: seen.append(event.kind)))
    assert seen == EVERYTHING
    assert "a sink failed for a signed_in session" in caplog.text


def test_prometheus_counts_each_kind_from_nought() -> None:
    registry = CollectorRegistry()
    sink = PrometheusEvents(registry)
    assert 'coatcheck_session_events_total{kind="reused"} 0.0' in generate_latest(registry).decode()
    live(sink)
    exposed = generate_latest(registry).decode()
    for kind in EVERYTHING:
        assert f'coatcheck_session_events_total{{kind="{kind}"}} 1.0' in exposed
    assert "ann" not in exposed


def test_prometheus_tells_the_silence_of_the_feed_and_what_is_remembered() -> None:
    coat = Coatcheck()
    registry = CollectorRegistry()
    registry.register(ProcessCollector(coat))
    session = run(coat.sessions.create("ann"))
    run(coat.sessions.revoke(session.id or ""))
    exposed = generate_latest(registry).decode()
    assert "coatcheck_feed_silence_seconds 0.0" in exposed
    assert "coatcheck_revocations 1.0" in exposed


def test_opentelemetry_has_them_on_the_span_and_counted() -> None:
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    with tracing.get_tracer("test").start_as_current_span("request"):
        session, secrets = live(OpenTelemetryEvents(MeterProvider([reader])))
    [span] = exporter.get_finished_spans()
    assert [event.name for event in span.events] == [f"coatcheck.session.{kind}" for kind in EVERYTHING]
    assert dict(span.events[-1].attributes or {}) == {
        "session.id": session.id, "user.id": "ann", "coatcheck.event.reason": "by an administrator",
    }  # fmt: skip
    assert "user.id" not in (span.events[0].attributes or {})
    measured = str(reader.get_metrics_data())
    assert "coatcheck.session.events" in measured
    assert "ann" not in measured
    assert not any(secret in measured + str([event.attributes for event in span.events]) for secret in secrets)
