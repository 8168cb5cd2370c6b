"""PARTITION:OFFSET on the command line."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mlaas.dlq import Place


class PlaceType(click.ParamType["Place"]):
    name = "PARTITION:OFFSET"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> "Place":
        from mlaas.dlq import Place

        try:
            return Place.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, context)


PLACE = PlaceType()
