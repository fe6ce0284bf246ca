from __future__ import annotations

import itertools

import numpy as np
import pytest

from rt_swap.tracking.identity import IdentityBook, assign, place_of, same_face
from tests.support.faces import landmarks_at


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 3), (4, 6), (5, 5)])
def test_assign_costs_as_little_as_the_best_of_all_permutations(rng, shape):
    for _ in range(20):
        cost = rng.uniform(-3, 10, shape)
        columns = assign(cost)
        assert len(set(columns)) == shape[0]
        best = min(
            sum(cost[i, j] for i, j in enumerate(p))
            for p in itertools.permutations(range(shape[1]), shape[0])
        )
        assert sum(cost[i, j] for i, j in enumerate(columns)) == pytest.approx(best)


def test_assign_nothing():
    assert assign(np.zeros((0, 3))) == []


def test_assign_more_rows_than_columns_is_refused():
    with pytest.raises(ValueError, match="no more rows"):
        assign(np.zeros((2, 1)))


def test_place_of_reads_angle_and_size():
    place = place_of(landmarks_at(300, 200, 128, 0.5))
    assert place.angle_rad == pytest.approx(0.5)
    assert place_of(landmarks_at(300, 200, 256, 0.5)).size_px == pytest.approx(2 * place.size_px)


def test_same_face_near_and_far():
    here = place_of(landmarks_at(300, 200))
    assert same_face(here, place_of(landmarks_at(310, 205)))
    assert not same_face(here, place_of(landmarks_at(380, 200)))


def test_ids_do_not_depend_on_the_order_of_faces(rng):
    book = IdentityBook()
    people = [landmarks_at(100, 200), landmarks_at(300, 220, 150), landmarks_at(520, 180, 90)]
    first = book.update(people)
    assert len(set(first)) == 3
    for _ in range(20):
        order = rng.permutation(3)
        noise = rng.normal(0, 2, (478, 2))
        assert book.update([people[i] + noise for i in order]) == [first[i] for i in order]


def test_ids_survive_two_equal_faces_passing_each_other(rng):
    book = IdentityBook()

    def people(t):  # 12 px a picture each way, apart by a quarter of a face in height
        jitter = rng.normal(0, 1, (478, 2))
        return landmarks_at(100 + 12 * t, 200, 120), landmarks_at(540 - 12 * t, 225, 120) + jitter

    first = book.update(list(people(0)))
    for t in range(1, 37):
        right_going, left_going = people(t)
        if t % 2:
            assert book.update([left_going, right_going]) == first[::-1]
        else:
            assert book.update([right_going, left_going]) == first


def test_ids_survive_a_crossing_in_which_one_is_hidden():
    book = IdentityBook()
    first = book.update([landmarks_at(100, 200, 120), landmarks_at(540, 200, 120)])
    for t in range(1, 37):
        right_going, left_going = (
            landmarks_at(100 + 12 * t, 200, 120),
            landmarks_at(540 - 12 * t, 200, 120),
        )
        if abs((100 + 12 * t) - (540 - 12 * t)) < 60:  # the one going left passes behind
            assert book.update([right_going]) == first[:1]
        else:
            assert book.update([left_going, right_going]) == first[::-1]


def test_ids_near_and_far_face_at_one_place_are_told_apart_by_size():
    book = IdentityBook()
    near, far = landmarks_at(300, 200, 300), landmarks_at(330, 210, 90)
    first = book.update([near, far])
    # the two change places in the list, and the small one comes to where the large one was
    assert book.update([landmarks_at(302, 201, 95), landmarks_at(328, 209, 290)]) == first[::-1]


def test_ids_return_after_a_short_loss_but_not_after_a_long_one():
    book = IdentityBook(memory=5)
    (first,) = book.update([landmarks_at(300, 200)])
    for _ in range(5):
        book.update([])
    assert book.missing(within=5) == 1
    assert book.update([landmarks_at(320, 200)]) == [first]
    for _ in range(6):
        book.update([])
    assert book.missing(within=100) == 0
    assert book.update([landmarks_at(320, 200)]) == [first + 1]


@pytest.mark.parametrize("where", [(600, 200, 128), (300, 200, 300)])
def test_ids_another_place_or_size_is_another_person(where):
    book = IdentityBook()
    (first,) = book.update([landmarks_at(300, 200, 128)])
    assert book.update([landmarks_at(*where)]) != [first]


def test_ids_are_not_given_out_again_after_forgetting():
    book = IdentityBook()
    seen = set(book.update([landmarks_at(100, 200), landmarks_at(400, 200)]))
    book.forget()
    assert book.predictions() == {}
    assert not seen & set(book.update([landmarks_at(100, 200), landmarks_at(400, 200)]))


def test_predictions_follow_the_motion():
    book = IdentityBook()
    for t in range(5):
        (track_id,) = book.update([landmarks_at(100 + 10 * t, 200)])
    np.testing.assert_allclose(book.predictions()[track_id], landmarks_at(150, 200))
    book.update([])
    assert book.predictions() == {}
    assert book.would_match(place_of(landmarks_at(160, 200)))
    assert not book.would_match(place_of(landmarks_at(500, 200)))
