"""What went wrong: matching, curves, confusion and error types against pycocotools, tidecv and hand-made cases."""

from pathlib import Path

import numpy as np
import pytest
from reference.coco_cases import IDS, NAMES, coco, detections, random_case

from yolomish.evaluation.coco import evaluate
from yolomish.evaluation.coco_results import NOTHING
from yolomish.evaluation.confusion import confusion_matrix
from yolomish.evaluation.curves import best_threshold, class_curves
from yolomish.evaluation.error_types import ERROR_TYPES, FALSE_TYPES, classify, error_breakdown
from yolomish.evaluation.matching import match
from yolomish.evaluation.plots import plot_confusion, plot_errors, plot_f1, plot_precision_recall

BOX = (100, 100, 100, 100)
SHIFTED = (140, 100, 100, 100)  # IoU 60 / 140
FAR = (300, 300, 50, 50)


@pytest.mark.parametrize(
    ("guess", "kind"),
    [
        ((1, 0, BOX, 0.9), None),
        ((1, 1, BOX, 0.9), "classification"),
        ((1, 0, SHIFTED, 0.9), "localisation"),
        ((1, 1, SHIFTED, 0.9), "both"),
        ((1, 0, FAR, 0.9), "background"),
    ],
)
def test_each_error_has_its_type_and_mending_it_gives_all(guess: tuple, kind: str | None) -> None:
    matched = match(coco([(1, 0, BOX)]), detections([guess]), IDS)
    broken = error_breakdown(matched)
    expected = dict.fromkeys(ERROR_TYPES, 0)
    if kind:
        expected[kind] = 1
        expected["missed"] = int(kind in ("both", "background"))
    assert broken.counts == expected
    assert broken.ap == pytest.approx(0.0 if kind else 1.0)
    if kind in ("classification", "localisation"):
        assert broken.gains[kind] == pytest.approx(1.0)


def test_a_second_hit_is_a_duplicate_and_a_missed_object_leaves_the_ground_truth() -> None:
    truth = coco([(1, 0, BOX), (1, 0, FAR)])
    matched = match(truth, detections([(1, 0, BOX, 0.9), (1, 0, (102, 100, 100, 100), 0.8)]), IDS)
    assert [FALSE_TYPES[k] if k >= 0 else None for k in classify(matched)] == [None, "duplicate"]
    broken = error_breakdown(matched)
    assert broken.counts["duplicate"] == broken.counts["missed"] == 1
    assert broken.ap == pytest.approx(51 / 101) and broken.gains["missed"] == pytest.approx(50 / 101)
    assert broken.gains["duplicate"] == 0


def test_only_the_best_of_two_wrong_classes_is_mended() -> None:
    found = detections([(1, 1, BOX, 0.9), (1, 2, BOX, 0.8)])
    broken = error_breakdown(match(coco([(1, 0, BOX), (1, 1, FAR), (1, 2, FAR)]), found, IDS))
    assert broken.counts["classification"] == 2
    assert broken.gains["classification"] == pytest.approx(1 / 3)  # cat found; dog and bird still missed


@pytest.mark.parametrize("seed", range(4))
def test_error_gains_equal_tidecv(seed: int) -> None:
    tidecv = pytest.importorskip("tidecv", reason="tidecv is not installed")
    truth, found = random_case(seed)
    theirs, guesses = tidecv.Data("truth"), tidecv.Data("found")
    for a in truth.dataset["annotations"]:
        theirs.add_ground_truth(a["image_id"], a["category_id"], list(a["bbox"]))
    for d in found:
        guesses.add_detection(d["image_id"], d["category_id"], d["score"], list(d["bbox"]))
    for image in truth.getImgIds():
        theirs.add_image(image, str(image))
    tide = tidecv.TIDE()
    run = tide.evaluate(theirs, guesses, mode=tidecv.TIDE.BOX)
    main = {type_.short_name: value for type_, value in run.fix_main_errors().items()}
    special = {type_.short_name: value for type_, value in run.fix_special_errors().items()}
    ours = error_breakdown(match(truth, found, IDS))
    expected = [main[k] for k in ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")] + [special["FalsePos"], special["FalseNeg"]]
    assert 100 * ours.ap == pytest.approx(run.ap)
    apart = np.abs([100 * v for v in ours.gains.values()] - np.array(expected))
    # tidecv samples recall at i/100, pycocotools and we at linspace: a recall such as 0.35 may fall into the next bin
    assert (apart < 1e-6).sum() >= 7 and apart.max() < 100 / 101 / len(NAMES)
    counts = {type_.short_name: n for type_, n in run.count_errors().items()}
    assert list(ours.counts.values()) == [counts[k] for k in ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")]


@pytest.mark.parametrize("seed", range(4))
def test_matching_gives_pycocotools_ap50_with_crowds(seed: int) -> None:
    truth, found = random_case(seed, crowds=True)
    matched = match(truth, found, IDS)
    assert matched.ignored.any()
    curves = class_curves(matched, NAMES)
    metrics = evaluate(truth, found, NAMES, IDS)
    assert np.mean([c.ap for c in curves]) == pytest.approx(metrics.values["AP50"], abs=1e-12)
    assert error_breakdown(matched).ap == pytest.approx(metrics.values["AP50"], abs=1e-12)


def test_curves_equal_a_count_at_each_threshold() -> None:
    truth, found = random_case(9)
    for label, curve in enumerate(class_curves(match(truth, found, IDS), NAMES)):
        for threshold in (0.2, 0.5, 0.8):
            kept = found[(found.scores >= threshold) & (found.category_ids == IDS[label])]
            above = match(truth, kept, IDS)
            hits, objects = int(above.true.sum()), int((above.object_labels == label).sum())
            f1 = 2 * hits / (len(kept) + objects)
            assert curve.at(np.array([threshold]))[0] == pytest.approx(f1)
    threshold, value = best_threshold(class_curves(match(truth, found, IDS), NAMES))
    assert 0 < threshold < 1 and 0 < value < 1


def test_confusion_counts_objects_in_rows_and_detections_in_columns() -> None:
    truth, found = random_case(3)
    matrix = confusion_matrix(truth, found, NAMES, IDS, conf=0.3)
    objects = np.bincount([IDS.index(a["category_id"]) for a in truth.dataset["annotations"]], minlength=3)
    seen = np.bincount([IDS.index(d["category_id"]) for d in found if d["score"] >= 0.3], minlength=3)
    assert np.array_equal(matrix.counts[:3].sum(1), objects) and np.array_equal(matrix.counts[:, :3].sum(0), seen)
    assert matrix.counts[3, 3] == 0


def test_confusion_names_what_was_taken_for_what() -> None:
    truth = coco([(1, 0, BOX), (1, 1, FAR), (1, 2, (10, 10, 60, 60)), (1, 2, (200, 10, 90, 90), True)])
    guesses = [(1, 1, BOX, 0.9), (1, 0, (104, 100, 100, 100), 0.95), (1, 1, FAR, 0.2), (1, 2, (210, 20, 20, 20), 0.9)]
    matrix = confusion_matrix(truth, detections([*guesses, (1, 2, (350, 10, 20, 20), 0.9)]), NAMES, IDS)
    expected = np.zeros((4, 4), int)
    expected[0, 1] = 1  # the exact box wins, though it scores less
    expected[3, 0] = 1  # so the other cat is left over
    expected[1, 3] = 1  # its detection is under 0.25
    expected[2, 3] = 1
    expected[3, 2] = 1  # what lies in the crowd of birds is not counted
    assert np.array_equal(matrix.counts, expected)


def test_nothing_found_and_nothing_there_are_drawn(tmp_path: Path) -> None:
    for truth, found in ((coco([(1, 0, BOX)]), NOTHING), (coco([]), detections([(1, 0, BOX, 0.5)])), (coco([]), NOTHING)):
        matched = match(truth, found, IDS)
        curves, broken = class_curves(matched, NAMES), error_breakdown(matched)
        assert broken.ap == 0 and best_threshold(curves)[1] == 0
        plot_precision_recall(curves, 0.5, tmp_path / "pr.png")
        plot_f1(curves, 0.5, tmp_path / "f1.png")
        plot_errors(broken, tmp_path / "errors.png")
        plot_confusion(confusion_matrix(truth, found, NAMES, IDS), tmp_path / "confusion.png")
        assert all((tmp_path / f"{n}.png").stat().st_size > 1000 for n in ("pr", "f1", "errors", "confusion"))
