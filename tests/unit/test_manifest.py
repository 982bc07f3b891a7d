"""What peers say that a study consists of, compared with what is here."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from node.domain.manifest import Comparison, Manifest, ManifestKind, ManifestState, compare, named

NOW = datetime(2026, 1, 2, tzinfo=UTC)
COMMITMENT, MPPS, IAN = ManifestKind.COMMITMENT, ManifestKind.MPPS, ManifestKind.IAN


def manifest(names: str, kind: ManifestKind = COMMITMENT, state: ManifestState = ManifestState.COMPLETED) -> Manifest:
    return Manifest(kind, "2.25.1", None, "CT1", NOW, frozenset(names), state)


def judged(*manifests: Manifest, here: str, elsewhere: str = "") -> Comparison | None:
    """``here`` are the instances of the study, ``elsewhere`` those of others."""
    return compare(manifests, frozenset(here), named(manifests) & frozenset(here + elsewhere))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (COMMITMENT, "storage commitment asked for 3 instances, all of them are here"),
        (MPPS, "procedure step completed with 3 instances, all of them are here"),
        (IAN, "availability notified of 3 instances, all of them are here"),
    ],
)
def test_all_that_is_named_is_here_and_all_that_is_here_is_named(kind: ManifestKind, words: str) -> None:
    assert judged(manifest("abc", kind), here="abc") == Comparison(True, words)


def test_something_named_is_not_here() -> None:
    said = "storage commitment asked for 3 instances, 2 of them are here"
    assert judged(manifest("abc"), here="ab") == Comparison(False, said)
    assert judged(manifest("ab"), manifest("abc"), here="ab") == Comparison(False, said)


def test_what_is_named_in_another_study_counts_as_here() -> None:
    assert judged(manifest("abcx"), here="abc", elsewhere="x") == Comparison(
        True, "storage commitment asked for 4 instances, all of them are here"
    )


def test_something_here_is_not_named() -> None:
    assert judged(manifest("ab"), here="abc") is None
    assert judged(manifest(""), here="abc") is None
    assert judged(here="abc") is None


def test_several_name_the_study_together() -> None:
    assert judged(manifest("ab", MPPS), manifest("c", MPPS), here="abc") == Comparison(
        True, "2 manifests name 3 instances, all of them are here"
    )


def test_a_step_in_progress_holds_the_study_whatever_else_is_said() -> None:
    begun = manifest("", MPPS, ManifestState.IN_PROGRESS)
    assert judged(begun, manifest("abc"), here="abc") == Comparison(False, "a performed procedure step is in progress")


def test_a_discontinued_step_neither_proves_nor_prevents() -> None:
    ended = manifest("abcd", MPPS, ManifestState.DISCONTINUED)
    assert judged(ended, here="abc") is None
    assert judged(ended, manifest("abc"), here="abc") is not None


def test_nothing_is_complete_before_anything_is_here() -> None:
    assert judged(manifest(""), here="") is None
