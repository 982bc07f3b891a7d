"""Who made a result: equipment, algorithm and observer, the same in every object."""

from __future__ import annotations

from highdicom import AlgorithmIdentificationSequence
from highdicom.sr import AlgorithmIdentification, DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dictionary

from dicom_sr import codes
from node.domain.finding import Mark, Region
from node.domain.ids import derived_uid
from node.domain.job import Provenance
from node.domain.profile import FULL, Profile

MANUFACTURER = "ainode"


def result_uid(provenance: Provenance, profile: Profile, *parts: str) -> str:
    """UID of something in the results of a job: another profile of the same job writes other objects."""
    which = () if profile.name == FULL.name else (f"profile {profile.name}",)
    return derived_uid(provenance.job_id, *which, *parts)


def tracking_uid(provenance: Provenance, finding: Region | Mark) -> str:
    """Tracking UID of a region or a mark: the same in SEG and SR, in every profile and in every run of the job."""
    return derived_uid(provenance.job_id, "tracking", finding.key)


def device_uid(provenance: Provenance) -> str:
    """UID of this algorithm on this node; another version or digest is another device (IHE RAD AIR)."""
    model = provenance.model
    return derived_uid("device", provenance.node_uid, model.name, model.version, model.digest)


def software_versions(provenance: Provenance) -> list[str]:
    """SoftwareVersions (0018,1020): the model, its digest, the node."""
    model = provenance.model
    return [f"{model.name}@{model.version}", f"sha256:{model.digest[:12]}", f"ainode {provenance.node_version}"]


def contributing_equipment(provenance: Provenance) -> Dataset:
    """The Contributing Equipment item that IHE AIR asks for, one per algorithm (PS3.3 C.12.1)."""
    item = Dataset()
    item.Manufacturer = MANUFACTURER
    item.StationName = provenance.node_name[:16]
    item.ManufacturerModelName = provenance.model.name
    item.SoftwareVersions = software_versions(provenance)
    item.DeviceUID = device_uid(provenance)
    item.PurposeOfReferenceCodeSequence = [codes.item(codes.PROCESSING_ALGORITHM)]
    return item


def add_equipment(dataset: Dataset, provenance: Provenance) -> None:
    """Write the General Equipment module and the contributing equipment; what was there is replaced."""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = provenance.model.name
    dataset.DeviceSerialNumber = provenance.node_uid
    dataset.SoftwareVersions = software_versions(provenance)
    dataset.ContributingEquipmentSequence = [contributing_equipment(provenance)]


def observer(provenance: Provenance) -> ObserverContext:
    """The device that observed, for the SR (TID 1004)."""
    return ObserverContext(
        dictionary.DCM.Device,
        DeviceObserverIdentifyingAttributes(
            uid=device_uid(provenance),
            name=provenance.node_name,
            manufacturer_name=MANUFACTURER,
            model_name=provenance.model.name,
            serial_number=provenance.node_uid,
        ),
    )


def algorithm(provenance: Provenance) -> AlgorithmIdentification:
    """The algorithm behind a measurement group of the SR (TID 4019)."""
    model = provenance.model
    return AlgorithmIdentification(
        name=model.name, version=model.version, parameters=[f"sha256:{model.digest}"], manufacturer=MANUFACTURER
    )


def segment_algorithm(provenance: Provenance) -> AlgorithmIdentificationSequence:
    """The algorithm behind a segment of the SEG (PS3.3 10.16)."""
    model = provenance.model
    return AlgorithmIdentificationSequence(
        name=model.name,
        family=codes.concept(codes.ARTIFICIAL_INTELLIGENCE),
        version=model.version,
        source=MANUFACTURER,
    )
