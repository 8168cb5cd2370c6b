"""How the tests train."""

from model.settings import AugmentationSettings, SkippingSettings

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

SKIPPING = SkippingSettings(easy=0.5, skipped=0.5, first_epochs=1, every_epochs=2)
