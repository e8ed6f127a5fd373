"""Where the places of the map are: regions side by side, or one below the other on a phone."""

import dataclasses
import math

from genmap_jax.report.rows import CONTINENTS, Group

PLACE = (288, 92)
"""Width and height of a place: thumbnail and four lines."""
PITCH = (322, 124)
"""From one place to the next, in a row and in a column."""
EDGE = 100.0
"""From the outermost places to the edge of the picture."""
TOP, BELOW = 168.0, 42.0
"""From the top of the picture to the first region's name, and from there to its first place."""


@dataclasses.dataclass
class Box:
    """A block on the map: top left corner and size, in picture units, y downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """The x of the middle."""
        return self.x + self.width / 2


@dataclasses.dataclass
class Region:
    """A part of a land, with the places of its groups."""

    land: str
    name: str
    groups: list[Group]
    label: Box
    places: list[Box]


@dataclasses.dataclass
class Layout:
    """All regions, and the size of the picture."""

    regions: list[Region]
    width: float
    height: float

    @property
    def lands(self) -> dict[str, Box]:
        """Land -> the box of its name, above its highest region."""
        lands: dict[str, list[Box]] = {}
        for region in self.regions:
            lands.setdefault(region.land, []).append(region.label)
        return {
            land: dataclasses.replace(hull(labels), y=hull(labels).y - 48, height=36) for land, labels in lands.items()
        }


def hull(boxes: list[Box]) -> Box:
    """The smallest box around boxes."""
    x, y = min(b.x for b in boxes), min(b.y for b in boxes)
    return Box(x, y, max(b.x + b.width for b in boxes) - x, max(b.y + b.height for b in boxes) - y)


def by_region(groups: list[Group]) -> dict[tuple[str, str], list[Group]]:
    """(land, region) -> its groups, in the order of the map."""
    members = {place: [g for g in groups if g.region == place] for place in CONTINENTS.values()}
    return {place: inside for place, inside in members.items() if inside}


def layout(groups: list[Group], portrait: bool) -> Layout:
    """Places of one column on a phone, otherwise of as many rows as give the picture the shape of a page."""
    members = by_region(groups)
    if portrait:
        return _stacked(members)
    most = max(map(len, members.values()), default=1)
    options = [_side_by_side(members, rows) for rows in range(1, most + 1)]
    return min(options, key=lambda option: abs(math.log(option.width / option.height / 1.55)))


def _side_by_side(members: dict[tuple[str, str], list[Group]], rows: int) -> Layout:
    heights: dict[str, int] = {}
    for (land, _), groups in members.items():
        heights[land] = max(heights.get(land, 0), min(rows, len(groups)))
    tallest = max(heights.values(), default=1)
    x, regions = EDGE, list[Region]()
    for (land, name), groups in members.items():
        if regions:
            x += 40 if land == regions[-1].land else 150
        # A lower land lies in the middle; the regions of one land begin on one line.
        y = TOP + (tallest - heights[land]) * PITCH[1] / 2
        places = _grid(x, y + BELOW, len(groups), min(rows, len(groups)), lean=7 * (-1) ** len(regions))
        width = hull(places).x + hull(places).width - x
        regions.append(Region(land, name, groups, Box(x, y, width, 24), places))
        x += width
    width = max(x + EDGE, 760)
    for box in (box for region in regions for box in (region.label, *region.places)):
        box.x += (width - EDGE - x) / 2
    return Layout(regions, width, TOP + BELOW + tallest * PITCH[1] + 104)


def _grid(x: float, y: float, count: int, rows: int, lean: float) -> list[Box]:
    """Places column by column. They lean aside, and a column that is not full is centred: towns are not on a grid."""
    places = []
    for i in range(count):
        column, row = divmod(i, rows)
        empty = rows - min(rows, count - column * rows)
        aside = lean * (-1) ** (row + column) if rows > 1 else 0
        places.append(Box(x + column * PITCH[0] + aside, y + (row + empty / 2) * PITCH[1], *PLACE))
    return places


def _stacked(members: dict[tuple[str, str], list[Group]]) -> Layout:
    y, regions = TOP, list[Region]()
    for (land, name), groups in members.items():
        if regions:
            y += 26 if land == regions[-1].land else 132
        places = _grid(56, y + BELOW, len(groups), len(groups), lean=5)
        regions.append(Region(land, name, groups, Box(56, y, PLACE[0], 24), places))
        y += BELOW + len(groups) * PITCH[1]
    return Layout(regions, 400, y + 168)
