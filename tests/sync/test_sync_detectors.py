"""Every detector reports its fault at the right time, and nothing for a stream without faults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmpack.clock import Clock
from mmpack.recording import Stream
from mmpack.recording.model import StreamKind
from mmpack.sync import (
    Finding,
    StreamMatch,
    StreamPolicy,
    SyncConfig,
    SyncResult,
    Ticks,
    synchronise,
)
from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.detectors import detect_stream, registry
from tests.sync.listed_streams import BOOT_NS, MS, S, align, audio_stream, recording, regular_ns, stream


def findings_by_kind(stream: Stream) -> dict[str, Finding]:
    return {finding.kind: finding for finding in detect_stream(align(stream))}


def faults(result: SyncResult) -> dict[tuple[str, str], Finding]:
    return {
        (finding.kind, finding.stream): finding
        for finding in result.findings
        if finding.severity == "problem"
    }


def jittered_ns(count: int, period_ns: int, jitter_ns: int, seed: int = 0) -> NDArray[np.int64]:
    return regular_ns(count, period_ns) + np.random.default_rng(seed).integers(
        -jitter_ns, jitter_ns + 1, count
    )


@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 4, 10, 12, 20, 29.97, 30, 60, 100, 200, 1000]),
    st.integers(8, 300),
    st.floats(0, 0.05),
    st.sampled_from(["camera", "lidar", "event", "imu", "can", "action", "radar", "numeric"]),
)
def test_a_regular_stream_has_no_fault(
    seed: int, rate_hz: float, count: int, jitter: float, kind: StreamKind
) -> None:
    period_ns = round(S / rate_hz)
    aligned = align(stream(jittered_ns(count, period_ns, int(jitter * period_ns), seed), kind))
    assert [finding for finding in detect_stream(aligned) if finding.severity == "problem"] == []


@given(st.integers(0, 2**32), st.integers(10, 80), st.integers(1, 30), st.sampled_from([5, 10, 33, 100]))
def test_a_gap_is_reported_at_its_start(seed: int, first: int, num_lost: int, period_ms: int) -> None:
    timestamps = jittered_ns(120, period_ms * MS, period_ms * MS // 50, seed)
    finding = findings_by_kind(stream(np.delete(timestamps, np.s_[first : first + num_lost])))["gap"]
    assert (finding.severity, finding.count, finding.times_ns) == (
        "problem",
        1,
        (int(timestamps[first - 1]),),
    )


def test_a_gap_in_audio_is_a_gap() -> None:
    finding = findings_by_kind(audio_stream(16_000, [(BOOT_NS, 16_000), (BOOT_NS + 2 * S, 16_000)]))["gap"]
    assert (finding.count, finding.times_ns) == (1, (BOOT_NS + 2 * S,))
    assert findings_by_kind(audio_stream(16_000, [(BOOT_NS, 16_000)])) == {}


@given(st.integers(1, 99), st.sampled_from(["camera", "can", "imu", "radar"]))
def test_a_repeated_timestamp_is_a_duplicate_and_no_gap(index: int, kind: StreamKind) -> None:
    timestamps = np.insert(regular_ns(100, 20 * MS), index, BOOT_NS + (index - 1) * 20 * MS)
    findings = findings_by_kind(stream(timestamps, kind))
    assert findings["duplicate"].count == 1
    assert findings["duplicate"].times_ns == (BOOT_NS + (index - 1) * 20 * MS,)
    assert {kind for kind, finding in findings.items() if finding.severity == "problem"} == {"duplicate"}


@given(st.integers(1, 98), st.integers(1, 3))
def test_an_item_just_after_another_is_a_near_duplicate(index: int, close_ms: int) -> None:
    extra = BOOT_NS + index * 20 * MS + close_ms * MS
    finding = findings_by_kind(stream(np.sort(np.append(regular_ns(100, 20 * MS), extra))))["near_duplicate"]
    assert (finding.severity, finding.count, finding.times_ns) == ("problem", 1, (extra,))


def test_buffered_items_with_almost_equal_timestamps_are_a_burst() -> None:
    timestamps = regular_ns(200, 20 * MS)
    timestamps[100:108] = timestamps[107] + np.arange(8) * 50_000
    findings = findings_by_kind(stream(timestamps))
    assert findings["burst"].count == 1
    assert findings["burst"].times_ns == (int(timestamps[100]),)
    assert "near_duplicate" not in findings


@given(st.integers(5, 90))
def test_a_backward_timestamp_is_reported_at_the_next_item(index: int) -> None:
    timestamps = regular_ns(100, 10 * MS)
    timestamps[index] -= 25 * MS
    findings = findings_by_kind(stream(timestamps))
    assert findings["backward"].count == 1
    assert findings["backward"].times_ns == (int(timestamps[index + 1]),)
    assert set(findings) == {"backward"}


def test_implausible_timestamps_are_sentinels() -> None:
    timestamps = regular_ns(100, 10 * MS)
    timestamps[[3, 50]] = -1
    finding = findings_by_kind(stream(timestamps))["sentinel"]
    assert (finding.severity, finding.count) == ("problem", 2)
    assert "item 3: -1, -1" in finding.text


@pytest.mark.parametrize(("start_ns", "step"), [(1_673_069_018 * S, 256), (2**58, 64), (2**54, 4)])
def test_timestamps_stored_as_float64_are_reported_if_the_error_is_large(start_ns: int, step: int) -> None:
    exact = start_ns + np.cumsum(np.random.default_rng(1).integers(9 * MS, 11 * MS, 50))
    rounded = exact.astype(np.float64).astype(np.int64)
    clock = Clock("any", "utc" if step == 256 else "device")
    aligned = align(stream(rounded, clock=clock), target=clock)
    finding = next((f for f in detect_stream(aligned) if f.kind == "float_quantised"), None)
    if step < 64:
        assert finding is None
    else:
        assert finding is not None
        assert f"multiples of {step} ns" in finding.text


@pytest.mark.parametrize("step_ns", [1, 1_000, 64_000, 10**6, 512 * 10**6, 10**9])
def test_multiples_of_decimal_units_are_not_reported_as_float_quantised(step_ns: int) -> None:
    timestamps = BOOT_NS + np.arange(20) * max(step_ns, 10 * MS // step_ns * step_ns)
    assert "float_quantised" not in findings_by_kind(stream(timestamps))


def test_coarse_timestamps_are_reported() -> None:
    assert (
        findings_by_kind(stream(regular_ns(20, S), resolution_ns=10**6))["coarse_timestamps"].severity
        == "info"
    )
    assert "coarse_timestamps" not in findings_by_kind(stream(regular_ns(20, S), resolution_ns=239))


@pytest.mark.parametrize(("latency_ms", "num_lost"), [(1, 0), (1, 10), (4, 0)])
def test_receive_latency_is_measured_above_the_fastest_delivery(latency_ms: int, num_lost: int) -> None:
    rng = np.random.default_rng(3)
    arrived = np.maximum.accumulate(
        regular_ns(2_000, 20 * MS) + rng.exponential(latency_ms * MS, 2_000).astype(np.int64)
    )
    keep = np.sort(rng.permutation(2_000)[num_lost:])
    finding = findings_by_kind(stream(arrived[keep], "can", semantics="receive"))["receive_latency"]
    assert finding.severity == "info"
    reported_ms = [to_ms(part) for part in finding.text.split(" is ")[1].split(", ")]
    delay = (arrived - regular_ns(2_000, 20 * MS))[keep]
    true_ms = [np.percentile(delay, 50) / 1e6, np.percentile(delay, 99) / 1e6, delay.max() / 1e6]
    assert reported_ms == pytest.approx(true_ms, rel=0.1, abs=0.1)


def to_ms(text: str) -> float:
    """Returns the number of milliseconds at the start of '3.2 ms (median)' or '830 us (p99)'."""
    figure, unit = text.split()[:2]
    return float(figure) * {"ns": 1e-6, "us": 1e-3, "ms": 1.0}[unit]


def test_capture_timestamps_have_no_receive_latency() -> None:
    assert "receive_latency" not in findings_by_kind(stream(regular_ns(2_000, 20 * MS), "can"))


def test_the_frame_period_is_compared_with_the_nominal_period() -> None:
    nominal = 50 * MS
    true = BOOT_NS + np.rint(np.arange(2_000) * nominal * (1 - 14e-6)).astype(np.int64)
    finding = findings_by_kind(stream(true, "camera", nominal_period_ns=nominal))["drift"]
    assert finding.severity == "info"
    assert "-14.0" in finding.text
    assert "50 ms" in finding.text
    short = findings_by_kind(stream(true[:100], "camera", nominal_period_ns=nominal))["drift"]
    assert "drift unknown" in short.text
    assert "drift" not in findings_by_kind(stream(true[:100], "camera"))  # no nominal period is stated
    assert "drift" not in findings_by_kind(stream(true, "imu"))


def drive(**changed: NDArray[np.int64]) -> SyncResult:
    """Synchronises three cameras at 10 Hz, an IMU and CAN; `changed` replaces the timestamps of streams by name."""
    timestamps = {f"cam_{k}": regular_ns(400, 100 * MS) + k * 10 * MS for k in range(3)}
    timestamps["imu"] = regular_ns(4_300, 10 * MS, BOOT_NS - S)
    timestamps["can"] = regular_ns(2_150, 20 * MS, BOOT_NS - S)
    kinds: dict[str, StreamKind] = {"imu": "imu", "can": "can"}
    timestamps.update(changed)
    return synchronise(
        recording(*(stream(t_ns, kinds.get(name, "camera"), name) for name, t_ns in timestamps.items()))
    )


def test_a_drive_without_faults_has_no_fault() -> None:
    result = drive()
    assert faults(result) == {}
    assert result.passed.all()
    assert "truncated_edge" not in {finding.kind for finding in result.findings}


@pytest.mark.parametrize("num_lost", [1, 2, 3, 50])
def test_a_sensor_without_items_for_two_ticks_or_more_is_missing(num_lost: int) -> None:
    result = drive(cam_1=np.delete(regular_ns(400, 100 * MS) + 10 * MS, np.s_[100 : 100 + num_lost]))
    assert result.quarantined_ordinals().tolist() == list(range(100, 100 + num_lost))
    assert ("gap", "cam_1") in faults(result)
    finding = faults(result).get(("missing_sensor", "cam_1"))
    if num_lost == 1:
        assert finding is None
    else:
        assert finding is not None
        assert finding.times_ns == tuple(result.ticks.t_ns[100 : 100 + num_lost].tolist())


def test_ticks_before_the_first_item_are_edges_and_no_fault() -> None:
    result = drive(imu=regular_ns(4_000, 10 * MS, BOOT_NS + S))
    edge = next(finding for finding in result.findings if finding.kind == "truncated_edge")
    assert (edge.severity, edge.stream, edge.count) == ("info", "imu", 10)
    assert faults(result) == {}
    assert result.quarantined_ordinals().tolist() == list(range(10))


def test_an_item_out_of_tolerance_is_reported_at_its_tick() -> None:
    timestamps = regular_ns(400, 100 * MS) + 20 * MS
    timestamps[123] += 7 * MS
    result = drive(cam_2=timestamps)
    finding = faults(result)["out_of_tolerance", "cam_2"]
    assert finding.times_ns == (int(result.ticks.t_ns[123]),)
    assert list(faults(result)) == [("out_of_tolerance", "cam_2")]


def test_a_camera_on_a_drifting_clock_is_a_drift() -> None:
    steady_ns = regular_ns(1_200, 50 * MS)
    drifting_ns = steady_ns + np.rint((steady_ns - BOOT_NS) * 40e-6).astype(np.int64)
    noise = np.random.default_rng(0).integers(-20_000, 20_001, 1_200)
    config = SyncConfig(reference="a", streams={"b": StreamPolicy(tolerance="1ms")})
    drifting = synchronise(
        recording(stream(steady_ns, "camera", "a"), stream(drifting_ns + noise, "camera", "b")), config
    )
    assert "+40.0" in faults(drifting)["drift", "b"].text
    steady = synchronise(
        recording(stream(steady_ns, "camera", "a"), stream(steady_ns + noise, "camera", "b")), config
    )
    assert ("drift", "b") not in faults(steady)


def test_an_unstable_reference_is_reported() -> None:
    wander = np.zeros(100, np.int64)
    wander[[20, 40, 60]] = 3 * MS, -4 * MS, 2 * MS
    cameras = [stream(regular_ns(100, 100 * MS) + k * 5 * MS, "camera", f"cam_{k}") for k in range(4)]
    capture = recording(*cameras, stream(regular_ns(100, 100 * MS) + wander, "lidar", "top"))
    result = synchronise(capture, SyncConfig(reference="top"))
    assert result.quarantined_ordinals().tolist() == [20, 40, 60]
    finding = faults(result)["unstable_reference", "top"]
    assert finding.count == 3
    assert finding.times_ns == tuple(result.ticks.t_ns[[20, 40, 60]].tolist())
    assert "consensus:cam_*" in finding.text
    with_consensus = synchronise(capture, SyncConfig(reference="consensus:cam_*"))
    assert with_consensus.passed.all()


def test_cameras_that_fail_at_different_ticks_do_not_make_the_reference_unstable() -> None:
    cameras = []
    for k in range(4):
        timestamps = regular_ns(100, 100 * MS) + k * 5 * MS
        timestamps[20 + k] += 3 * MS
        cameras.append(stream(timestamps, "camera", f"cam_{k}"))
    result = synchronise(
        recording(*cameras, stream(regular_ns(100, 100 * MS), "lidar", "top")), SyncConfig(reference="top")
    )
    assert {kind for kind, _ in faults(result)} == {"out_of_tolerance"}
    assert result.quarantined_ordinals().tolist() == [20, 21, 22, 23]


def test_a_new_detector_is_one_entry_of_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def detect_short_stream(stream: AlignedStream) -> Iterator[Finding]:
        yield Finding(kind="short", severity="info", stream=stream.name, count=len(stream.t_ns), text="short")

    def detect_matched(match: StreamMatch, ticks: Ticks) -> Iterator[Finding]:
        yield Finding(
            kind="matched", severity="info", stream=match.name, count=len(ticks.t_ns), text="matched"
        )

    def detect_group(matches: Sequence[StreamMatch], ticks: Ticks) -> Iterator[Finding]:
        yield Finding(kind="group", severity="info", stream="", count=len(matches), text=ticks.description)

    monkeypatch.setattr(registry, "STREAM_DETECTORS", (detect_short_stream,))
    monkeypatch.setattr(registry, "MATCH_DETECTORS", (detect_matched,))
    monkeypatch.setattr(registry, "GROUP_DETECTORS", (detect_group,))
    capture = recording(*(stream(regular_ns(3, S), "camera", name) for name in ("a", "b")))
    result = synchronise(capture, SyncConfig(reference="a"))
    # Stream by stream, match by match, then of all matches together.
    assert [(finding.kind, finding.stream, finding.count) for finding in result.findings] == [
        ("short", "a", 3),
        ("short", "b", 3),
        ("matched", "a", 3),
        ("matched", "b", 3),
        ("group", "", 2),
    ]


def test_a_stream_without_overlap_has_no_other_finding_of_its_match() -> None:
    early = stream(regular_ns(40, 100 * MS, BOOT_NS - 100 * S), "camera", "early")
    config = SyncConfig(reference="a", streams={"early": StreamPolicy(required=False)})
    result = synchronise(recording(stream(regular_ns(40, 100 * MS), "camera", "a"), early), config)
    match = result.matches["early"]
    kinds = [finding.kind for detect in registry.MATCH_DETECTORS for finding in detect(match, result.ticks)]
    assert kinds == ["no_overlap"]
