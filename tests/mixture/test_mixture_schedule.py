"""The schedule: phases divided into stages, for the phases of a training recipe."""

from __future__ import annotations

import numpy as np
import pytest

from mmpack.errors import ConfigError
from mmpack.mixture import SCALE, PhaseConfig, mixture_schedule
from mmpack.mixture.schedule import RAMP_STAGES
from mmpack.serialisation import canonical_json
from tests.mixture.mixture_cases import SEED_PHASES, SIZES, T

SCHEDULE = mixture_schedule(SEED_PHASES, SIZES)


def shares_at(tokens: int) -> np.ndarray:
    return SCHEDULE.weights[SCHEDULE.stage_at(tokens)] / SCALE


def formula(temperature: float) -> np.ndarray:
    powers = np.array(list(SIZES.values()), float) ** (1 / temperature)
    return powers / powers.sum()


@pytest.mark.parametrize(
    ("tokens", "temperature"),
    [(0, 1.2), (T - 1, 1.2), (T, 3.0), (5 * T, 4.0), (9 * T - 1, 5.0), (9 * T, 1.5), (10 * T - 1, 1.5)],
)
def test_all_phases_of_the_recipe_follow_the_formula(tokens: int, temperature: float) -> None:
    # A stage of the ramp has the temperature of its middle, which differs by at most half a stage.
    tolerance = (5 - 3) / RAMP_STAGES / 2 if 3 <= temperature <= 5 else 0
    bounds = [formula(temperature - tolerance), formula(temperature + tolerance)]
    assert (shares_at(tokens) >= np.minimum(*bounds) - 2 / SCALE).all()
    assert (shares_at(tokens) <= np.maximum(*bounds) + 2 / SCALE).all()


def test_a_ramp_is_close_to_the_smooth_ramp_everywhere() -> None:
    for part in np.linspace(0, 1, 500, endpoint=False):
        assert shares_at(int((1 + 8 * part) * T)) == pytest.approx(formula(3 + 2 * part), rel=0.012)


def test_phases_begin_at_their_tokens_and_a_ramp_has_equal_stages() -> None:
    schedule = SCHEDULE
    assert schedule.end_tokens == 10 * T
    assert schedule.start_tokens.tolist() == [0, *(T + T * n // 8 for n in range(RAMP_STAGES)), 9 * T]
    assert schedule.phase.tolist() == [0] + [1] * RAMP_STAGES + [2]
    assert (schedule.weights.sum(axis=1) == SCALE).all()
    assert mixture_schedule(
        [PhaseConfig(name="a", tokens=3, temperature=(1, 2))], SIZES
    ).start_tokens.tolist() == [0, 1, 2]


def test_data_sets_by_phase_weights_and_shares() -> None:
    phases = [
        PhaseConfig(name="one", tokens=10, datasets=("speech",)),
        PhaseConfig(name="two", tokens=10, shares={"web": 3, "video": 1}),
        PhaseConfig(name="three", datasets=("web", "video"), weights={"video": 4.5}),
    ]
    weights = mixture_schedule(phases, SIZES).weights.tolist()
    half = SCALE // 2
    assert weights == [[0, 0, 0, SCALE, 0], [SCALE * 3 // 4, SCALE // 4, 0, 0, 0], [half, half, 0, 0, 0]]


def test_a_data_set_without_tokens_has_no_share() -> None:
    assert mixture_schedule([PhaseConfig(name="a")], {"full": 5, "empty": 0}).weights.tolist() == [[SCALE, 0]]


def test_the_fingerprint_depends_on_shares_and_tokens_but_not_on_names_of_phases() -> None:
    def fingerprint(*phases: PhaseConfig) -> bytes:
        return canonical_json(mixture_schedule(phases, SIZES).canonical())

    original = fingerprint(PhaseConfig(name="a", temperature=2.0))
    assert original == fingerprint(PhaseConfig(name="b", temperature=2.0))
    assert original != fingerprint(PhaseConfig(name="a", temperature=2.1))
    assert original != fingerprint(PhaseConfig(name="a", temperature=2.0, tokens=5))


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([PhaseConfig(name="a", datasets=("vidoe",))], r"phases\.a\.datasets.*'vidoe'.*Did you mean 'video'"),
        ([PhaseConfig(name="a", weights={"wbe": 1.0})], r"phases\.a\.weights.*Did you mean 'web'"),
        ([PhaseConfig(name="a", shares={"speeech": 1.0})], r"phases\.a\.shares.*Did you mean 'speech'"),
        ([PhaseConfig(name="a"), PhaseConfig(name="b", tokens=5)], r"phases\.b: the phase never begins.*'a'"),
        ([PhaseConfig(name="a", shares={"web": 0.0})], r"phases\.a: no data set has a positive share"),
        (
            [PhaseConfig(name="a", datasets=("web",), weights={"web": 0.0})],
            "no data set has a positive share",
        ),
        ([PhaseConfig(name="a", tokens="9999999T")], r"phases\.a.*Check the unit"),
        ([], "no phases"),
    ],
)
def test_phases_without_a_valid_schedule_are_an_error(phases: list[PhaseConfig], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mixture_schedule(phases, SIZES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datasets": ()}, r"phases\.p\.datasets: the list of data sets is empty"),
        ({"datasets": ("a", "a")}, "listed twice"),
        ({"datasets": ("a",), "weights": {"b": 1.0}}, "'b' has a weight or share, but is not in"),
        ({"datasets": ("a", "b"), "shares": {"a": 1.0}}, "'b' has no share"),
        ({"shares": {"a": 1.0}, "temperature": 2.0}, "'shares' cannot be combined"),
        ({"temperature": (1.0, 2.0)}, "a temperature ramp needs the number of tokens"),
        ({"temperature": 0.0}, r"phases\.p\.temperature: 0\.0 is not a finite number above 0"),
        ({"weights": {"a": -1.0}}, r"phases\.p\.weights\.a: -1\.0 is not a finite number of at least 0"),
    ],
)
def test_a_contradictory_phase_is_an_error(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PhaseConfig(name="p", **settings)
