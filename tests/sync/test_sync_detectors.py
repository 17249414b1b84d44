"""Each detector both ways: it fires on its fault, at its place, and is silent where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmpack.clock import Clock
from mmpack.recording import Stream
from mmpack.recording.model import StreamKind
from mmpack.sync import Finding, StreamPolicy, SyncConfig, SyncResult, synchronise
from mmpack.sync.detectors import detect_stream
from tests.sync.listed_streams import BOOT_NS, MS, S, aligned, audio_stream, recording, regular, stream


def seen(one: Stream) -> dict[str, Finding]:
    return {finding.kind: finding for finding in detect_stream(aligned(one))}


def faults(result: SyncResult) -> dict[tuple[str, str], Finding]:
    return {(found.kind, found.stream): found for found in result.findings if found.severity == "fault"}


def jittered(count: int, period_ns: int, jitter_ns: int, seed: int = 0) -> NDArray[np.int64]:
    return regular(count, period_ns) + np.random.default_rng(seed).integers(-jitter_ns, jitter_ns + 1, count)


@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 4, 10, 12, 20, 29.97, 30, 60, 100, 200, 1000]),
    st.integers(8, 300),
    st.floats(0, 0.05),
    st.sampled_from(["camera", "lidar", "event", "imu", "can", "action", "radar", "numeric"]),
)
def test_a_regular_stream_shows_nothing(
    seed: int, rate_hz: float, count: int, jitter: float, kind: StreamKind
) -> None:
    period_ns = round(S / rate_hz)
    one = stream(jittered(count, period_ns, int(jitter * period_ns), seed), kind)
    assert [finding for finding in detect_stream(aligned(one)) if finding.severity == "fault"] == []


@given(st.integers(0, 2**32), st.integers(10, 80), st.integers(1, 30), st.sampled_from([5, 10, 33, 100]))
def test_a_gap_is_found_where_it_begins(seed: int, at: int, lost: int, period_ms: int) -> None:
    stamps = jittered(120, period_ms * MS, period_ms * MS // 50, seed)
    one = stream(np.delete(stamps, np.s_[at : at + lost]))
    finding = seen(one)["gap"]
    assert (finding.severity, finding.count, finding.times_ns) == ("fault", 1, (int(stamps[at - 1]),))


def test_a_hole_in_sound_is_a_gap() -> None:
    finding = seen(audio_stream(16_000, [(BOOT_NS, 16_000), (BOOT_NS + 2 * S, 16_000)]))["gap"]
    assert (finding.count, finding.times_ns) == (1, (BOOT_NS + 2 * S,))
    assert seen(audio_stream(16_000, [(BOOT_NS, 16_000)])) == {}


@given(st.integers(1, 99), st.sampled_from(["camera", "can", "imu", "radar"]))
def test_a_repeated_stamp_is_a_duplicate_at_its_place_and_no_gap(at: int, kind: StreamKind) -> None:
    stamps = np.insert(regular(100, 20 * MS), at, BOOT_NS + (at - 1) * 20 * MS)
    found = seen(stream(stamps, kind))
    assert found["duplicate"].count == 1
    assert found["duplicate"].times_ns == (BOOT_NS + (at - 1) * 20 * MS,)
    assert {kind for kind, finding in found.items() if finding.severity == "fault"} == {"duplicate"}


@given(st.integers(1, 98), st.integers(1, 3))
def test_an_item_just_after_another_is_a_near_duplicate(at: int, close_ms: int) -> None:
    extra = BOOT_NS + at * 20 * MS + close_ms * MS
    finding = seen(stream(np.sort(np.append(regular(100, 20 * MS), extra))))["near_duplicate"]
    assert (finding.severity, finding.count, finding.times_ns) == ("fault", 1, (extra,))


def test_buffered_items_stamped_together_are_a_burst() -> None:
    stamps = regular(200, 20 * MS)
    stamps[100:108] = stamps[107] + np.arange(8) * 50_000
    found = seen(stream(stamps))
    assert found["burst"].count == 1
    assert found["burst"].times_ns == (int(stamps[100]),)
    assert "near_duplicate" not in found


@given(st.integers(5, 90))
def test_a_stamp_that_jumps_back_is_found_beside_its_place(at: int) -> None:
    stamps = regular(100, 10 * MS)
    stamps[at] -= 25 * MS
    found = seen(stream(stamps))
    assert found["backward"].count == 1
    assert found["backward"].times_ns == (int(stamps[at + 1]),)
    assert set(found) == {"backward"}


def test_stamps_that_are_no_times_are_sentinels() -> None:
    stamps = regular(100, 10 * MS)
    stamps[[3, 50]] = -1
    finding = seen(stream(stamps))["sentinel"]
    assert (finding.severity, finding.count) == ("fault", 2)
    assert "item 3: -1, -1" in finding.text


@pytest.mark.parametrize(("start_ns", "step"), [(1_673_069_018 * S, 256), (2**58, 64), (2**54, 4)])
def test_stamps_that_went_through_float64_are_told_where_it_matters(start_ns: int, step: int) -> None:
    exact = start_ns + np.cumsum(np.random.default_rng(1).integers(9 * MS, 11 * MS, 50))
    through = exact.astype(np.float64).astype(np.int64)
    one = stream(through, clock=Clock("any", "utc" if step == 256 else "device"))
    finding = next(
        (f for f in detect_stream(aligned(one, target=one.clock)) if f.kind == "float_quantised"), None
    )
    if step < 64:
        assert finding is None
    else:
        assert finding is not None
        assert f"multiples of {step} ns" in finding.text


@pytest.mark.parametrize("step_ns", [1, 1_000, 64_000, 10**6, 512 * 10**6, 10**9])
def test_whole_microseconds_and_the_like_are_not_taken_for_floats(step_ns: int) -> None:
    stamps = BOOT_NS + np.arange(20) * max(step_ns, 10 * MS // step_ns * step_ns)
    assert "float_quantised" not in seen(stream(stamps))


def test_coarse_stamps_are_told() -> None:
    assert seen(stream(regular(20, S), resolution_ns=10**6))["coarse_stamps"].severity == "info"
    assert "coarse_stamps" not in seen(stream(regular(20, S), resolution_ns=239))


@pytest.mark.parametrize(("latency_ms", "lost"), [(1, 0), (1, 10), (4, 0)])
def test_receive_stamps_show_their_latency_over_the_quickest(latency_ms: int, lost: int) -> None:
    rng = np.random.default_rng(3)
    arrived = np.maximum.accumulate(
        regular(2_000, 20 * MS) + rng.exponential(latency_ms * MS, 2_000).astype(np.int64)
    )
    keep = np.sort(rng.permutation(2_000)[lost:])
    finding = seen(stream(arrived[keep], "can", semantics="receive"))["receive_latency"]
    assert finding.severity == "info"
    told_ms = [to_ms(part) for part in finding.text.split(" is ")[1].split(", ")]
    late = (arrived - regular(2_000, 20 * MS))[keep]
    true_ms = [np.percentile(late, 50) / 1e6, np.percentile(late, 99) / 1e6, late.max() / 1e6]
    assert told_ms == pytest.approx(true_ms, rel=0.1, abs=0.1)


def to_ms(text: str) -> float:
    """The figure at the start of '3.2 ms (median)' or '830 us (p99)'."""
    figure, unit = text.split()[:2]
    return float(figure) * {"ns": 1e-6, "us": 1e-3, "ms": 1.0}[unit]


def test_stamps_of_capture_have_no_receive_latency() -> None:
    assert "receive_latency" not in seen(stream(regular(2_000, 20 * MS), "can"))


def test_the_frame_period_is_measured_against_the_nominal_one() -> None:
    nominal = 50 * MS
    true = BOOT_NS + np.rint(np.arange(2_000) * nominal * (1 - 14e-6)).astype(np.int64)
    finding = seen(stream(true, "camera", nominal_period_ns=nominal))["drift"]
    assert finding.severity == "info"
    assert "-14.0" in finding.text
    assert "50 ms" in finding.text
    short = seen(stream(true[:100], "camera", nominal_period_ns=nominal))["drift"]
    assert "not told" in short.text
    assert "drift" not in seen(stream(true[:100], "camera"))  # nobody asked
    assert "drift" not in seen(stream(true, "imu"))


def drive(**changed: NDArray[np.int64]) -> SyncResult:
    """Three cameras at 10 Hz, an IMU and CAN around them."""
    stamps = {f"cam_{k}": regular(400, 100 * MS) + k * 10 * MS for k in range(3)}
    stamps["imu"] = regular(4_300, 10 * MS, BOOT_NS - S)
    stamps["can"] = regular(2_150, 20 * MS, BOOT_NS - S)
    kinds: dict[str, StreamKind] = {"imu": "imu", "can": "can"}
    stamps.update(changed)
    return synchronise(
        recording(*(stream(t_ns, kinds.get(name, "camera"), name) for name, t_ns in stamps.items()))
    )


def test_a_whole_drive_has_no_finding_of_a_fault() -> None:
    result = drive()
    assert faults(result) == {}
    assert result.passed.all()
    assert "truncated_edge" not in {finding.kind for finding in result.findings}


@pytest.mark.parametrize("lost", [1, 2, 3, 50])
def test_a_sensor_that_is_silent_for_two_ticks_or_more_is_missing(lost: int) -> None:
    result = drive(cam_1=np.delete(regular(400, 100 * MS) + 10 * MS, np.s_[100 : 100 + lost]))
    assert result.quarantined_ordinals().tolist() == list(range(100, 100 + lost))
    assert ("gap", "cam_1") in faults(result)
    finding = faults(result).get(("missing_sensor", "cam_1"))
    if lost == 1:
        assert finding is None
    else:
        assert finding is not None
        assert finding.times_ns == tuple(result.ticks.t_ns[100 : 100 + lost].tolist())


def test_ticks_before_a_stream_begins_are_edges_and_no_loss() -> None:
    result = drive(imu=regular(4_000, 10 * MS, BOOT_NS + S))
    edge = next(finding for finding in result.findings if finding.kind == "truncated_edge")
    assert (edge.severity, edge.stream, edge.count) == ("info", "imu", 10)
    assert faults(result) == {}
    assert result.quarantined_ordinals().tolist() == list(range(10))


def test_an_item_out_of_tolerance_is_found_at_its_tick() -> None:
    stamps = regular(400, 100 * MS) + 20 * MS
    stamps[123] += 7 * MS
    result = drive(cam_2=stamps)
    finding = faults(result)["out_of_tolerance", "cam_2"]
    assert finding.times_ns == (int(result.ticks.t_ns[123]),)
    assert list(faults(result)) == [("out_of_tolerance", "cam_2")]


def test_a_camera_on_a_clock_that_runs_away_is_a_drift() -> None:
    master, runaway = regular(1_200, 50 * MS), regular(1_200, 50 * MS)
    runaway = runaway + np.rint((runaway - BOOT_NS) * 40e-6).astype(np.int64)
    noise = np.random.default_rng(0).integers(-20_000, 20_001, 1_200)
    config = SyncConfig(reference="a", streams={"b": StreamPolicy(tolerance="1ms")})
    drifting = synchronise(
        recording(stream(master, "camera", "a"), stream(runaway + noise, "camera", "b")), config
    )
    assert "+40.0" in faults(drifting)["drift", "b"].text
    steady = synchronise(
        recording(stream(master, "camera", "a"), stream(master + noise, "camera", "b")), config
    )
    assert ("drift", "b") not in faults(steady)


def test_a_reference_that_wanders_accuses_itself() -> None:
    wander = np.zeros(100, np.int64)
    wander[[20, 40, 60]] = 3 * MS, -4 * MS, 2 * MS
    cameras = [stream(regular(100, 100 * MS) + k * 5 * MS, "camera", f"cam_{k}") for k in range(4)]
    made = recording(*cameras, stream(regular(100, 100 * MS) + wander, "lidar", "top"))
    result = synchronise(made, SyncConfig(reference="top"))
    assert result.quarantined_ordinals().tolist() == [20, 40, 60]
    finding = faults(result)["reference_wander", "top"]
    assert finding.count == 3
    assert finding.times_ns == tuple(result.ticks.t_ns[[20, 40, 60]].tolist())
    assert "consensus:cam_*" in finding.text
    advised = synchronise(made, SyncConfig(reference="consensus:cam_*"))
    assert advised.passed.all()


def test_cameras_that_fail_one_by_one_do_not_accuse_the_reference() -> None:
    cameras = []
    for k in range(4):
        stamps = regular(100, 100 * MS) + k * 5 * MS
        stamps[20 + k] += 3 * MS
        cameras.append(stream(stamps, "camera", f"cam_{k}"))
    result = synchronise(
        recording(*cameras, stream(regular(100, 100 * MS), "lidar", "top")), SyncConfig(reference="top")
    )
    assert {kind for kind, _ in faults(result)} == {"out_of_tolerance"}
    assert result.quarantined_ordinals().tolist() == [20, 21, 22, 23]
