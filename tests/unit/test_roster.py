"""Which versions of the models answer: decided from what their folders ask for and what could be loaded."""

from collections import Counter
from typing import Any

import pytest

from messaging.contract import Agreement, ContractError, ErrorCode, Request, ServedModel
from model.serving import Pointer, Share
from worker.pipe import LoadedVersion
from worker.roster import Roles, Roster, Snapshot, Wanted, decide, still_failed

NAME = "m"


def snapshot(version: str, written: int = 1) -> Snapshot:
    return Snapshot(NAME, version, ((version, 1, written),))


V1, V2, V3 = snapshot("1"), snapshot("2"), snapshot("3")


def wanted(pointer: Pointer | None, *there: Snapshot, trouble: str = "", written: int = 1) -> Wanted:
    return Wanted(
        NAME, pointer, {its.version: its for its in there}, trouble, (("serving.yaml", 1, written),)
    )


def decided(want: Wanted, serves: Roles | None = None, *failed: Snapshot) -> tuple[Roles | None, set[str]]:
    """The roles, and the versions with a problem."""
    plan, problems = decide([want], {NAME: serves} if serves else {}, dict.fromkeys(failed, "broken"))
    return plan.get(NAME), {version for _, version in problems}


def test_what_is_asked_for_is_served_if_nothing_is_wrong() -> None:
    pointer = Pointer(version="1", share=Share("2", 10), shadow="3")
    assert decided(wanted(pointer, V1, V2, V3)) == (Roles(V1, V2, 10, V3), set())


def test_a_version_that_fails_leaves_all_as_it_was() -> None:
    before = Roles(V1, V2, 10, V3)
    assert decided(wanted(Pointer(version="4"), snapshot("4")), before, snapshot("4")) == (before, {"4"})


def test_a_version_whose_folder_is_missing_fails() -> None:
    assert decided(wanted(Pointer(version="2"), V1), Roles(V1)) == (Roles(V1), {"2"})


def test_a_canary_or_a_shadow_that_fails_is_left_out() -> None:
    pointer = Pointer(version="1", share=Share("2", 10), shadow="3")
    assert decided(wanted(pointer, V1, V2, V3), None, V2) == (Roles(V1, None, 0, V3), {"2"})
    assert decided(wanted(pointer, V1, V2, V3), None, V3) == (Roles(V1, V2, 10, None), {"3"})


def test_at_the_start_the_previous_version_takes_the_place_of_one_that_fails() -> None:
    want = wanted(Pointer(version="2", previous="1"), V1, V2)
    assert decided(want, None, V2) == (Roles(V1), {"2"})
    assert decided(want, None, V1, V2) == (None, {"1", "2"})
    assert decided(wanted(Pointer(version="2"), V1, V2), None, V2) == (None, {"2"})


def test_without_a_readable_pointer_all_stays_as_it_was() -> None:
    assert decided(wanted(None, trouble="not YAML"), Roles(V1)) == (Roles(V1), {""})
    assert decided(wanted(None, trouble="not YAML")) == (None, {""})


def test_a_model_without_a_folder_is_no_longer_served() -> None:
    assert decide([], {NAME: Roles(V1)}, {}) == ({}, {})


def test_changed_files_are_another_snapshot_and_their_failure_leaves_the_one_that_is_served() -> None:
    changed = snapshot("1", written=2)
    assert decided(wanted(Pointer(version="1"), changed), Roles(V1), changed) == (Roles(V1), {"1"})
    assert decided(wanted(Pointer(version="1"), changed), Roles(V1)) == (Roles(changed), set())


def test_what_has_failed_is_tried_again_when_its_files_or_its_pointer_are_written() -> None:
    pointer = Pointer(version="2")
    failed = {V2: "broken"}
    same = wanted(pointer, V2)
    assert still_failed(failed, [same], [same]) == failed
    assert still_failed(failed, [wanted(pointer, snapshot("2", written=2))], [same]) == {}
    assert still_failed(failed, [wanted(pointer, V2, written=2)], [same]) == {}


def loaded(version: str, **more: Any) -> LoadedVersion:
    return LoadedVersion(ServedModel(name=NAME, version=version, sha256=version, **more), None)


ROSTER = Roster(
    {NAME: Roles(V1, V2, 10, V3)}, [loaded("1"), loaded("2"), loaded("3")], NAME, {(NAME, "4"): "broken"}
)


def request(number: int = 0, **more: Any) -> Request:
    return Request(body=b"", correlation_id=f"842df7a8c8ce4d5e.{number}", reply_to="r", **more)


def test_the_share_is_near_what_was_asked_for_and_an_id_always_falls_to_the_same_version() -> None:
    chosen = [ROSTER.choose(request(number)).version for number in range(10_000)]
    assert [ROSTER.choose(request(number)).version for number in range(10_000)] == chosen
    counted = Counter(chosen)
    assert set(counted) == {"1", "2"}
    assert 900 < counted["2"] < 1_100


def test_who_names_a_version_gets_it_if_it_answers() -> None:
    for version in ("1", "2"):
        for name in ("", NAME):
            chosen = {ROSTER.choose(request(n, model=name, version=version)).version for n in range(50)}
            assert chosen == {version}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"version": "3"}, "no model 'm' of version '3'; served: m 1, m 2"),
        ({"version": "9"}, "no model 'm' of version '9'; served: m 1, m 2"),
        ({"model": "x"}, "no model 'x'; served: m 1, m 2"),
        ({"version": "4"}, "m 4 cannot be served: broken"),
    ],
)
def test_what_does_not_answer_is_refused_with_the_reason(asked: dict[str, str], says: str) -> None:
    with pytest.raises(ContractError) as refused:
        ROSTER.choose(request(**asked))
    assert (refused.value.code, str(refused.value)) == (ErrorCode.UNKNOWN_MODEL, says)


def test_each_version_is_described_with_its_share_its_agreement_or_its_problem() -> None:
    (model,) = ROSTER.described(lambda of: Agreement(same=int(of[1])))
    assert (model.version, model.default, model.answering) == ("1", True, ["1", "2"])
    assert [(its.version, its.share_percent, its.shadow, its.problem) for its in model.versions] == [
        ("1", 90, None, ""),
        ("2", 10, None, ""),
        ("3", 0, Agreement(same=3), ""),
        ("4", 0, None, "broken"),
    ]
    assert [its.sha256 for its in model.versions] == ["1", "2", "3", ""]


def test_a_model_of_which_nothing_is_loaded_is_reported_with_the_reasons() -> None:
    problems = {("x", "2"): "no weights", ("x", "1"): "no labels", ("y", ""): "not YAML"}
    roster = Roster({NAME: Roles(V1)}, [loaded("1")], NAME, problems)
    assert {its.name: {each.version: each.problem for each in its.versions} for its in roster.unserved()} == {
        "x": {"2": "no weights", "1": "no labels"},
        "y": {"": "not YAML"},
    }
    for asked in ({"model": "y"}, {"model": "y", "version": "1"}):
        with pytest.raises(ContractError, match=r"^y cannot be served: not YAML$"):
            roster.choose(request(**asked))


def test_only_answers_of_the_main_version_are_compared() -> None:
    one, two = (ROSTER.choose(request(version=version)) for version in ("1", "2"))
    assert (ROSTER.shadow_of(one), ROSTER.shadow_of(two)) == ((NAME, "3"), None)
