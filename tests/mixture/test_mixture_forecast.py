"""The forecast: it equals what is drawn, and it warns about unintended effects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.mixture import PhaseConfig, draw_documents, mixture_schedule
from mmpack.mixture.forecast import MixtureForecast, forecast_mixture, format_tokens, max_tokens_of_run
from mmpack.show.console import make_console
from mmpack.show.mixture_table import forecast_report, forecast_table
from mmpack.show.plots import write_plot
from tests.examples import examples
from tests.mixture.mixture_cases import SEED_PHASES, SIZES, T

CAPS = [None, None, 6, 4, 20]


def seed_forecast(scale: int = 1) -> MixtureForecast:
    """Forecasts the phases of the recipe over five data sets with caps, with all token counts divided by `scale`."""
    phases = [
        PhaseConfig(name=phase.name, tokens=(phase.num_tokens or 0) // scale, temperature=phase.temperature)
        for phase in SEED_PHASES
    ]
    sizes = {name: size // scale for name, size in SIZES.items()}
    return forecast_mixture(mixture_schedule(phases, sizes), list(sizes.values()), CAPS)


def drawn_at(forecast: MixtureForecast, epochs: list[np.ndarray], until_tokens: int) -> np.ndarray:
    """Returns the tokens drawn of each data set, whose document lengths repeat epoch after epoch."""
    repeats = forecast.total_epochs.astype(int) + 2
    buffers = [np.tile(epoch, n) for epoch, n in zip(epochs, repeats, strict=True)]
    offsets = np.concatenate(([0], np.cumsum([len(buffer) for buffer in buffers])))
    lengths = np.concatenate(buffers).astype(np.int32)
    result = draw_documents(
        forecast.quota_curve, np.zeros(len(epochs), np.int64), lengths, offsets, until_tokens=until_tokens
    )
    assert result.stop != "exhausted"
    return result.tokens


def check_against_draws(forecast: MixtureForecast, epochs: list[np.ndarray]) -> None:
    max_length = max(int(lengths.max()) for lengths in epochs)
    # Drawing stops up to one document late, and a document that crosses a cap has tokens beyond the cap.
    tolerance = max_length * (2 + len(epochs))
    for num_phases, edge in enumerate(forecast.phase_edges[1:].tolist(), 1):
        drawn = drawn_at(forecast, epochs, edge)
        assert np.abs(drawn - forecast.tokens[:num_phases].sum(axis=0)).max() <= tolerance


def test_the_forecast_of_the_recipe_equals_what_is_drawn() -> None:
    random = np.random.default_rng(0)
    scaled = seed_forecast(scale=10**5)
    epochs = []
    for size in scaled.sizes.tolist():
        lengths = random.integers(100, 8193, max(1, size // 4100))
        # The last two documents fill up the epoch, so that it has exactly `size` tokens.
        lengths = lengths[: np.searchsorted(np.cumsum(lengths), size - 8192)]
        rest = size - int(lengths.sum())
        epochs.append(np.append(lengths, [rest // 2, rest - rest // 2]))
        assert epochs[-1].sum() == size
    check_against_draws(scaled, epochs)
    assert scaled.total_epochs[3:] == pytest.approx([4, 20])
    assert drawn_at(scaled, epochs, int(scaled.phase_edges[-1]))[3:].tolist() == [
        4 * int(scaled.sizes[3]),
        20 * int(scaled.sizes[4]),
    ]


@settings(max_examples=examples(60))
@given(st.data())
def test_any_forecast_equals_what_is_drawn(data: st.DataObject) -> None:
    names = [f"d{i}" for i in range(data.draw(st.integers(1, 6)))]
    epochs = [
        np.array(data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=30)), np.int64) for _ in names
    ]
    sizes = {name: int(epoch.sum()) for name, epoch in zip(names, epochs, strict=True)}
    phases = [
        PhaseConfig(
            name=f"p{index}",
            tokens=data.draw(st.integers(1, 2000)),
            datasets=tuple(data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))),
            temperature=data.draw(st.floats(0.3, 5)),
        )
        for index in range(data.draw(st.integers(1, 4)))
    ]
    caps = [data.draw(st.none() | st.sampled_from([0.5, 1, 2, 3.7, 10])) for _ in names]
    check_against_draws(forecast_mixture(mixture_schedule(phases, sizes), list(sizes.values()), caps), epochs)


def test_a_cap_warning_has_the_token_count_and_the_data_sets_that_take_over() -> None:
    forecast = seed_forecast()
    instructions, speech = (warning for warning in forecast.warnings if warning.kind == "cap")
    assert (instructions.dataset, speech.dataset) == ("instructions", "speech")
    assert instructions.tokens < speech.tokens < 9 * T
    assert instructions.phase == speech.phase == "mid"
    for warning, cap in ((instructions, 20), (speech, 4)):
        assert warning.message.startswith(
            f"'{warning.dataset}' reaches its cap (max_epochs {cap}); its share goes to 'web'"
        )
        gained = sum(after - before for _, before, after in warning.takes_over)
        column = forecast.quota_curve.schedule.datasets.index(warning.dataset)
        stage = forecast.quota_curve.schedule.stage_at(warning.tokens - 1)
        assert gained >= forecast.quota_curve.schedule.weights[stage, column] / (1 << 24) * 0.99
    assert forecast.tokens[2, 3:].tolist() == [0, 0]
    assert forecast.shares.sum(axis=1) == pytest.approx([1, 1, 1])
    assert forecast.phase_edges.tolist() == [0, T, 9 * T, 10 * T]


def test_a_warning_if_the_data_end_before_the_phases() -> None:
    phases = [
        PhaseConfig(name="a", tokens=100),
        PhaseConfig(name="b", tokens=500),
        PhaseConfig(name="c", tokens=50),
    ]
    forecast = forecast_mixture(mixture_schedule(phases, {"x": 60, "y": 40}), [60, 40], [2, 2])
    assert forecast.phase_edges.tolist() == [0, 100, 200, 200]
    end = forecast.warnings[-1]
    assert (end.kind, end.phase, end.tokens) == ("data_end", "b", 200)
    assert "450 tokens before the end of the phases" in end.message
    assert forecast.total_epochs.tolist() == [2, 2]
    assert forecast.shares[2].tolist() == [0, 0]


def test_warnings_about_repeats_without_a_cap_and_unused_data_sets() -> None:
    phases = [
        PhaseConfig(name="a", tokens=123_456, datasets=("x",)),
        PhaseConfig(name="b", tokens=9, datasets=("x", "z")),
    ]
    forecast = forecast_mixture(
        mixture_schedule(phases, {"x": 100, "y": 40, "z": 0}), [100, 40, 0], [None] * 3
    )
    assert {(warning.kind, warning.dataset, warning.tokens) for warning in forecast.warnings} == {
        ("repeated", "x", 400),
        ("unseen", "y", 0),
        ("unseen", "z", 0),
    }
    repeated = next(warning.message for warning in forecast.warnings if warning.dataset == "x")
    assert repeated.startswith(
        "'x' has been seen 4 times, after which repeats gain less, and will be seen 1,235 times"
    )
    assert "no phase uses it" in next(
        warning.message for warning in forecast.warnings if warning.dataset == "y"
    )
    assert "no tokens" in next(warning.message for warning in forecast.warnings if warning.dataset == "z")


def test_the_end_of_the_forecast() -> None:
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


def test_a_cap_is_an_exact_decimal() -> None:
    assert max_tokens_of_run(2.1, 10**15) == 21 * 10**14
    assert max_tokens_of_run(None, 5) is None
    assert max_tokens_of_run(None, 0) == 0
    assert max_tokens_of_run(0.001, 5) == 1


@pytest.mark.parametrize(
    ("tokens", "text"),
    [(0, "0"), (999, "999"), (999_999, "1M"), (1_500_000_000_000, "1.5T"), (12_345, "12.3k")],
)
def test_token_counts_are_formatted_with_a_unit(tokens: int, text: str) -> None:
    assert format_tokens(tokens) == text


def test_plots_of_a_short_phase_an_early_cap_and_many_data_sets(tmp_path: Path) -> None:
    sizes = {f"d{i}": 10 ** (5 + i // 3) + i for i in range(14)}
    phases = [
        PhaseConfig(name="warm", tokens="1M", temperature=4.0),
        PhaseConfig(name="main", tokens="9B", temperature=(1.0, 3.0)),
    ]
    forecast = forecast_mixture(mixture_schedule(phases, sizes), list(sizes.values()), [0.01] + [None] * 13)
    for index, plotted in enumerate(
        (
            forecast,
            seed_forecast(),
            forecast_mixture(mixture_schedule([PhaseConfig(name="a")], {"x": 9}), [9], [None]),
        )
    ):
        write_plot("mixture", tmp_path / f"{index}.png", plotted)
        assert (tmp_path / f"{index}.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_and_the_json_report_have_the_same_values(capsys: pytest.CaptureFixture[str]) -> None:
    forecast = seed_forecast()
    documents = [100, 200, 300, 400, 500]
    report = forecast_report(forecast, CAPS, documents)
    assert [phase["name"] for phase in report["phases"]] == ["cold", "mid", "hot"]
    assert report["phases"][1]["epochs"]["instructions"] == pytest.approx(forecast.epochs[1, 4])
    assert report["datasets"]["speech"] == {
        "epoch_tokens": 6 * 10**10,
        "epoch_documents": 400,
        "max_epochs": 4,
        "tokens": 24 * 10**10,
        "epochs": 4.0,
    }
    assert len(report["findings"]) == len(forecast.warnings)
    make_console().print(forecast_table(forecast, CAPS, documents))
    output = capsys.readouterr().out
    for text in ("cold", "0 – 1T", "1T – 9T", "9T – 10T", "web", "72.59%", "20 ep, reached", "60B in 400"):
        assert text in output
