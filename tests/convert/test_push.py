"""`flaxseg push`: against a server in the place of the hub, and what a card says."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import re
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import jax
import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import OfflineModeIsEnabled
from PIL import Image

import convert
from convert.parity.runs import random_state
from flaxseg import cli, models, native
from flaxseg.data.shapes import LABELS
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.hub import card_text, is_untouched, remote
from flaxseg.hub import facts as hub_facts
from flaxseg.hub.card import licence_fields
from flaxseg.hub.facts import facts, paper
from flaxseg.labels import LabelSet
from flaxseg.origin import Origin

# huggingface_hub itself uploads in a way that its HTTP library would rather not see.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

WRITER, READER = "hf_writer", "hf_reader"  # whom the server knows
TINY = {
    "num_classes": 6,
    "backbone.widths": (4, 8, 10, 16),
    "backbone.depths": (1, 1, 1, 1),
    "channels": 8,
}
ENCODER = Origin(source="hf:nvidia/mit-b0@main", licence="MIT")
TRAINED = Origin(data="shapes", recipe="paper", scores={"miou": 0.51239, "pixel_accuracy": 0.75})
NON_COMMERCIAL = Origin(source="b0.pth", licence="Acme's: no business", non_commercial=True)
ONCE = ["README.md", "config.json", "model.safetensors", "picture.png"]


def save(folder: Path, *chain: Origin, labels: LabelSet = LABELS) -> Path:
    config = models.get_config("segformer_b0", **TINY)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    native.save(model, folder, labels=labels, origin=chain)
    return folder


@pytest.fixture(scope="module")
def work(hub, tmp_path_factory):
    """A run, another whose classes are not drawn shapes, and a served hub.

    `push(...)` gives exit code and what was printed.
    """
    folder = tmp_path_factory.mktemp("push")
    run, root, commits = folder / "run", folder / "hub", []
    plain = folder / "plain"
    save(run / "model", ENCODER, TRAINED)
    save(plain / "model", labels=LabelSet.generic(6))
    for each in (run, plain):
        (each / "config.json").write_text('{"eval_window": [64, 64], "eval_stride": [32, 48]}')

    def push(*words, token: str = WRITER) -> SimpleNamespace:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_TOKEN", token)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.main(["push", *map(str, words)])
        return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())

    with hub(root, commits) as address, pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_facts, "read_info", functools.cache(hub_facts.read_info))
        patch.setattr(huggingface_hub, "HfApi", functools.partial(HfApi, endpoint=address))
        fetch = functools.partial(huggingface_hub.snapshot_download, endpoint=address)
        patch.setattr(huggingface_hub, "snapshot_download", fetch)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
        yield SimpleNamespace(
            folder=folder,
            run=run,
            plain=plain,
            root=root,
            commits=commits,
            push=push,
            address=address,
        )


@pytest.fixture(scope="module")
def pushed(work):
    """The run in a repository of the hub, and what was printed."""
    answer = work.push(work.run, "me/net_1", "--message", "First")
    assert answer.code == 0, answer.err
    return SimpleNamespace(folder=work.root / "me/net_1", out=answer.out)


def test_a_push_is_one_commit_of_the_files_that_are_listed(work, pushed):
    assert work.commits[0] == {"message": "First", "files": ONCE}
    assert sorted(p.name for p in pushed.folder.iterdir()) == [".gitattributes", *ONCE]
    for name in ("config.json", "model.safetensors"):
        assert (pushed.folder / name).read_bytes() == (work.run / "model" / name).read_bytes()
    assert re.search(rf"pushed     {work.address}/me/net_1/commit/\w+\n\Z", pushed.out)
    assert "licence    MIT\n" in pushed.out and "file       picture.png, " in pushed.out
    with Image.open(pushed.folder / "picture.png") as picture:
        assert picture.width == 640 and picture.mode == "P"
    assert (pushed.folder / "picture.png").stat().st_size < 200_000


def test_it_loads_to_the_same_bits(work, pushed):
    """By the lines of the card themselves."""
    card = (pushed.folder / "README.md").read_text()
    assert "\nflaxseg predict hf:me/net_1 photo.jpg --window 64 64 --stride 32 48\n" in card
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    load, _, run = lines.partition("\nlogits = ")
    names = {}
    exec(load, names)
    here, there = (native.state_dict(m) for m in (native.load(work.run / "model"), names["model"]))
    assert here.keys() == there.keys()
    assert all(here[key].tobytes() == there[key].tobytes() for key in here)
    images = jax.ShapeDtypeStruct((1, 32, 48, 3), "uint8")
    logits = jax.eval_shape(lambda images: eval(run, names | {"images": images}), images)
    assert logits.shape == (1, 32, 48, 6)
    directory = convert.as_directory("hf:me/net_1")
    for name in ("config.json", "model.safetensors"):
        assert (directory / name).read_bytes() == (work.run / "model" / name).read_bytes()


def test_the_hub_reads_the_card(pushed):
    card = ModelCard.load(pushed.folder / "README.md")
    values = card.data.to_dict()
    (index,) = values.pop("model-index")
    assert values == {
        "base_model": "nvidia/mit-b0",
        "library_name": "flaxseg",
        "license": "mit",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "jax", "segformer", "segformer_b0"],
    }
    (result,) = index["results"]
    assert index["name"] == "net_1"
    assert result["task"] == {"type": "image-segmentation"}
    assert result["dataset"] == {"name": "shapes", "type": "shapes", "split": "val"}
    found = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert found == {"mean_iou": 0.5124, "accuracy": 0.75}
    for line in (
        "![What the network finds in a picture of drawn shapes](picture.png)",
        "| mean IoU | 51.24 |",
        "| 1 | disc | `#e63c3c` |",
        '| paper | Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic '
        'Segmentation with Transformers", https://arxiv.org/abs/2105.15203 |',
        "| mean | 0.485 | 0.456 | 0.406 |",
        "1. hf:nvidia/mit-b0@main; MIT",
        "2. trained on shapes by recipe paper; miou 0.5124, pixel\\_accuracy 0.75",
    ):
        assert f"\n{line}\n" in card.text
    assert "commercial" not in card.text


def test_what_is_there_stays_unless_it_is_ours(work):
    """A card that somebody has changed is theirs."""
    push, folder = (work.plain, "me/plain"), work.root / "me/plain"
    assert work.push(*push).code == 0
    assert work.push(*push).out.endswith("pushed     nothing: me/plain has it all\n")
    (folder / "notes.txt").write_text("theirs")
    (folder / "scores.json").write_text("{}")
    photo = work.folder / "photo.png"
    Image.new("RGB", (90, 30), (250, 0, 0)).save(photo)
    answer = work.push(*push, "--picture", photo)
    assert "stays      scores.json of earlier" in answer.out
    files = ["README.md", "picture.png"]
    assert work.commits[-1] == {"message": "Push model with flaxseg", "files": files}
    assert (folder / "notes.txt").read_text() == "theirs"
    with Image.open(folder / "picture.png") as picture:
        assert picture.width == 640 and picture.height > 213
    card = folder / "README.md"
    card.write_text(card.read_text().replace("# plain", "# Plain"))
    answer = work.push(*push)
    assert answer.code == 2
    assert answer.err.startswith("error: me/plain holds config.json, model.safetensors, README.md")
    assert "give --overwrite to replace it" in answer.err
    assert work.push(*push, "--overwrite").code == 0
    assert is_untouched(card.read_text())
    answer = work.push(*push, "--private")
    assert answer.code == 2 and "--private: me/plain exists and everybody sees it" in answer.err


def test_private_and_ignored(work):
    assert work.push(work.plain, "hf:me/secret", "--private").code == 0
    assert (work.root / "me/secret/private.txt").exists()
    (work.root / "me/secret/README.md").unlink()
    (work.root / "me/secret/.gitignore").write_text("README.md")
    answer = work.push(work.plain, "me/secret", "--private", "--overwrite")
    assert "error: me/secret left out README.md: take them out of its .gitignore" in answer.err


def test_a_change_by_somebody_else_meanwhile(work):
    assert work.push(work.plain, "me/shared").code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", WRITER)
        held = remote.look("me/shared")
        (work.root / "me/shared/notes.txt").write_text("theirs")
        (work.folder / "README.md").write_text("ours")
        with pytest.raises(CheckpointError, match="somebody else has changed it meanwhile"):
            remote.push("me/shared", work.folder, ["README.md"], held=held, message="m")


REFUSED = {
    ("me/new", ""): "cannot be pushed to without a token: make one that may write (http://",
    ("me/new", "hf_unknown"): "does not take the token: make one that may write (http://",
    ("me/new", READER): "the token may not do this: give one that may write to me",
    ("net", WRITER): "'net' is no name of a repository: give owner/name",
    ("a/b/c", WRITER): "'a/b/c'",
    ("me/a--b", WRITER): "Cannot have -- or .. in repo_id: 'me/a--b': give owner/name",
}


@pytest.mark.parametrize(("repository", "token"), REFUSED)
def test_a_refusal_is_one_line_with_the_mend(work, repository, token):
    before = len(work.commits)
    answer = work.push(work.plain, repository, token=token)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert answer.err.startswith("error: ") and REFUSED[repository, token] in answer.err
    assert len(work.commits) == before and not (work.root / "me/new").exists()


def test_without_network(work, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub, "HfApi", functools.partial(HfApi, endpoint=closed))
    answer = work.push(work.plain, "me/net")
    assert answer.code == 2
    assert re.fullmatch(r"error: me/net is not pushed \(.+\): check the network.*\n", answer.err)

    def offline(*_):
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(HfApi, "model_info", offline)
    assert work.push(work.plain, "me/net").err == (
        "error: me/net cannot be pushed to offline: unset HF_HUB_OFFLINE, or give --dry-run\n"
    )


def test_without_the_extra(work, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert cli.main(["push", str(work.plain), "me/net"]) == 2
    assert "me/net needs huggingface_hub: pip install 'flaxseg[hub]'" in capsys.readouterr().err


def test_a_dry_run_writes_the_folder_alone(tmp_path, monkeypatch, capsys):
    labels = dataclasses.replace(LABELS, classes=("<b>|", "`a`\n* _b_", *"cdef"))
    model = save(tmp_path / "model", NON_COMMERCIAL, labels=labels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flaxseg.hub.command.look", None)
    assert cli.main(["push", str(model), "me/net", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("kept       net: nothing is sent to me/net\n")
    assert "picture    none: --picture photo.jpg" in out and "scores     not known" in out
    assert sorted(p.name for p in Path("net").iterdir()) == [*ONCE[:3]]
    card = ModelCard.load("net/README.md")
    assert (card.data.license, card.data.license_name) == ("other", "acme")
    assert "non-commercial" in card.data.tags and card.data.eval_results is None
    start = card.text.strip()
    assert start.startswith("> **Non-commercial use only**: the licence of b0.pth forbids\n")
    assert "\n| 0 | \\<b\\>\\| | `#404040` |\n" in card.text
    assert "\n| 1 | \\`a\\` \\* \\_b\\_ | `#e63c3c` |\n" in card.text
    assert cli.main(["push", str(model), "me/net", "--dry-run"]) == 0  # what it wrote is its own
    assert cli.main(["push", str(model), "me/net", "--dry-run", "--out", str(model)]) == 2
    assert "holds config.json, model.safetensors, which flaxseg push" in capsys.readouterr().err
    assert cli.main(["push", str(model), "me/net", "--dry-run", "--licence", "mit"]) == 2
    assert "the licence of b0.pth goes with its weights" in capsys.readouterr().err


def test_scores_count_for_the_weights_that_have_them(tmp_path):
    model = save(tmp_path / "model", TRAINED)
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    about = {
        "model": "/home/me/run",
        "weights_sha256": digest,
        "pictures": 7,
        "settings": {"data": "camvid", "split": "test", "data_dir": "/d", "eval_size": [9, 8]},
        "scores": {"miou": 0.25, "pixels": 5, "iou": [0.5, None, 0, 0, 0, 1], "by_class": {}},
    }
    (model / "scores.json").write_text(json.dumps(about))
    found = facts(model)
    card = card_text(found, "me/net")
    assert "\nOf camvid, test: 7 pictures, eval\\_size 9 8.\n" in card
    assert "\n| mean IoU | 25.00 |\n\n" in card and "0.51" not in card.partition("## Origin")[0]
    assert "\n| 0 | background | `#404040` | 50.00 |\n| 1 | disc | `#e63c3c` | - |\n" in card
    assert "/d" not in json.dumps(found.scored.file) and "me" not in found.scored.file
    for of, words in (("00", "other weights"), (None, "weights that it does not tell")):
        (model / "scores.json").write_text(json.dumps(about | {"weights_sha256": of}))
        found = facts(model)
        assert words in found.unused and found.scored.means == TRAINED.scores
        with pytest.raises(ConfigError, match=f"has the scores of {words}, not of .*: evaluate"):
            facts(model, report=model)
    (model / "scores.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"scores.json is damaged \("):
        facts(model, report=model)


@pytest.mark.parametrize(
    ("licences", "given", "fields"),
    [
        ((), "", {}),
        (("Apache-2.0", "Apache-2.0"), "", {"license": "apache-2.0"}),
        (("Apache-2.0",), "mit", {"license": "mit"}),
        (("MIT", "Apache-2.0; see the card"), "", "mit-and-apache-2.0"),
        (("NVIDIA Source Code License: non-commercial",), "", "nvidia-source-code-license"),
    ],
)
def test_the_licence_as_the_hub_names_it(licences, given, fields):
    named = {"license": "other", "license_name": fields} if isinstance(fields, str) else fields
    assert licence_fields(tuple(Origin(licence=words) for words in licences), given) == named


def test_every_network_names_its_paper():
    for name in ("ccnet", "setr", "segformer", "bisenetv2", "vitseg"):
        cited = paper(models.get_config(name))
        assert re.fullmatch(r"\w+ et al\. 20\d\d, \".+\",? https://arxiv\.org/abs/[\d.]+", cited)
