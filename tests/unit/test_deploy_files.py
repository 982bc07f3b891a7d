"""What is deployed: containers without privileges, with health checks, and settings that load."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.load import load
from config.settings import Settings, peers, routes

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
GPU: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "docker-compose.gpu.yml").read_text(encoding="utf-8"))
ORTHANC: dict[str, Any] = json.loads((ROOT / "deploy" / "orthanc.json").read_text(encoding="utf-8"))
SERVICES = pytest.mark.parametrize("service", COMPOSE["services"].values(), ids=COMPOSE["services"].keys())


@pytest.fixture
def settings() -> Settings:
    return load(ROOT / "deploy" / "node.yaml", {})


@SERVICES
def test_no_service_has_privileges(service: dict[str, Any]) -> None:
    assert int(service["user"].split(":")[0]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service)


@SERVICES
def test_every_service_has_a_health_check(service: dict[str, Any]) -> None:
    assert service["healthcheck"]["test"][0] == "CMD"


@SERVICES
def test_every_image_is_pinned(service: dict[str, Any]) -> None:
    recipe = service.get("build", {})
    images = re.findall(r"^FROM (\S+)", recipe.get("dockerfile_inline", ""), re.MULTILINE) or [service["image"]]
    for image in images:
        tag = image.rpartition(":")[2]
        assert tag == "local" or re.search(r"\d+\.\d+\.\d+", tag), image


@SERVICES
def test_files_that_are_mounted_exist_and_are_read_only(service: dict[str, Any]) -> None:
    for volume in service["volumes"]:
        source, _, rest = volume.partition(":")
        if source.startswith("."):
            assert (ROOT / source).is_file(), source
            assert rest.endswith(":ro"), volume
        else:
            assert source in COMPOSE["volumes"]


def test_only_the_dicom_port_is_open_to_the_network() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service["ports"]]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == ["11112:11112"]


def test_the_viewer_starts_only_when_asked() -> None:
    assert COMPOSE["services"]["viewer"]["profiles"] == ["viewer"]


def test_the_gpu_file_names_settings_that_exist() -> None:
    node = GPU["services"]["node"]
    assert load(ROOT / "deploy" / "node.yaml", node["environment"]).work.device == ("cuda:0",)


def test_the_nodes_settings_fit_the_composition(settings: Settings) -> None:
    node = COMPOSE["services"]["node"]
    assert f"node-data:{settings.node.data_dir}" in node["volumes"]
    assert f"{settings.node.port}:{settings.node.port}" in node["ports"]
    assert f"127.0.0.1:{settings.api.port}:{settings.api.port}" in node["ports"]
    assert settings.node.accept_unknown_peers is False


def test_the_node_and_orthanc_know_each_other(settings: Settings) -> None:
    pacs = peers(settings)["PACS"]
    assert pacs.host in COMPOSE["services"]
    assert (pacs.ae_title, pacs.port) == (ORTHANC["DicomAet"], ORTHANC["DicomPort"])
    assert pacs.receive
    assert ORTHANC["DicomModalities"]["AINODE"] == [settings.node.ae_title, "node", settings.node.port]
    assert [route.send_to for route in routes(settings)] == [("PACS",)]


def test_the_image_runs_without_root_and_checks_its_health() -> None:
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER 10001:10001$", recipe, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\\\n\s+CMD \[.*/healthz", recipe, re.MULTILINE)


def test_the_images_environment_is_one_of_settings() -> None:
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    environ = dict(re.findall(r"(AINODE_\w+)=(\S+)", recipe))
    assert environ
    assert str(load(ROOT / "config" / "node.example.yaml", environ).node.data_dir) == "/var/lib/ainode"
