"""The forecast is what then happens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.cli import common
from mmpack.mixture import PhaseConfig, draw_documents, mixture_schedule
from mmpack.mixture.forecast import MixtureForecast, forecast_mixture, format_tokens, max_tokens_of_run
from mmpack.show.mixture_plot import plot_forecast
from mmpack.show.mixture_table import forecast_report, forecast_table
from tests.mixture.mixture_cases import SEED_PHASES, SIZES, T

CAPS = [None, None, 6, 4, 20]


def seed_forecast(scale: int = 1) -> MixtureForecast:
    """The recipe's phases over five data sets with caps, or a run `scale` times smaller."""
    phases = [
        PhaseConfig(name=phase.name, tokens=(phase.num_tokens or 0) // scale, temperature=phase.temperature)
        for phase in SEED_PHASES
    ]
    sizes = {name: size // scale for name, size in SIZES.items()}
    return forecast_mixture(mixture_schedule(phases, sizes), list(sizes.values()), CAPS)


def drawn_at(seen: MixtureForecast, epochs: list[np.ndarray], until: int) -> np.ndarray:
    """Tokens drawn by then, with documents of each data set repeated epoch after epoch."""
    repeats = seen.total_epochs.astype(int) + 2
    buffers = [np.tile(epoch, n) for epoch, n in zip(epochs, repeats, strict=True)]
    offsets = np.concatenate(([0], np.cumsum([len(each) for each in buffers])))
    lengths = np.concatenate(buffers).astype(np.int32)
    found = draw_documents(
        seen.quota_curve, np.zeros(len(epochs), np.int64), lengths, offsets, until_tokens=until
    )
    assert found.stop != "dry"
    return found.tokens


def check_against_drawing(seen: MixtureForecast, epochs: list[np.ndarray]) -> None:
    longest = max(int(each.max()) for each in epochs)
    # Drawing stops a document late, and documents that cross a cap reach beyond it.
    slack = longest * (2 + len(epochs))
    for number, edge in enumerate(seen.phase_edges[1:].tolist(), 1):
        drawn = drawn_at(seen, epochs, edge)
        assert np.abs(drawn - seen.tokens[:number].sum(axis=0)).max() <= slack


def test_the_recipes_forecast_is_what_is_drawn() -> None:
    random = np.random.default_rng(0)
    scaled = seed_forecast(scale=10**5)
    epochs = []
    for size in scaled.sizes.tolist():
        lengths = random.integers(100, 8193, max(1, size // 4100))
        # The last makes up the size, so that an epoch has exactly the tokens it should.
        lengths = lengths[: np.searchsorted(np.cumsum(lengths), size - 8192)]
        rest = size - int(lengths.sum())
        epochs.append(np.append(lengths, [rest // 2, rest - rest // 2]))
        assert epochs[-1].sum() == size
    check_against_drawing(scaled, epochs)
    assert scaled.total_epochs[3:] == pytest.approx([4, 20])
    assert drawn_at(scaled, epochs, int(scaled.phase_edges[-1]))[3:].tolist() == [
        4 * int(scaled.sizes[3]),
        20 * int(scaled.sizes[4]),
    ]


@settings(max_examples=60)
@given(st.data())
def test_any_forecast_is_what_is_drawn(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    names = [f"d{i}" for i in range(count)]
    epochs = [
        np.array(data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=30)), np.int64) for _ in names
    ]
    sizes = {name: int(epoch.sum()) for name, epoch in zip(names, epochs, strict=True)}
    phases = [
        PhaseConfig(
            name=f"p{number}",
            tokens=data.draw(st.integers(1, 2000)),
            datasets=tuple(data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))),
            temperature=data.draw(st.floats(0.3, 5)),
        )
        for number in range(data.draw(st.integers(1, 4)))
    ]
    caps = [data.draw(st.none() | st.sampled_from([0.5, 1, 2, 3.7, 10])) for _ in names]
    check_against_drawing(
        forecast_mixture(mixture_schedule(phases, sizes), list(sizes.values()), caps), epochs
    )


def test_caps_say_when_and_who_takes_over() -> None:
    seen = seed_forecast()
    instructions, speech = (finding for finding in seen.findings if finding.kind == "cap")
    assert (instructions.dataset, speech.dataset) == ("instructions", "speech")
    assert instructions.tokens < speech.tokens < 9 * T
    assert instructions.phase == speech.phase == "mid"
    for finding, cap in ((instructions, 20), (speech, 4)):
        assert finding.message.startswith(
            f"'{finding.dataset}' reaches its cap (max_epochs {cap}); its part goes to 'web'"
        )
        gained = sum(after - before for _, before, after in finding.takes_over)
        column = seen.quota_curve.schedule.datasets.index(finding.dataset)
        stage = seen.quota_curve.schedule.stage_at(finding.tokens - 1)
        assert gained >= seen.quota_curve.schedule.weights[stage, column] / (1 << 24) * 0.99
    assert seen.tokens[2, 3:].tolist() == [0, 0]
    assert seen.shares.sum(axis=1) == pytest.approx([1, 1, 1])
    assert seen.phase_edges.tolist() == [0, T, 9 * T, 10 * T]


def test_data_that_end_before_the_phases() -> None:
    phases = [
        PhaseConfig(name="a", tokens=100),
        PhaseConfig(name="b", tokens=500),
        PhaseConfig(name="c", tokens=50),
    ]
    seen = forecast_mixture(mixture_schedule(phases, {"x": 60, "y": 40}), [60, 40], [2, 2])
    assert seen.phase_edges.tolist() == [0, 100, 200, 200]
    end = seen.findings[-1]
    assert (end.kind, end.phase, end.tokens) == ("data_end", "b", 200)
    assert "450 tokens before the end of the phases" in end.message
    assert seen.total_epochs.tolist() == [2, 2]
    assert seen.shares[2].tolist() == [0, 0]


def test_repeats_without_a_cap_and_data_sets_that_give_nothing() -> None:
    phases = [
        PhaseConfig(name="a", tokens=123_456, datasets=("x",)),
        PhaseConfig(name="b", tokens=9, datasets=("x", "z")),
    ]
    seen = forecast_mixture(mixture_schedule(phases, {"x": 100, "y": 40, "z": 0}), [100, 40, 0], [None] * 3)
    assert {(finding.kind, finding.dataset, finding.tokens) for finding in seen.findings} == {
        ("repeated", "x", 400),
        ("unseen", "y", 0),
        ("unseen", "z", 0),
    }
    repeated = next(f.message for f in seen.findings if f.dataset == "x")
    assert repeated.startswith("'x' has been seen 4 times, after which gains fade, and will be 1,235 times")
    assert "no phase has it" in next(f.message for f in seen.findings if f.dataset == "y")
    assert "no tokens" in next(f.message for f in seen.findings if f.dataset == "z")


def test_how_far_it_looks() -> None:
    endless = mixture_schedule([PhaseConfig(name="a", tokens=50), PhaseConfig(name="b")], {"x": 60, "y": 40})
    assert forecast_mixture(endless, [60, 40], [None] * 2).phase_edges.tolist() == [0, 50, 150]
    assert forecast_mixture(endless, [60, 40], [None] * 2, until_tokens=1000).phase_edges.tolist() == [
        0,
        50,
        1000,
    ]
    assert forecast_mixture(endless, [60, 40], [None] * 2, until_tokens=20).phase_edges.tolist() == [
        0,
        20,
        20,
    ]
    assert forecast_mixture(endless, [60, 40], [1, 1], until_tokens=1000).phase_edges.tolist() == [0, 50, 100]


def test_a_cap_is_the_decimal_it_is_written_as() -> None:
    assert max_tokens_of_run(2.1, 10**15) == 21 * 10**14
    assert max_tokens_of_run(None, 5) is None
    assert max_tokens_of_run(None, 0) == 0
    assert max_tokens_of_run(0.001, 5) == 1


@pytest.mark.parametrize(
    ("tokens", "text"),
    [(0, "0"), (999, "999"), (999_999, "1M"), (1_500_000_000_000, "1.5T"), (12_345, "12.3k")],
)
def test_tokens_in_short(tokens: int, text: str) -> None:
    assert format_tokens(tokens) == text


def test_pictures_of_a_short_phase_an_early_cap_and_many_data_sets(tmp_path: Path) -> None:
    sizes = {f"d{i}": 10 ** (5 + i // 3) + i for i in range(14)}
    phases = [
        PhaseConfig(name="warm", tokens="1M", temperature=4.0),
        PhaseConfig(name="main", tokens="9B", temperature=(1.0, 3.0)),
    ]
    seen = forecast_mixture(mixture_schedule(phases, sizes), list(sizes.values()), [0.01] + [None] * 13)
    for number, each in enumerate(
        (
            seen,
            seed_forecast(),
            forecast_mixture(mixture_schedule([PhaseConfig(name="a")], {"x": 9}), [9], [None]),
        )
    ):
        plot_forecast(each, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_and_the_plain_facts_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    seen = seed_forecast()
    documents = [100, 200, 300, 400, 500]
    plain = forecast_report(seen, CAPS, documents)
    assert [phase["name"] for phase in plain["phases"]] == ["cold", "mid", "hot"]
    assert plain["phases"][1]["epochs"]["instructions"] == pytest.approx(seen.epochs[1, 4])
    assert plain["datasets"]["speech"] == {
        "epoch_tokens": 6 * 10**10,
        "epoch_documents": 400,
        "max_epochs": 4,
        "tokens": 24 * 10**10,
        "epochs": 4.0,
    }
    assert len(plain["findings"]) == len(seen.findings)
    common.console().print(forecast_table(seen, CAPS, documents))
    shown = capsys.readouterr().out
    for text in ("cold", "0 – 1T", "1T – 9T", "9T – 10T", "web", "72.59%", "20 ep, reached", "60B in 400"):
        assert text in shown
