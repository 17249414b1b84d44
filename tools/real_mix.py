"""Builds one shard set from every kind of real recording that is available, and writes a plan that mixes its data sets.

python -m tools.real_mix --out FOLDER [--data REAL_DATA]

The script writes FOLDER/inputs (descriptions and lists that refer to the recordings), FOLDER/build.toml, FOLDER/shards (one
build, one token layout) and FOLDER/plan.toml. The data are six-camera keyframes, robot episodes, films with audio,
telemetry, speech with transcripts, captioned images, and texts. The same recordings give the same bytes in any folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mmpack
from mmpack.ingest import BuildConfig, BuildOutcome
from mmpack.settings import load_settings
from tools.real_texts import standard_library_texts

_ROOT = Path(__file__).parents[1]
_EPISODES = ("000029", "000030")
_MAX_TEXTS = 6000
_IMAGE_NAME = re.compile(r"n(?P<car>\d+)-(?P<date>\d{4}-\d\d-\d\d)-(?P<hour>\d\d)-(?P<minute>\d\d)-")
# Cities of the two cars of nuScenes (arXiv 1903.11027, section 3).
_CITIES = {"008": "Boston", "015": "Singapore"}

_BUILD = """\
# Written by tools/real_mix.py: every kind of real recording in one layout.

recordings = [
    "inputs/data/nuscenes_drivelm",
    "inputs/episodes",
    "inputs/films",
    "inputs/comma2k19/recording.toml",
]

[sync.streams."action*"]
policy = "window"                # half of the float32 timestamps are a little too early
before = "1ms"
after = "199ms"

[layout]
vision = { max_tokens = 256 }
time = { step = "100ms", span = "60s" }

[shards]
size = "8MB"

[[samples]]
name = "texts"
kind = "text"
path = "inputs/texts.jsonl"

[[samples]]
name = "captions"
kind = "image_text"
path = "inputs/captions.jsonl"

[[samples]]
name = "speech"
kind = "speech"
path = "inputs/speech.jsonl"
"""

_PLAN = """\
# Written by tools/real_mix.py: the phases cold, mid and hot, as long as the repeat caps of small data allow.

max_seq_len = 8192
global_batch = 24
window_steps = 16
seed = 17

[[datasets]]
name = "surround"                # six cameras
shards = "shards"
select = ["n008-*", "n015-*"]

[[datasets]]
name = "robot"                   # a camera, joints, actions
shards = "shards"
select = ["episode_*"]

[[datasets]]
name = "narrated"                # video, audio, subtitles
shards = "shards"
select = ["nasa_*", "gopro_*"]

[[datasets]]
name = "telemetry"               # numeric streams only
shards = "shards"
select = ["comma2k19"]

[[datasets]]
name = "speech"
shards = "shards"
select = ["speech"]

[[datasets]]
name = "captions"
shards = "shards"
select = ["captions"]

[[datasets]]
name = "texts"
shards = "shards"
select = ["texts"]

[[phases]]
name = "cold"
tokens = "1M"
temperature = 1.2

[[phases]]
name = "mid"
tokens = "8M"
temperature = [3.0, 5.0]

[[phases]]
name = "hot"
tokens = "1M"
temperature = 1.5
"""

_FILM = """\
[recording]
name = "{name}"
root = "../../data"
reference = "rate:1"

[streams.video]
kind = "camera"
path = "{path}"
track = "v:{track}"

[streams.audio]
kind = "audio"
path = "{path}"
track = "a:{track}"
"""

_SUBTITLES = """
[streams.subtitles]
kind = "text"
path = "{path}"
track = "s:{track}"
"""

_INSTRUCTION = """
[streams.instruction]
kind = "text"
path = "{path}"
time = {{ column = "t", unit = "s" }}
end = "end"
"""


def main() -> None:
    """Builds the shard set and prints its numbers of samples and tokens."""
    default = os.environ.get("MMPACK_REAL_DATA") or str(_ROOT / ".." / "shared" / "data")
    parser = argparse.ArgumentParser(description="Builds one shard set from every kind of real recording.")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder of the real recordings")
    parser.add_argument("--texts", type=int, default=_MAX_TEXTS, help="largest number of texts")
    options = parser.parse_args()
    outcome = make_real_mix(options.out, options.data, texts=options.texts)
    manifest = outcome.manifest
    if manifest is None:
        raise SystemExit("\n".join(f"{failure.task}: {failure.error}" for failure in outcome.failures))
    tokens = ", ".join(f"{count:,} {name}" for name, count in manifest.tokens_by_modality.items())
    print(f"{options.out}: {manifest.samples:,} samples, {manifest.tokens:,} tokens ({tokens})")


def make_real_mix(out: Path, data: Path, *, texts: int = _MAX_TEXTS) -> BuildOutcome:
    """Writes inputs, build.toml and plan.toml to `out`, and builds its shards.

    Args:
        out: output folder; the results of an earlier call with other inputs are built again.
        data: folder of the real recordings.
        texts: largest number of texts.

    Returns:
        The outcome of the build.

    Raises:
        MmpackError: a recording is missing or cannot be read.
    """
    inputs = out / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    # Descriptions refer to the recordings through a link, so that the shards contain no path of this machine.
    link = inputs / "data"
    link.unlink(missing_ok=True)
    link.symlink_to(data.resolve(), target_is_directory=True)
    _write_recordings(inputs, data)
    _write_lines(inputs / "captions.jsonl", _read_captions(data))
    _write_lines(inputs / "speech.jsonl", _read_speech(data))
    library = standard_library_texts(texts)
    _write_lines(inputs / "texts.jsonl", ({"text": text, "from": source} for source, text in library))
    (out / "build.toml").write_text(_BUILD, "utf-8")
    (out / "plan.toml").write_text(_PLAN, "utf-8")
    config = load_settings(out / "build.toml", BuildConfig).resolve_paths(out)
    return mmpack.build_shards(config, str(out / "shards"), overwrite=True)


def _write_recordings(inputs: Path, data: Path) -> None:
    template = (_ROOT / "examples" / "lerobot" / "recording.toml").read_text("utf-8")
    tasks = data / "lerobot_v21_g1" / "meta" / "tasks.jsonl"
    instruction = json.loads(tasks.read_text("utf-8").splitlines()[0])["task"]
    for episode in _EPISODES:
        text = template.replace("episode_000000", f"episode_{episode}")
        text = text.replace("$LEROBOT", "../../data/lerobot_v21_g1")
        folder = _write_description(inputs / "episodes" / episode, text)
        (folder / "instruction.csv").write_text(f't,end,text\n0.0,1.0,"{instruction}"\n', "utf-8")
        with (folder / "recording.toml").open("a", encoding="utf-8") as file:
            file.write(_INSTRUCTION.format(path=(folder / "instruction.csv").resolve()))
    # Number 1 selects the larger one of the two video tracks, and the audio and subtitle tracks of the same number.
    nasa = {"name": "nasa_13013", "path": "av_speech/nasa_13013.mp4", "track": 1}
    _write_description(inputs / "films" / "nasa", (_FILM + _SUBTITLES).format_map(nasa))
    gopro = {"name": "gopro_heromode", "path": "gopro/max-heromode.mp4", "track": 0}
    _write_description(inputs / "films" / "gopro", _FILM.format_map(gopro))
    comma = (_ROOT / "examples" / "comma2k19" / "recording.toml").read_text("utf-8")
    comma = comma.replace('root = "$COMMA2K19"', 'root = "../data/comma2k19"\nreference = "rate:10"')
    _write_description(inputs / "comma2k19", comma)


def _write_description(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recording.toml").write_text(text, "utf-8")
    return folder


def _read_captions(data: Path) -> Iterable[Mapping[str, Any]]:
    """Yields image paths with captions made from the file names: camera, city and time."""
    for path in sorted((data / "nuscenes_drivelm" / "samples").glob("CAM_*/*.jpg")):
        if match := _IMAGE_NAME.match(path.name):
            camera = path.parent.name.removeprefix("CAM_").replace("_", " ").capitalize()
            time = f"{match['date']}, {match['hour']}:{match['minute']}"
            text = f"{camera} camera, {_CITIES[match['car']]}, {time}."
            yield {"path": f"data/{path.relative_to(data).as_posix()}", "text": text}


def _read_speech(data: Path) -> Iterable[Mapping[str, Any]]:
    folder = data / "av_speech"
    for line in (folder / "librivox" / "transcription").read_text("utf-8").splitlines():
        text, _, name = line.strip().removesuffix(")").rpartition(" (")
        spoken = text.removeprefix("<s>").removesuffix("</s>").strip()
        yield {"path": f"data/av_speech/librivox/{name}.wav", "text": spoken}
    # The transcript is a public quotation from the inaugural address of 20 January 1961.
    yield {
        "path": "data/av_speech/jfk.flac",
        "text": "And so, my fellow Americans: ask not what your country can do for you, "
        "ask what you can do for your country.",
    }


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
