"""How the tests train."""

from model.settings import AugmentationSettings

AUGMENTATION = AugmentationSettings(
    editions=0,
    shift_pixels=2,
    flip=True,
    erase_probability=0.5,
    erase_area_min=0.02,
    erase_area_max=0.25,
    plain_epochs=1,
    photo_share=0.0,
)
