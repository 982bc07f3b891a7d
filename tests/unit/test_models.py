"""Model versions: from a source to a directory that is named by its digest, found by name, held against it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from node.domain.errors import AinodeError, IllegalStep, InvalidInput, InvalidModel, NotFound, StorageFull
from node.domain.job import JobState, Role
from node.domain.model import VersionState
from node.files.models import ModelFiles
from node.services.locate import Locate
from node.services.register import Register, Source
from pipelines.weights import describe, digest_of_files, read_manifest, verify
from tests.house import MODEL
from tests.threshold_kind import KIND
from tests.versions import WHY, ModelHouse, write_bundle, write_golden

pytestmark = pytest.mark.usefixtures("threshold_kind")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ModelHouse]:
    house = ModelHouse(tmp_path / "var")
    house.rollouts.refresh()
    yield house
    house.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    made = write_bundle(tmp_path / "spleen_ct")
    (made / "configs").mkdir()
    (made / "configs" / "metadata.json").write_text(json.dumps({"version": "0.5.3", "name": "Spleen CT"}))
    return made


def zipped(folder: Path, target: Path, *, top: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as file:
        for path in folder.rglob("*"):
            file.write(path, Path(top) / path.relative_to(folder))
    return target


def nothing_is_left(house: ModelHouse) -> None:
    staging = house.files.absolute("models") / ".staging"
    assert list(staging.iterdir()) == []


def test_a_directory_becomes_a_version_named_by_its_digest(house: ModelHouse, bundle: Path, tmp_path: Path) -> None:
    side, golden = tmp_path / "site.yaml", write_golden(tmp_path / "golden", outcome="succeeded")
    side.write_text("kind: segmentation\n")
    source = Source(str(bundle), kind=KIND, side_file=side, golden=golden)
    known = house.register.add(source, who="ann", why=WHY)
    model = known.model
    assert (model.name, model.version, model.title) == ("spleen_ct", "0.5.3", "Spleen CT")
    assert (known.state, known.path) == (VersionState.REGISTERED, f"models/spleen_ct/{model.digest[:16]}")
    directory = house.files.absolute(known.path or "")
    assert {p.name for p in directory.iterdir()} == {"bundle", "ainode.yaml", "golden", "version.json"}
    assert verify(directory).model == model
    assert (directory / "bundle" / "threshold.json").read_bytes() == (bundle / "threshold.json").read_bytes()
    assert house.audited()[-1] == ("ann", "added", "0.5.3")
    assert house.models.find("spleen_ct@0.5.3") == house.models.find(f"spleen_ct@{model.digest[:8]}") == known
    nothing_is_left(house)


def test_a_directory_is_held_against_the_digest_that_is_given(house: ModelHouse, bundle: Path) -> None:
    digest = digest_of_files(describe(bundle))
    with pytest.raises(InvalidInput, match=f"sha256: .* has the digest {digest}"):
        house.register.add(Source(str(bundle), kind=KIND, sha256="0" * 64), who="ann", why=WHY)
    nothing_is_left(house)
    assert house.register.add(Source(str(bundle), kind=KIND, sha256=digest), who="ann", why=WHY)


def test_the_name_of_an_installed_pipeline_is_taken_only_by_name(house: ModelHouse, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "lung")
    register = Register(house.clock, ModelFiles(tmp_path / "var", max_bytes=4096), house.models, lambda: ["lung"])
    with pytest.raises(InvalidInput, match="name: lung is an installed pipeline"):
        register.add(Source(str(bundle), version="2", kind=KIND), who="ann", why=WHY)
    assert register.add(Source(str(bundle), "lung", "2", kind=KIND), who="ann", why=WHY).model.name == "lung"


@pytest.mark.parametrize("top", ["", "spleen_ct_segmentation"])
def test_a_zip_file_is_taken_with_its_digest(house: ModelHouse, bundle: Path, tmp_path: Path, top: str) -> None:
    archive = zipped(bundle, tmp_path / "spleen_ct.zip", top=top)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(InvalidInput, match=f"sha256: .* has the digest {digest}"):
        house.register.add(Source(str(archive), kind=KIND, sha256="0" * 64), who="ann", why=WHY)
    nothing_is_left(house)
    known = house.register.add(Source(str(archive), kind=KIND, sha256=digest.upper()), who="ann", why=WHY)
    assert known.model.name == "spleen_ct"


def test_a_zip_file_that_is_larger_than_it_may_be_is_refused(house: ModelHouse, bundle: Path, tmp_path: Path) -> None:
    (bundle / "zeros").write_bytes(bytes(4096))
    archive = zipped(bundle, tmp_path / "bomb.zip")
    small = Register(house.clock, ModelFiles(tmp_path / "var", max_bytes=4096), house.models)
    with pytest.raises(StorageFull, match=r"unpacks to more than models\.max_mb"):
        small.add(Source(str(archive), kind=KIND), who="ann", why=WHY)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_a_zip_file_that_reaches_outside_is_refused(house: ModelHouse, tmp_path: Path, name: str) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, "x")
    with pytest.raises(InvalidInput, match="lies outside"):
        house.register.add(Source(str(archive), kind=KIND), who="ann", why=WHY)
    nothing_is_left(house)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("/not/there", "is no directory and no zip file"),
        ("http://example.org/a.zip", "Only https:// is"),
        ("ftp://example.org/a.zip", "Only https:// is"),
        ("https://example.org/a.zip", "sha256: is needed"),
    ],
)
def test_a_source_that_cannot_be_used_is_named(house: ModelHouse, source: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        house.register.add(Source(source, kind=KIND), who="ann", why=WHY)


def test_what_is_wrong_with_a_bundle_is_told_before_it_is_registered(house: ModelHouse, bundle: Path) -> None:
    (bundle / "threshold.json").write_text("{}")
    with pytest.raises(InvalidModel, match=r"bundle/threshold\.json: below"):
        house.register.add(Source(str(bundle), kind=KIND), who="ann", why=WHY)
    (bundle / "configs" / "metadata.json").write_text("{")
    with pytest.raises(InvalidModel, match=r"configs/metadata\.json: is no JSON"):
        house.register.add(Source(str(bundle), kind=KIND), who="ann", why=WHY)
    (bundle / "configs" / "metadata.json").unlink()
    with pytest.raises(InvalidInput, match="version"):
        house.register.add(Source(str(bundle), kind=KIND), who="ann", why=WHY)
    assert not list(house.files.absolute("models").glob("spleen_ct"))


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_a_name_that_cannot_be_a_path_is_refused(house: ModelHouse, bundle: Path, name: str) -> None:
    with pytest.raises(AinodeError, match=r"name|spleen"):
        house.register.add(Source(str(bundle), name=name or " ", kind=KIND), who="ann", why=WHY)


def test_a_golden_case_has_both_parts(house: ModelHouse, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "golden" / "input").mkdir(parents=True)
    source = Source(str(bundle), kind=KIND, golden=tmp_path / "golden")
    with pytest.raises(InvalidInput, match=r"Put input/ and expected\.json there"):
        house.register.add(source, who="ann", why=WHY)


def test_names_and_files_belong_together(house: ModelHouse) -> None:
    known = house.add("1")
    with pytest.raises(IllegalStep, match="is there already, and is registered"):
        house.register.add(
            Source(str(house.files.absolute("sources/lung-1")), "lung", "1", kind=KIND), who="a", why=WHY
        )
    other = write_bundle(house.files.absolute("other"), below=-1.0)
    with pytest.raises(InvalidInput, match="has this name and other files"):
        house.register.add(Source(str(other), "lung", "1", kind=KIND), who="a", why=WHY)
    with pytest.raises(InvalidInput, match="has these very files"):
        house.register.add(Source(known.source, "lung", "2", kind=KIND), who="a", why=WHY)


def test_a_retired_version_is_out_of_use_until_it_is_added_again(house: ModelHouse) -> None:
    known = house.add("1")
    house.give(known, Role.CHAMPION)
    with pytest.raises(IllegalStep, match="is the champion; take it back first"):
        house.rollouts.retire(known.model, who="ann", why=WHY)
    house.route("1.2.10")
    house.give(house.add("2"), Role.CHAMPION)
    house.rollouts.retire(known.model, who="ann", why=WHY)
    assert {j.model.version: j.state for j in house.jobs("1.2.10")} == {"1": JobState.CANCELLED, "2": JobState.QUEUED}
    assert known.model not in house.rollout().previous
    assert house.files.absolute(known.path or "").is_dir()
    again = house.register.add(Source(known.source, "lung", "1", kind=KIND), who="ann", why=WHY)
    assert again.state is VersionState.REGISTERED
    with pytest.raises(InvalidInput, match="is installed with the node"):
        house.rollouts.retire(MODEL, who="ann", why=WHY)


def test_verifying_a_damaged_version_puts_it_out_of_use_and_adding_it_again_mends_it(house: ModelHouse) -> None:
    known = house.add("1")
    house.give(known, Role.CHAMPION)
    assert house.models.verify("lung@1").state is VersionState.READY
    file = house.files.absolute(known.path or "") / "bundle" / "threshold.json"
    file.write_text("other")
    with pytest.raises(InvalidModel, match=r"bundle/threshold\.json: has changed"):
        house.models.verify("lung@1")
    assert house.rollout().champion == MODEL
    assert house.state(known.model) is VersionState.FAILED
    house.register.add(Source(known.source, "lung", "1", kind=KIND), who="ann", why=WHY)
    assert house.models.verify("lung@1").state is VersionState.REGISTERED
    assert json.loads(file.read_text())["of"] == "1"
    nothing_is_left(house)


def test_a_reference_names_one_version(house: ModelHouse) -> None:
    house.add("1")
    for wrong in ("lung", "lung@", "@1"):
        with pytest.raises(InvalidInput, match="names no version"):
            house.models.find(wrong)
    with pytest.raises(NotFound, match="no version lung@3 is known"):
        house.models.find("lung@3")
    assert house.models.find("lung@1.0").model == MODEL
    assert house.models.champion("lung").model == MODEL
    with pytest.raises(NotFound):
        house.models.show("spleen")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[bytes, Path]:
    """A private key, and the file of its public one."""
    private = Ed25519PrivateKey.generate()
    public = tmp_path / "public.pem"
    public.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), public


def test_the_code_of_a_version_runs_when_it_is_trusted_or_signed(house: ModelHouse, keys: tuple[bytes, Path]) -> None:
    private, public = keys
    known = house.add("1")
    locate = Locate(house.database.read, house.files, [public])
    strict = Locate(house.database.read, house.files, [public], require_signature=True)
    assert not locate(known.model).trust_code
    with pytest.raises(InvalidModel, match=r"version\.json: signature: is missing"):
        strict(known.model)
    key = house.models.sign("lung@1", private, who="ann", why=WHY)
    assert house.audited()[-1] == ("ann", "signed", "1")
    assert house.models.audit(limit=1)[0].detail == {"key": key}
    assert locate(known.model).trust_code
    assert strict(known.model).trust_code
    assert not Locate(house.database.read, house.files)(known.model).trust_code
    assert locate(MODEL).directory is None


def test_a_signed_version_moves_to_another_node_as_it_is(
    house: ModelHouse, keys: tuple[bytes, Path], tmp_path: Path
) -> None:
    known = house.add("1")
    house.models.sign("lung@1", keys[0], who="ann", why=WHY)
    directory = house.files.absolute(known.path or "")
    other = ModelHouse(tmp_path / "other")
    taken = other.register.add(Source(str(directory)), who="bob", why=WHY)
    assert taken.model == known.model
    assert read_manifest(other.files.absolute(taken.path or "")) == read_manifest(directory)
    other.close()


def test_what_a_dead_process_left_is_swept(house: ModelHouse, tmp_path: Path) -> None:
    left = tmp_path / "var" / "models" / ".staging" / "left"
    left.mkdir(parents=True)
    (left / "file").write_text("half")
    files = ModelFiles(tmp_path / "var", max_bytes=1)
    with files.staging() as ours, files.staging() as theirs:
        assert not left.exists()
        assert ours.exists()
        assert theirs.exists()
    nothing_is_left(house)
