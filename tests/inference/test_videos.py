"""Videos of `flaxseg predict`.

    FUZZ=50 pytest tests/inference/test_videos.py -k mutated

tries so many mutated videos; the suite tries fewer.
"""

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from flaxseg import cli, native
from flaxseg.data import Shapes
from flaxseg.errors import ConfigError, DataError
from flaxseg.inference import predict_files, read_image, videos
from flaxseg.inference.inputs import find_inputs
from flaxseg.inference.pixels import Pixels
from flaxseg.inference.predict import Predictor, Prepared
from flaxseg.pictures.overlay import colorize, overlay
from flaxseg.video.ffmpeg import find_ffmpeg
from flaxseg.video.read import Frame, read_video

MUTATED = int(os.environ.get("FUZZ", "14"))
SIZE = (47, 63)  # odd ones
SECONDS = [Fraction(n, 1000) for n in (0, 40, 130, 133, 900)]
"""When the frames of the video are shown: as unevenly as phones do in the dark."""


def ffmpeg(*words: object, stdin: bytes = b"") -> bytes:
    command = [find_ffmpeg(), "-loglevel", "error", "-y", *map(str, words)]
    return subprocess.run(command, input=stdin, check=True, capture_output=True).stdout


def film(path: Path, frames: list[np.ndarray], *options: object) -> Path:
    """A lossless video of frames, with a tone."""
    height, width = frames[0].shape[:2]
    uneven = "+".join(f"eq(N,{i})*{float(time)}" for i, time in enumerate(SECONDS))
    ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-i", "-"),
        *("-f", "lavfi", "-i", "sine=duration=0.9", "-vf", f"settb=1/1000,setpts='({uneven})/TB'"),
        *("-fps_mode", "passthrough", "-enc_time_base", "filter"),
        *("-c:v", "ffv1", "-c:a", "aac", *options, path),
        stdin=b"".join(frame.tobytes() for frame in frames),
    )
    return path


def frames_of(path: Path) -> list[Frame]:
    with contextlib.closing(read_video(path)) as frames:
        return [*frames]


@pytest.fixture(scope="module")
def scenes():
    drawn = Shapes("val", image_size=SIZE)
    return [drawn[index].image for index, _ in enumerate(SECONDS)]


@pytest.fixture(scope="module")
def given(scenes, tmp_path_factory):
    """A folder with a video and its frames as pictures, to be read only."""
    folder = tmp_path_factory.mktemp("given")
    film(folder / "clip.mkv", scenes)
    for index, scene in enumerate(scenes):
        Image.fromarray(scene).save(folder / f"frame{index}.png")
    return folder


def put_in_the_place_of_the_network(patch: pytest.MonkeyPatch) -> None:
    """The red of each pixel, in six steps, is its class, and its confidence."""

    def see(photo, detail):
        red = photo.pictures[0][..., 0]
        confidence = None if detail == "label" else (red / 255).astype(np.float32)
        return lambda: Pixels(red // 43, confidence)

    patch.setattr(
        Predictor, "prepare", lambda self, image, **_: Prepared((image,), (), image.shape[:2])
    )
    patch.setattr(Predictor, "room", lambda self, photo, detail: 2)
    patch.setattr(
        Predictor, "start", lambda self, photos, detail: [see(photo, detail) for photo in photos]
    )


@pytest.fixture
def network(monkeypatch):
    put_in_the_place_of_the_network(monkeypatch)


@pytest.fixture(scope="module")
def done(model_dir, given, tmp_path_factory):
    """The outputs of all of them."""
    out = tmp_path_factory.mktemp("outputs")
    kinds = ("mask", "color", "overlay", "confidence")
    with pytest.MonkeyPatch.context() as patch:
        put_in_the_place_of_the_network(patch)
        written = predict_files(model_dir, [given], out, write=kinds, min_confidence=0.22)
    video = {f"clip_{end}" for end in (*VIDEOS, "overlay.png", "frames.csv")}
    assert {file.name for file in written if file.name.startswith("clip")} == video
    assert all(file.is_file() for file in written)
    return out


VIDEOS = ("mask.mkv", "color.mp4", "overlay.mp4", "confidence.mkv")


def test_each_frame_is_segmented_as_its_picture(done):
    for kind in ("mask", "confidence"):
        for index, frame in enumerate(frames_of(done / f"clip_{kind}.mkv")):
            with Image.open(done / f"frame{index}_{kind}.png") as picture:
                expected = np.asarray(picture)
            np.testing.assert_array_equal(frame.pixels, np.repeat(expected[..., None], 3, 2))
            assert len(np.unique(expected)) > 1
        assert index == len(SECONDS) - 1


def test_a_network_sees_frames_as_it_sees_pictures(model_dir, given, tmp_path):
    images = [given / "clip.mkv", given / "frame1.png"]
    predict_files(model_dir, images, tmp_path, write=["mask"], max_side=64)
    with Image.open(tmp_path / "frame1_mask.png") as picture:
        expected = np.asarray(picture)
    found = frames_of(tmp_path / "clip_mask.mkv")[1].pixels[..., 0]
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > 1


def test_the_times_of_frames_are_kept(given, done):
    for file in (given / "clip.mkv", *(done / f"clip_{end}" for end in VIDEOS)):
        assert [frame.time for frame in frames_of(file)] == SECONDS, file


def test_times_of_other_rates_are_kept_to_the_tick(scenes, tmp_path):
    video = tmp_path / "ntsc.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=30000/1001:d=0.2", video)
    times = [Fraction(1001 * n, 30000) for n in range(6)]
    assert [frame.time for frame in frames_of(video)] == times
    frames = frames_of(video)
    with videos.written_video(tmp_path / "again.mp4", videos.PLAYABLE) as put:
        for frame in frames[1:]:  # the first frame need not be at the start
            put(frame.pixels, frame)
    told = ffmpeg(
        *("-copyts", "-i", tmp_path / "again.mp4", "-fps_mode", "passthrough"),
        *(
            "-enc_time_base",
            "demux",
            "-stats_enc_pre",
            "pipe:1",
            "-stats_enc_pre_fmt",
            "{pts} {tb}",
        ),
        *("-f", "null", os.devnull),
    )
    found = [line.split() for line in told.decode().splitlines()]
    assert [int(pts) * Fraction(tick) for pts, tick in found] == times[1:]


def blocks(pixels: np.ndarray) -> np.ndarray:
    """The means of two by two pixels."""
    return pixels[:46, :62].astype(float).reshape(23, 2, 31, 2, 3).mean((1, 3))


def test_what_is_to_be_seen_is_close_and_nothing_is_cropped(model_dir, scenes, done):
    labels = native.load_with_meta(model_dir).labels
    for index, (blend, color) in enumerate(
        zip(frames_of(done / "clip_overlay.mp4"), frames_of(done / "clip_color.mp4"), strict=True)
    ):
        with Image.open(done / f"frame{index}_mask.png") as picture:
            label = np.asarray(picture)
        for found, expected in (
            (blend.pixels, overlay(scenes[index], label, labels)),
            (color.pixels, colorize(label, labels.palette)),
        ):
            assert found.shape == (48, 64, 3)  # filled up to even sides
            # Colours are of two by two pixels each.
            difference = np.abs(blocks(found) - blocks(expected)).mean()
            elsewhere = np.abs(blocks(found) - blocks(np.roll(expected, 1, (0, 1)))).mean()
            assert difference < 12 and 2 * difference < elsewhere, index
    poster = read_image(done / "clip_overlay.png")
    assert poster.shape[0] > 47 and poster.shape[1] >= 63


def test_tables_of_frames_and_videos(done):
    def rows(name):
        head, *rest = csv.reader(io.StringIO((done / name).read_text()))
        return head, rest

    head, frames = rows("clip_frames.csv")
    summary_head, summary = rows("summary.csv")
    assert head == ["frame", "seconds", *summary_head[3:]]
    *pictures, video = summary
    assert [row[0] for row in frames] == ["1", "2", "3", "4", "5"]
    assert [Fraction(row[1]) for row in frames] == SECONDS
    assert [row[2:] for row in frames] == [row[3:] for row in pictures]
    assert Path(video[0]).name == "clip.mkv" and video[1:3] == ["47", "63"]
    numbers = np.array([row[2:] for row in frames], float)
    np.testing.assert_allclose(np.array(video[3:], float), numbers.mean(0), atol=2e-6)


def test_the_sound_is_copied(given, done):
    def sound(path):
        return ffmpeg("-i", path, "-map", "0:a", "-c", "copy", "-f", "md5", "-")

    assert sound(done / "clip_overlay.mp4") == sound(given / "clip.mkv")
    assert b"Audio" not in ffmpeg_says(done / "clip_mask.mkv")


def ffmpeg_says(path: Path) -> bytes:
    return subprocess.run([find_ffmpeg(), "-i", str(path)], capture_output=True).stderr


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_is_seen_upright(given, scenes, tmp_path, degrees):
    turned = tmp_path / "turned.mov"
    ffmpeg("-i", given / "clip.mkv", "-map", "0:v", "-c:v", "png", "-f", "mov", tmp_path / "a.mov")
    ffmpeg("-display_rotation", degrees, "-i", tmp_path / "a.mov", "-c", "copy", turned)
    for frame, scene in zip(frames_of(turned), scenes, strict=True):
        np.testing.assert_array_equal(frame.pixels, np.rot90(scene, degrees // 90))


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    source = "testsrc2=s=64x48:r=5:d=0.2,setsar=3/2"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "ffv1", tmp_path / "wide.mkv")
    assert frames_of(tmp_path / "wide.mkv")[0].pixels.shape == (48, 96, 3)


def test_few_frames_are_held_however_long_the_video(model_dir, tmp_path, network, monkeypatch):
    held, most, count = 0, 0, 60

    def gone():
        nonlocal held
        held -= 1

    def frames(path, **_):
        nonlocal held, most
        for number in range(count):
            pixels = np.full((16, 16, 3), number, np.uint8)
            weakref.finalize(pixels, gone)
            held += 1
            most = max(most, held)
            yield Frame(pixels, Fraction(number, 10), Fraction(1, 10))

    monkeypatch.setattr(videos, "read_video", frames)
    (tmp_path / "long.mp4").touch()
    predict_files(model_dir, [tmp_path / "long.mp4"], tmp_path / "out", write=["mask"])
    found = frames_of(tmp_path / "out" / "long_mask.mkv")
    assert [frame.pixels[0, 0, 0] for frame in found] == [number // 43 for number in range(count)]
    assert most <= 16  # six batches of two, and what is being read and written


def test_a_rerun_does_no_video_twice(model_dir, given, tmp_path, network, monkeypatch):
    def run(**options):
        predict_files(model_dir, [given / "clip.mkv"], tmp_path, write=["mask"], **options)
        return (tmp_path / "clip_mask.mkv").stat().st_mtime_ns

    first = run()
    assert run() == first != run(overwrite=True)
    (record,) = map(json.loads, (tmp_path / "photos.jsonl").read_text().splitlines())
    assert sum(record["counts"]) + record["unsure"] == 5 * 47 * 63


def test_nothing_is_left_of_a_video_that_fails_half_way(
    model_dir, given, tmp_path, network, monkeypatch
):
    def frames(path, **_):
        yield from frames_of(path)
        raise DataError(f"{path}: no more")

    monkeypatch.setattr(videos, "read_video", frames)
    with pytest.raises(DataError, match=r"1 of 1 photos and videos .*clip.mkv: no more"):
        predict_files(model_dir, [given / "clip.mkv"], tmp_path / "out")
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"predictions.json", "photos.jsonl", "summary.csv"}


def test_a_full_disk_is_one_line(scenes, tmp_path):
    frame = Frame(scenes[0], Fraction(0), Fraction(1, 10))
    path = tmp_path / "no folder" / "a.mkv"
    with (
        pytest.raises(DataError, match=r"a.mkv cannot be written \(ffmpeg: .*No such file"),
        videos.written_video(path, videos.LOSSLESS) as put,
    ):
        put(scenes[0], frame)


@pytest.mark.parametrize("kind", ["probabilities", "coco"])
def test_kinds_that_videos_do_not_have_are_refused(model_dir, given, tmp_path, kind):
    message = f"--write {kind}: not of a video, such as .*clip.mkv; videos have mask, color"
    with pytest.raises(ConfigError, match=message):
        predict_files(model_dir, [given], tmp_path / "out", write=["mask", kind])
    assert not (tmp_path / "out").exists()


@pytest.fixture
def fresh():
    find_ffmpeg.cache_clear()
    yield
    find_ffmpeg.cache_clear()


def test_without_ffmpeg_it_is_said_what_to_type(model_dir, given, tmp_path, monkeypatch, fresh):
    def refusal():
        with pytest.raises(ConfigError) as raised:
            predict_files(model_dir, [given / "clip.mkv"], tmp_path / "out")
        return str(raised.value)

    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
    mend = "pip install --upgrade imageio-ffmpeg, or name a newer ffmpeg in IMAGEIO_FFMPEG_EXE"
    assert refusal().endswith(f"cannot be used for videos (No such file or directory): {mend}")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert refusal() == "videos need imageio-ffmpeg: pip install 'flaxseg[video]'"
    assert not (tmp_path / "out").exists()


def test_folders_and_patterns_hold_videos(tmp_path):
    for name in ("a.MOV", "b.jpg", "c.txt", "sub/d.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_inputs([tmp_path], tmp_path / "out", videos=True)
    assert [item.below.as_posix() for item in found.videos] == ["a.MOV", "sub/d.webm"]
    assert [item.below.as_posix() for item in found.photos] == ["b.jpg"]
    message = "passed over 1 files that are not named as pictures or videos (1 of .txt)"
    assert found.passed_over == message
    found = find_inputs([tmp_path / "sub" / "*"], tmp_path / "out", videos=True)
    assert [item.path.name for item in found.videos] == ["d.webm"]
    message = "holds no picture or video, but other files .*, and videos in .mp4, "
    (tmp_path / "sub" / "d.webm").rename(tmp_path / "sub" / "d.doc")
    with pytest.raises(DataError, match=message):
        find_inputs([tmp_path / "sub"], tmp_path / "out", videos=True)


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_a_list_in_disguise_opens_no_other_file(given, tmp_path, text):
    (tmp_path / "list.mp4").write_text(text.format(given / "clip.mkv"))
    with pytest.raises(DataError, match=r"list.mp4: is no readable video \(ffmpeg: .*\); replace"):
        frames_of(tmp_path / "list.mp4")


def test_frames_that_are_too_large_are_not_read(given):
    message = "has frames of 63 x 47 = 2961 pixels, more than the limit of 2960; give --max-pixels"
    with pytest.raises(DataError, match=message):
        next(read_video(given / "clip.mkv", max_pixels=2960))
    assert len([*read_video(given / "clip.mkv", max_pixels=2961)]) == len(SECONDS)


def mutated(seed: int, originals: list[bytes], soundless: bytes, deaf: bytes) -> bytes:
    """A video with which something is wrong."""
    rng = np.random.default_rng(seed)
    data = bytearray(originals[seed % len(originals)])
    place = int(rng.integers(len(data)))
    match seed % 10:
        case 0:
            return b""
        case 1:
            return b"Notes of a journey.\n" * 40
        case 2:
            return deaf
        case 3:
            return soundless
        case 4:
            return bytes(data[:place])
        case 5:
            return bytes(data[:place] + data[place + 32 :])
        case 6:
            return bytes(data[:100]) + rng.bytes(len(data))
        case 7:
            place = int(rng.integers(400))  # where containers say what they hold
            data[place] ^= 1 << int(rng.integers(8))
        case _:
            for at in rng.integers(len(data), size=8):
                data[at] ^= int(rng.integers(1, 256))
    return bytes(data)


def test_mutated_videos_end_in_a_result_or_a_line(model_dir, given, tmp_path, network, capsys):
    made = [tmp_path / "a.mp4", tmp_path / "b.mkv", tmp_path / "c.avi"]
    for path in made:
        codec = "mpeg4" if path.suffix == ".avi" else "libx264"
        ffmpeg("-i", given / "clip.mkv", "-s", "64x48", "-c:v", codec, "-pix_fmt", "yuv420p", path)
    sound, none = tmp_path / "sound.mp4", tmp_path / "none.mkv"
    ffmpeg("-i", given / "clip.mkv", "-map", "0:a", sound)
    ffmpeg("-i", given / "clip.mkv", "-map", "0:v", "-frames:v", "0", "-c:v", "ffv1", none)
    originals = [path.read_bytes() for path in made]
    folder, out = tmp_path / "mutated", tmp_path / "out"
    folder.mkdir()
    for seed in range(MUTATED):
        data = mutated(seed, originals, none.read_bytes(), sound.read_bytes())
        (folder / f"{seed:03}{made[seed % 3].suffix}").write_bytes(data)
    command = ["predict", model_dir, folder, "--out", out, "--write", "mask"]
    assert cli.main([str(word) for word in command]) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("error: ") and f" of {MUTATED} photos and videos cannot be used" in line
    refused = 0
    for path in folder.iterdir():
        left_out = [line for line in said.out.splitlines() if f"left out: {path}: " in line]
        assert (out / f"{path.stem}_mask.mkv").is_file() != bool(left_out), path
        assert len(left_out) <= 1
        refused += len(left_out)
    assert 4 * MUTATED // 10 <= refused < MUTATED
    assert not list(out.glob(".*"))


def test_damage_that_leaves_frames_is_said(model_dir, given, tmp_path, network):
    data = (given / "clip.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: 3 * len(data) // 4])
    console = Console(width=300)
    with console.capture() as capture:
        predict_files(model_dir, [tmp_path / "cut.mkv"], tmp_path / "out", console=console)
    found = len(frames_of(tmp_path / "out" / "cut_mask.mkv"))
    assert 0 < found < len(SECONDS)
    assert "cut.mkv: damaged (ffmpeg: " in capture.get()
    assert f"; {found} frames could be read" in capture.get()
