"""The coded concepts that the results are written with, and the declaration of the private coding scheme.

Numbers are PS3.16 unless said otherwise. What a pipeline says (findings, measurements, sites) brings its own codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from highdicom.sr import CodedConcept
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from node.domain.finding import Code
from node.domain.ids import derived_uid
from node.domain.profile import Language

PRIVATE_SCHEME = "99AINODE"
_SHORT_STRING = 16  # characters of VR SH
_SCHEME_DESIGNATOR = Tag("CodingSchemeDesignator")
# IHE Radiology AI Results: a placeholder code of the profile itself, not of any vendor; it needs no declaration.
IHE_SCHEME = "99IHE"

IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")  # CID 7021
LANGUAGES = {  # CID 5000
    Language.ENGLISH: Code("en", "RFC5646", "English"),
    Language.GERMAN: Code("de", "RFC5646", "German"),
    Language.FRENCH: Code("fr", "RFC5646", "French"),
    Language.SPANISH: Code("es", "RFC5646", "Spanish"),
}
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162
PROCESSING_ALGORITHM = Code("Newcode1", IHE_SCHEME, "Processing Algorithm")  # IHE RAD AIR
SOURCE_FOR_PROCESSING = Code("121322", "DCM", "Source of Image Processing Operation")  # CID 7202
SEGMENTATION = Code("113076", "DCM", "Segmentation")  # CID 7203
CALCULATION = Code("112187", "DCM", "Unspecified method of calculation")  # CID 7203 is extensible
QUANTITY = Code("246205007", "SCT", "Quantity")  # PS3.3 C.7.6.16.2.11
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "Percent")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500 row 12
COMMENT = Code("121106", "DCM", "Comment")


def concept(code: Code) -> CodedConcept:
    """``code`` as highdicom takes it."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def item(code: Code) -> Dataset:
    """``code`` as an item of a code sequence (PS3.3 8.8)."""
    dataset = Dataset()
    if code.value.startswith(("urn:", "http:", "https:")):
        dataset.URNCodeValue = code.value
    elif len(code.value) > _SHORT_STRING:
        dataset.LongCodeValue = code.value
    else:
        dataset.CodeValue = code.value
    dataset.CodingSchemeDesignator = code.scheme
    dataset.CodeMeaning = code.meaning
    return dataset


def private_schemes(elements: Iterable[DataElement]) -> set[str]:
    """Private coding schemes (PS3.16 8.2: designators that begin with 99) among ``elements``."""
    schemes = {str(e.value) for e in elements if e.tag == _SCHEME_DESIGNATOR}
    return {scheme for scheme in schemes if scheme.startswith("99")} - {IHE_SCHEME}


def declare_private_schemes(dataset: Dataset) -> None:
    """Declare private schemes in CodingSchemeIdentificationSequence (PS3.3 C.12.1.1.7.2) where they are used.

    That of the node has a UID; of one that a pipeline brings, no more is known than how it is called.
    """
    declarations = []
    for scheme in sorted(private_schemes(_elements(dataset))):
        declaration = Dataset()
        declaration.CodingSchemeDesignator = scheme
        if scheme == PRIVATE_SCHEME:
            declaration.CodingSchemeUID = derived_uid("coding scheme", PRIVATE_SCHEME)
            declaration.CodingSchemeName = "Private codes of ainode"
            declaration.CodingSchemeResponsibleOrganization = "ainode"
        else:
            declaration.CodingSchemeName = f"Private codes {scheme}"
        declarations.append(declaration)
    if declarations:
        dataset.CodingSchemeIdentificationSequence = declarations


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    """Those of every depth, but for frames: there are thousands, and their codes are those of the standard."""
    for element in dataset:
        yield element
        if element.VR == "SQ" and element.keyword != "PerFrameFunctionalGroupsSequence":
            for item in element.value:
                yield from item.iterall()
