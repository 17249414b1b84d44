"""Ranges of settings: declared in the types of fields, checked in TOML files and in Python."""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pytest
from msgspec import Meta

from mmpack.errors import ConfigError
from mmpack.ingest import BuildConfig
from mmpack.mixture.phase_config import PhaseConfig
from mmpack.plan.plan_config import CostConfig, PlanConfig, ReaderConfig
from mmpack.recording.formats.folder import open_folder
from mmpack.settings import Settings, load_settings

#: Valid values of the required fields of each class.
REQUIRED: dict[str, dict[str, Any]] = {
    "PlanConfig": {"max_seq_len": 64, "global_batch": 4, "datasets": [{"name": "a", "shards": "shards"}]},
    "DatasetConfig": {"name": "a", "shards": "shards"},
    "PhaseConfig": {"name": "p"},
    "SourceConfig": {"name": "s", "kind": "text", "path": "texts.jsonl"},
    "NumericLayout": {"name": "imu", "width": 6},
}
Wrap = Callable[[Any], Any]


class RangedSetting(NamedTuple):
    """A number with a declared range: its classes from the file to the table, its keys, and its range."""

    root: type[Settings]
    class_: type[Settings]
    name: str
    make_table: Wrap
    make_value: Wrap
    meta: Meta
    is_float: bool


def _struct_classes(type_: Any) -> Iterator[tuple[type[Settings], Wrap]]:
    """Yields the settings classes inside a type, each with a function that puts a table in its containers."""
    if isinstance(type_, type) and issubclass(type_, Settings):
        yield type_, lambda table: table
    origin = typing.get_origin(type_)
    for argument in typing.get_args(type_):
        for class_, wrap in _struct_classes(argument):
            if origin is dict:
                yield class_, lambda table, wrap=wrap: {"x": wrap(table)}
            elif origin in (tuple, list):
                yield class_, lambda table, wrap=wrap: [wrap(table)]
            else:
                yield class_, wrap


def _numbers(type_: Any) -> Iterator[tuple[Meta, bool, Wrap]]:
    """Yields each range inside a type, with a function that puts a number in its containers."""
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is Annotated:
        for meta in arguments[1:]:
            if isinstance(meta, Meta) and any(
                limit is not None for limit in (meta.ge, meta.gt, meta.le, meta.lt)
            ):
                yield meta, arguments[0] is float, lambda value: value
    for argument in arguments if origin is not Annotated else arguments[:1]:
        for meta, is_float, wrap in _numbers(argument):
            if origin is dict:
                yield meta, is_float, lambda value, wrap=wrap: {"x": wrap(value)}
            elif origin is tuple:
                size = len(arguments)
                yield meta, is_float, lambda value, wrap=wrap, size=size: (wrap(value),) * size
            else:
                yield meta, is_float, wrap


def _ranged_settings(
    root: type[Settings], class_: type[Settings], make_table: Wrap
) -> Iterator[RangedSetting]:
    """Yields every range of `class_` and of the classes inside it; `make_table` makes the whole file from a table."""
    for name, type_ in typing.get_type_hints(class_, include_extras=True).items():
        for meta, is_float, wrap in _numbers(type_):
            yield RangedSetting(root, class_, name, make_table, wrap, meta, is_float)
        for inner, wrap in _struct_classes(type_):

            def make_inner(table: Any, name: str = name, wrap: Wrap = wrap) -> Any:
                return make_table(REQUIRED.get(class_.__name__, {}) | {name: wrap(table)})

            yield from _ranged_settings(root, inner, make_inner)


def _values_outside(setting: RangedSetting) -> list[float]:
    """Returns the nearest numbers outside the range, and for a float NaN and infinity."""
    meta, values = setting.meta, []
    if setting.is_float:
        values = [math.nan, math.inf, -math.inf]
        values += [] if meta.ge is None else [math.nextafter(meta.ge, -math.inf)]
        values += [] if meta.gt is None else [float(meta.gt)]
        values += [] if meta.lt is None else [float(meta.lt)]
        values += [] if meta.le is None else [math.nextafter(meta.le, math.inf)]
        return values
    assert meta.gt is None
    assert meta.lt is None
    values += [] if meta.ge is None else [int(meta.ge) - 1]
    values += [] if meta.le is None else [int(meta.le) + 1]
    return values


def _to_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_to_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_to_toml, value)) + "]"
    return (
        repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value)
    )


SETTINGS = [
    setting
    for root in (PlanConfig, BuildConfig)
    for setting in _ranged_settings(root, root, lambda table: table)
]
CASES = [
    pytest.param(setting, value, id=f"{setting.class_.__name__}.{setting.name}={value}")
    for setting in SETTINGS
    for value in _values_outside(setting)
]


def _write_toml(path: Path, table: dict[str, Any]) -> Path:
    path.write_text("".join(f"{key} = {_to_toml(value)}\n" for key, value in table.items()))
    return path


def test_the_introspection_finds_the_settings_with_a_range() -> None:
    names = {f"{setting.class_.__name__}.{setting.name}" for setting in SETTINGS}
    assert names == {
        *(f"PlanConfig.{name}" for name in ("max_seq_len", "global_batch", "seed", "window_steps")),
        *(f"ReaderConfig.{name}" for name in ("workers", "threads", "prefetch", "retries", "max_corrupt")),
        *(f"AudioLayout.{name}" for name in ("sample_rate_hz", "hop", "codebooks", "codebook_size")),
        *(f"VisionLayout.{name}" for name in ("patch_size", "merge", "min_tokens", "max_tokens", "size")),
        *("DatasetConfig.max_epochs", "DatasetConfig.locality", "CostConfig.quadratic", "CostConfig.linear"),
        *("PhaseConfig.tokens", "PhaseConfig.weights", "PhaseConfig.shares"),
        *(
            "NumericLayout.width",
            "NumericLayout.bins",
            "ShardsConfig.jpeg_quality",
            "ShardsConfig.tubelet_crf",
        ),
        *("BuildConfig.max_quarantine", "SyncConfig.max_backward"),
    }


@pytest.mark.parametrize(("setting", "value"), CASES)
def test_a_number_outside_its_range_in_a_file_is_an_error_with_file_key_and_range(
    setting: RangedSetting, value: float, tmp_path: Path
) -> None:
    table = REQUIRED.get(setting.class_.__name__, {}) | {setting.name: setting.make_value(value)}
    path = _write_toml(tmp_path / "settings.toml", setting.make_table(table))
    with pytest.raises(ConfigError) as caught:
        load_settings(path, setting.root)
    assert caught.value.where.startswith(f"{path} [")
    key = caught.value.where.removeprefix(f"{path} [").removesuffix("]")
    assert key.removesuffix("[0]").removesuffix(".x").split(".")[-1] == setting.name
    assert caught.value.message.startswith(f"{value} is not ")
    for limit in (setting.meta.ge, setting.meta.gt, setting.meta.le, setting.meta.lt):
        assert limit is None or abs(limit) > 1e300 or str(int(limit)) in caught.value.message


@pytest.mark.parametrize(("setting", "value"), CASES)
def test_a_number_outside_its_range_in_python_is_an_error_with_key_and_range(
    setting: RangedSetting, value: float
) -> None:
    fields = REQUIRED.get(setting.class_.__name__, {}) | {setting.name: setting.make_value(value)}
    with pytest.raises(ConfigError, match=f"{value} is not ".replace("+", r"\+")) as caught:
        setting.class_(**fields)
    assert caught.value.where.removesuffix("[0]").removesuffix(".x").split(".")[-1] == setting.name


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"reader": {"threads": -1}}, "[reader.threads]: -1 is not between 0 and 1024"),
        (
            {"datasets": [{"name": "a", "shards": "x", "max_epochs": 0.0}]},
            "[datasets.a.max_epochs]: 0.0 is not between 0 (exclusive) and 1000000 (exclusive)",
        ),
        ({"cost": {"linear": math.inf}}, "[cost.linear]: inf is not a finite number of at least 0"),
        ({"reader": {"max_corrupt": -1}}, "[reader.max_corrupt]: -1 is not at least 0"),
        (
            {"phases": [{"name": "p", "tokens": 9, "temperature": [1.0, 0.0]}]},
            "[phases.p.temperature[1]]: 0.0 is not a finite number above 0",
        ),
        (
            {"phases": [{"name": "p", "temperature": math.nan}]},
            "[phases.p.temperature]: nan is not a finite number",
        ),
        ({"phases": [{"name": "p", "tokens": "0M"}]}, "[phases.p.tokens]: 0M is not at least 1"),
        (
            {"phases": [{"name": "p", "tokens": "many"}]},
            "[phases.p.tokens]: 'many' is not a number of tokens",
        ),
        ({"phases": [{"name": "p", "datasets": ["b"]}]}, "[phases.p.datasets]: no data set is called 'b'"),
        ({"phases": [{"name": "p"}, {"name": "q"}]}, "[phases.q]: the phase never begins"),
        ({"tolerance": "-1ms"}, "[tolerance]: -1ms is not at least 0"),
        ({"tolerance": "short"}, "[tolerance]: 'short' is not a duration"),
        ({"reader": {"gap": "wide"}}, "[reader.gap]: 'wide' is not a size"),
        ({"reader": {"workers": 1, "threads": 0}}, "[reader.threads]: the number of threads is 0"),
        (
            {"window_steps": 1 << 20, "global_batch": 5},
            "[window_steps]: a window of 5,242,880 rows is more than",
        ),
    ],
)
def test_an_error_of_a_plan_file_names_the_file(table: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = _write_toml(tmp_path / "plan.toml", REQUIRED["PlanConfig"] | table)
    with pytest.raises(ConfigError) as caught:
        load_settings(path, PlanConfig)
    assert str(caught.value).startswith(f"{path} {message}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"max_quarantine": 1.5}, "[max_quarantine]: 1.5 is not between 0 and 1"),
        ({"sync": {"max_backward": -0.1}}, "[sync.max_backward]: -0.1 is not between 0 and 1"),
        (
            {"sync": {"streams": {"cam_*": {"tolerance": "-1ms"}}}},
            '[sync.streams."cam_*".tolerance]: -1ms is not at least 0',
        ),
        (
            {"sync": {"streams": {"cam_*": {"offset": "some"}}}},
            "[sync.streams.\"cam_*\".offset]: 'some' is not a duration",
        ),
        ({"shards": {"size": "big"}}, "[shards.size]: 'big' is not a size"),
        ({"layout": {"vision": {"size": [32, 0]}}}, "[layout.vision.size[1]]: 0 is not at least 1"),
        (
            {"layout": {"vision": {"size": [32, 33]}}},
            "[layout.vision.size]: size [32, 33] is not a multiple of",
        ),
        (
            {"layout": {"vision": {"min_tokens": 300}}},
            "[layout.vision.min_tokens]: 300 is larger than max_tokens",
        ),
        ({"layout": {"time": {"step": "often"}}}, "[layout.time.step]: 'often' is not a duration"),
        (
            {"layout": {"time": {"span": "1h", "step": "7s"}}},
            "[layout.time.span]: span 1h is not a whole number",
        ),
        ({"layout": {"audio": {"codec": ""}}}, "[layout.audio.codec]: the codec has no name"),
        (
            {"layout": {"numeric": [{"name": "imu", "width": 2, "mode": "discrete"}]}},
            "[layout.numeric.imu.low]: a discrete stream needs limits",
        ),
        (
            {"samples": [{"name": "s", "kind": "texts", "path": "x"}]},
            "[samples.s.kind]: 'texts' is not a kind of stand-alone sample",
        ),
    ],
)
def test_an_error_of_a_build_config_names_the_file(
    table: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = _write_toml(tmp_path / "build.toml", table)
    with pytest.raises(ConfigError) as caught:
        load_settings(path, BuildConfig)
    assert str(caught.value).startswith(f"{path} {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[streams.s]\nkind = "event"\npath = 5\n', "[streams[...].path]: Expected 'str', got 'int'"),
        (
            '[streams.s]\nkind = "event"\nlatency = "late"\ntime = {path = "t.csv"}\n',
            "[streams.s.latency]: 'late' is not a duration",
        ),
        (
            '[clocks.c]\ndomain = "boots"\n[streams.s]\nkind = "event"\n',
            "[clocks.c.domain]: unknown clock domain 'boots'",
        ),
        (
            '[streams.s]\nkind = "event"\ntime = {path = "t.csv"}\n'
            '[[clock_maps]]\nsource = "media"\ntarget = "media"\noffset = "some"\n',
            "[clock_maps, media to media, offset]: 'some' is not a duration",
        ),
    ],
)
def test_an_error_of_a_recording_file_names_the_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recording.toml"
    path.write_text(text)
    (tmp_path / "t.csv").write_text("1\n2\n3\n")
    with pytest.raises(ConfigError) as caught:
        open_folder(tmp_path)
    assert str(caught.value).startswith(f"{path} {message}")


@pytest.mark.parametrize("value", [0, 1024])
def test_the_limits_of_a_range_are_allowed(value: int) -> None:
    assert ReaderConfig(threads=value).threads == value


def test_both_temperatures_of_a_ramp_are_checked_in_python() -> None:
    with pytest.raises(
        ConfigError, match=r"phases\.p\.temperature\[0\]: -1\.0 is not a finite number above 0"
    ):
        PhaseConfig(name="p", tokens=1, temperature=(-1.0, 1.0))


def test_threads_may_make_the_first_objects_of_a_class_at_the_same_time() -> None:
    class Fresh(Settings, frozen=True, kw_only=True):
        first: Annotated[int, Meta(ge=0, le=3)] = 1

    def is_rejected(value: int) -> bool:
        try:
            Fresh(first=value)
        except ConfigError:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(is_rejected, range(8))) == [False] * 4 + [True] * 4


def test_a_class_without_ranges_needs_no_check() -> None:
    assert CostConfig().linear == 24_576.0
