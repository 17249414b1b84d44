"""Every worked example of CONTRIBUTING.md: it is registered with its one line, and used as a user would use it."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.testing

import mmpack
from mmpack.ingest import BuildConfig
from mmpack.settings import parse_settings
from tests.sync.listed_streams import align, make_rule, regular_ns, stream
from tools.make_recording import CameraSettings, make_recording

MAX_LINES = 32
EXAMPLES = {
    match.group(1): match.group(0)
    for match in re.finditer(
        r"(?<=```python\n)# (mmpack/\S+\.py)\n.*?(?=^```)",
        (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
}


@pytest.fixture
def example(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module of one example, importable under its own name while the test runs."""
    path: str = request.param
    name = path.removesuffix(".py").replace("/", ".")
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        exec(compile(EXAMPLES[path], path, "exec"), module.__dict__)
        yield module
    finally:
        del sys.modules[name]


def of(path: str) -> pytest.MarkDecorator:
    """Gives a test the example that CONTRIBUTING.md shows for the file at `path`."""
    return pytest.mark.parametrize("example", [path], indirect=True, ids=[Path(path).stem])


def test_every_example_has_a_test_and_is_short() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert len(EXAMPLES) == 9
    for path, source in EXAMPLES.items():
        assert f'@of("{path}")' in tests
        assert not Path(path).exists(), "the example would replace a module of mmpack"
        assert len(source.splitlines()) <= MAX_LINES


@of("mmpack/sync/policies/next_item.py")
def test_a_policy(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpack.sync.policies.match import MatchStatus
    from mmpack.sync.policies.registry import POLICIES, match_stream

    with pytest.raises(mmpack.MmpackError, match="next"):
        parse_settings({"sync": {"streams": {"*": {"policy": "next"}}}}, BuildConfig, where="build.toml")
    monkeypatch.setitem(POLICIES, "next", example.NEXT)
    config = parse_settings({"sync": {"streams": {"*": {"policy": "next"}}}}, BuildConfig, where="build.toml")
    assert config.sync.streams["*"].policy == "next"
    aligned = align(stream(regular_ns(10, 100) + 7))
    ticks_ns = regular_ns(10, 100)
    match = match_stream(aligned, make_rule(aligned, 100, policy="next", tolerance="10ns"), ticks_ns, 100)
    assert match.residual_ns.tolist() == [7] * 10
    assert (match.status == MatchStatus.OK).all()


@of("mmpack/sync/policies/next_item.py")
def test_a_policy_is_built_verified_and_reported(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmpack.sync.policies.registry import POLICIES

    monkeypatch.setitem(POLICIES, "next", example.NEXT)
    make_recording(tmp_path / "drive", CameraSettings(seconds=3, size=(48, 64)), faults=False, name="drive")
    table = {
        "recordings": [str(tmp_path / "drive")],
        "sync": {"streams": {"can": {"policy": "next", "tolerance": "50ms"}}},
    }
    config = parse_settings(table, BuildConfig, where="build.toml")
    mmpack.build_shards(config, str(tmp_path / "out"), engine=mmpack.ingest.EngineConfig(workers=0))
    report = mmpack.verify(str(tmp_path / "out"))
    assert report.samples > 0
    assert report.problems == []
    manifest = mmpack.ShardSet(str(tmp_path / "out")).manifest
    [recording] = manifest.recordings
    assert recording.streams["can"].policy == "next"


@of("mmpack/sync/detectors/silence.py")
def test_a_detector(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import mmpack.sync.detectors.registry as detectors

    monkeypatch.setattr(
        detectors, "STREAM_DETECTORS", (*detectors.STREAM_DETECTORS, example.detect_few_items)
    )
    kinds = [finding.kind for finding in detectors.detect_stream(align(stream(regular_ns(2, 100))))]
    assert kinds == ["few_items"]


@of("mmpack/samples/kinds/scan.py")
def test_a_sample_kind(example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from PIL import Image

    from mmpack.samples.kinds import KINDS

    monkeypatch.setitem(KINDS, "scan", example.SCAN)
    with io.BytesIO() as file:
        Image.fromarray(np.full((40, 64, 3), 200, np.uint8)).save(file, "png")
        (tmp_path / "page.scan").write_bytes(file.getvalue())
    (tmp_path / "pages.jsonl").write_text('{"text": "dear reader", "path": "page.scan"}\n' * 3)
    source = {"name": "pages", "kind": "scan", "path": str(tmp_path / "pages.jsonl")}
    config = parse_settings({"samples": [source]}, BuildConfig, where="build.toml")
    out = tmp_path / "out"
    mmpack.build_shards(config, str(out), engine=mmpack.ingest.EngineConfig(workers=0))
    assert mmpack.verify(str(out)).problems == []
    plan = tmp_path / "plan.toml"
    plan.write_text(
        "max_seq_len = 64\nglobal_batch = 1\nwindow_steps = 1\n"
        '[[datasets]]\nname = "pages"\nshards = "out"\nmax_epochs = 1\n'
    )
    with mmpack.RowStream.open(plan, reader={"max_corrupt": 0}) as rows:
        row = next(rows)
    assert len(row.patches) >= 2
    assert row.patches.min() > 190


@of("mmpack/recording/formats/csv_file.py")
def test_an_input_format(example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mmpack.recording.formats.registry as formats

    path = tmp_path / "drive.csv"
    path.write_text("t_ns,speed\n" + "".join(f"{t * 10**7},{t}\n" for t in range(50)))
    with pytest.raises(mmpack.MmpackError, match="format"):
        mmpack.open_recordings(path)
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, example.CSV_FILE))
    [recording] = mmpack.open_recordings(path)
    result = mmpack.synchronise(recording, mmpack.SyncConfig(reference="rate:10"))
    assert result.passed.sum() >= 4


@of("mmpack/ingest/engines/reverse.py")
def test_an_engine(example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpack.ingest import EngineConfig
    from mmpack.ingest.engines import ENGINES

    monkeypatch.setitem(ENGINES, "reverse", example.ReverseEngine())
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    sources = [{"name": name, "kind": "text", "path": str(tmp_path / "texts.jsonl")} for name in ("a", "b")]
    config = parse_settings({"samples": sources}, BuildConfig, where="build.toml")
    for engine in ("reverse", "in_process"):
        mmpack.build_shards(
            config, str(tmp_path / engine), engine=EngineConfig(name=engine, workers=0), overwrite=True
        )
    indices = [(tmp_path / engine / "index.parquet").read_bytes() for engine in ("reverse", "in_process")]
    assert indices[0] == indices[1]


@of("mmpack/rows/decode/codecs/sign.py")
def test_a_codec(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpack.layout import AudioLayout
    from mmpack.rows.decode.codecs import CODECS, open_codec

    monkeypatch.setitem(CODECS, "sign", example.SignCodec)
    layout = AudioLayout(codec="sign", sample_rate_hz=8000, hop=80, codebooks=1, codebook_size=2)
    codes = open_codec(layout, "").encode(np.repeat([0.5, -0.5], 400).astype(np.float32), 8000)
    assert codes.tolist() == [[1]] * 5 + [[0]] * 5


@of("mmpack/storage/home.py")
def test_a_store(example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpack.storage import STORES, open_store

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setitem(STORES, "home", example.HomeStore.from_url)
    open_store("home://shards").write("a.txt", b"content")
    assert (tmp_path / "shards" / "a.txt").read_bytes() == b"content"


@of("mmpack/show/length_plot.py")
def test_a_plot(example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpack.show.plots import PLOTS, Plot, write_plot

    monkeypatch.setitem(PLOTS, "lengths", Plot("document lengths", f"{example.__name__}:plot_lengths"))
    write_plot("lengths", tmp_path / "lengths.png", np.arange(100))
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")


@of("mmpack/cli/count.py")
def test_a_command(example: Any, tmp_path: Path) -> None:
    from mmpack.cli.registry import COMMANDS

    assert "count" not in COMMANDS
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    source = {"name": "texts", "kind": "text", "path": str(tmp_path / "texts.jsonl")}
    config = parse_settings({"samples": [source]}, BuildConfig, where="build.toml")
    mmpack.build_shards(config, str(tmp_path / "out"), engine=mmpack.ingest.EngineConfig(workers=0))
    app = typer.Typer()
    app.command("count")(example.count)
    result = typer.testing.CliRunner().invoke(app, [str(tmp_path / "out")])
    assert (result.exit_code, result.output) == (0, "2\n")
