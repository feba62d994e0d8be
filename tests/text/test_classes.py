"""Characters are of one class where no alternative that could match there tells them apart."""

import re

from ulmpipe.text.classes import Classes


def test_classes_merge_what_no_live_alternative_tells_apart():
    classes = Classes([re.compile(r"(?<=[0-9])km$|,$|[A-Z]\.$")])
    assert [classes.keys[i][0] for i in range(2)] == ["[0-9]", r"\."]
    merged = {mask: classes.merged[row] for row, (mask, *_) in enumerate(classes.masks)}
    classes.add_masks([1, 2])
    merged = {mask: classes.merged[row] for row, (mask, *_) in enumerate(classes.masks)}
    same = {
        mask: merged[mask][classes.class_of[ord("k")]] == merged[mask][classes.class_of[ord("x")]] for mask in merged
    }
    capital = {
        mask: merged[mask][classes.class_of[ord("K")]] == merged[mask][classes.class_of[ord("k")]] for mask in merged
    }
    assert same == {0: True, 1: False, 2: True} and capital == {0: True, 1: False, 2: False}


def test_key_is_a_need_without_letters_and_the_reach_is_the_width():
    classes = Classes([re.compile(r"(?<=[0-9])km$|x\.yy|[a-z]-")])
    assert dict(zip((key for key, _ in classes.keys), zip(classes.reach, classes.letters, strict=True), strict=True)) == {
        "[0-9]": (3, 2), r"\.": (4, 2), r"\-": (2, 1),
    }  # fmt: skip
    assert classes.n_letters == 0


def test_new_characters_join_a_class_or_make_one():
    classes = Classes([re.compile(r"[a-zé]+|€")])
    n = len(classes.rows)
    classes.classify([ord("é"), ord("ü"), ord("€")])
    of = classes.class_of
    assert of[ord("é")] == of[ord("a")] and of[ord("ü")] == of[ord("?")] and of[ord("€")] == n == len(classes.rows) - 1
