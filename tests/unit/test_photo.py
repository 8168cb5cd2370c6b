import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from model.garment import (
    colour_overlap,
    cut_out,
    cut_out_by,
    garment_mask,
    garment_probability,
    geodesic_distance,
    grown,
    lab,
    label,
    plausible,
    shrunk,
    smooth,
    without_holes,
    without_small_regions,
)

SHIRT = [
    (30, 30),
    (45, 20),
    (75, 20),
    (90, 30),
    (105, 60),
    (92, 66),
    (85, 50),
    (85, 130),
    (35, 130),
    (35, 50),
]
SHIRT += [(28, 66), (15, 60)]


def silhouette(size=(120, 160)):
    """The pixels of a T-shirt laid flat."""
    image = Image.new("1", size)
    ImageDraw.Draw(image).polygon(SHIRT, 1)
    return image


def ground(kind, size=(120, 160)):
    """A floor or a sheet to lay clothes on."""
    width, height = size
    random = np.random.default_rng(2)
    row, column = np.mgrid[:height, :width]
    texture = {
        "sheet": np.full((height, width), 200.0),
        "floor": 150 + 25 * (column // 12 % 2),
        "carpet": 140 + 30 * random.standard_normal((height, width)),
        "uneven light": 120 + 100 * np.exp(-((row - 80) ** 2 + (column - 60) ** 2) / 4000),
    }[kind]
    colours = texture[:, :, None] * np.array([1.0, 0.85, 0.65])
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))


def photo(kind, colour):
    image = ground(kind)
    image.paste(colour, mask=silhouette())
    return image.filter(ImageFilter.GaussianBlur(0.7))


def overlap(mask):
    """Intersection over union with the T-shirt."""
    truth = np.asarray(silhouette())
    return (mask & truth).sum() / (mask | truth).sum()


@pytest.mark.parametrize("kind", ["sheet", "floor", "carpet", "uneven light"])
@pytest.mark.parametrize("colour", ["black", "navy", "firebrick", "lightskyblue"])
def test_a_garment_is_found_on_any_ground(kind, colour):
    assert overlap(garment_mask(photo(kind, colour))) > 0.9


def test_a_garment_is_found_where_it_is_cut_off_by_the_edge():
    image = photo("sheet", "navy").crop((0, 20, 120, 110))
    truth = np.asarray(silhouette())[20:110]
    mask = garment_mask(image)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9


def test_a_print_does_not_become_a_hole():
    image = photo("floor", "navy")
    ImageDraw.Draw(image).rectangle((48, 60, 72, 90), "gold")
    assert overlap(garment_mask(image)) > 0.9


def test_both_shoes_of_a_pair_are_kept():
    image = ground("floor")
    drawing = ImageDraw.Draw(image)
    for left in (25, 70):
        drawing.ellipse((left, 40, left + 26, 120), "black")
    mask = garment_mask(image)
    assert mask[80, 38] and mask[80, 83] and not mask[80, 60]


def test_what_is_cut_out_is_bright_on_black_and_fills_the_picture():
    pixels, separable = cut_out(photo("carpet", "black"))
    rows, columns = np.nonzero(pixels)
    assert separable
    assert (rows.min(), rows.max()) == (0, 27)
    assert columns.min() > 0 and columns.max() < 27
    assert np.median(pixels[pixels > 0]) > 200


def test_white_clothes_become_as_bright_as_grey_ones():
    pixels, _ = cut_out(photo("floor", "white"))
    assert 100 < np.median(pixels[pixels > 0]) < 160


def test_lifting_keeps_what_is_light_darker_than_what_is_not():
    image = Image.new("RGB", (56, 56), "white")
    image.paste((120, 120, 120), (20, 20, 36, 36))
    pixels = cut_out_by(np.ones((56, 56), bool), image)
    assert 100 < pixels[3, 3] < pixels[14, 14]


@pytest.mark.parametrize("colour", ["white", "gray", "black"])
def test_where_nothing_can_be_told_apart_the_middle_is_taken(colour):
    pixels, separable = cut_out(Image.new("RGB", (120, 160), colour))
    assert not separable
    assert pixels[14, 14] > 0


def test_it_is_said_when_garment_and_ground_have_much_the_same_colours():
    patches = np.random.default_rng(4).integers(0, 2, (20, 15), dtype=np.uint8) * 160 + 40
    image = Image.fromarray(patches).resize((120, 160), Image.Resampling.NEAREST).convert("RGB")
    assert not cut_out(image)[1]


def test_colours_overlap_from_not_at_all_to_fully():
    image = photo("sheet", "navy")
    mask = np.asarray(silhouette())
    assert colour_overlap(image, mask) < 0.1
    assert colour_overlap(image, np.arange(120) < np.full((160, 1), 60)) > 0.9


def test_a_mask_of_nothing_or_everything_is_not_plausible():
    mask = np.zeros((40, 30), bool)
    assert not plausible(mask)
    assert not plausible(~mask)
    mask[10:30, 10:20] = True
    assert plausible(mask)
    mask[:, :-1] = True
    assert not plausible(mask)


def test_the_probability_is_one_for_every_pixel():
    probability = garment_probability(photo("sheet", "navy"))
    assert probability.shape == (160, 120)
    assert probability.min() >= 0 and probability.max() <= 1


def test_lab_has_the_published_values_of_some_colours():
    colours = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]]], np.uint8)
    lightness, a, b = np.moveaxis(lab(colours)[0], 1, 0)
    assert np.allclose(lightness / 0.4, [100, 0, 53.24, 32.30], atol=0.1)
    assert np.allclose(a, [0, 0, 80.09, 79.19], atol=0.2)
    assert np.allclose(b, [0, 0, 67.20, -107.86], atol=0.2)


def test_the_geodesic_distance_is_small_on_a_way_round_a_wall():
    colours = np.zeros((20, 20, 3), np.float32)
    colours[4:6, :15, 0] = 9
    seeds = np.zeros((20, 20), bool)
    seeds[0] = True
    distance = geodesic_distance(colours, seeds)
    assert distance[0].max() == 0
    assert distance[10, 2] == 0
    assert distance[4, 2] == 9


def test_regions_are_numbered_apart():
    mask = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [1, 0, 1, 1]], bool)
    numbers = label(mask)
    assert numbers[0, 0] == numbers[0, 1] == numbers[1, 1]
    assert numbers[0, 3] == numbers[1, 3] == numbers[2, 2]
    assert len({numbers[0, 0], numbers[0, 3], numbers[2, 0], 0}) == 4
    assert (numbers > 0).tolist() == mask.tolist()


def test_a_winding_region_has_one_number():
    spiral = np.ones((9, 9), bool)
    spiral[1, :8] = spiral[3, 1:] = spiral[5, :8] = spiral[7, 1:] = False
    assert len(np.unique(label(spiral))) == 2
    assert len(np.unique(label(spiral.T))) == 2


def test_only_regions_of_a_fair_size_stay():
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = mask[12:16, 12:17] = mask[19, 0] = True
    kept = without_small_regions(mask, 0.15)
    assert kept[5, 5] and kept[13, 13] and not kept[19, 0]
    assert not without_small_regions(np.zeros((5, 5), bool), 0.15).any()


def test_what_the_mask_encloses_is_filled_and_what_it_only_surrounds_is_not():
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8] = True
    mask[3:5, 3:5] = False
    assert without_holes(mask)[3:5, 3:5].all()
    mask[3, :4] = False
    assert not without_holes(mask)[3, :4].any()


def test_specks_and_cracks_are_smoothed_away():
    mask = np.zeros((30, 30), bool)
    mask[8:22, 8:22] = True
    clean = mask.copy()
    mask[15, 8:22] = False
    mask[2, 2] = True
    assert np.array_equal(smooth(mask), clean)


def test_growing_and_shrinking_are_what_they_are_called():
    mask = np.zeros((11, 11), bool)
    mask[5, 5] = True
    square = np.zeros((11, 11), bool)
    square[3:8, 3:8] = True
    assert np.array_equal(grown(mask, 2), square)
    assert np.array_equal(shrunk(square, 2), mask)
