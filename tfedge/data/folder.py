"""How a folder of photos is laid out: which photo is of which class, in which split.

Either ``photos/<class>/…``: each photo's split comes from the hash of its path below the folder
(`splits.split_of`).  Or ``photos/{train,tune,test}/<class>/…``; ``val``, ``valid`` and
``validation`` are other names for ``tune``, and upper case does not matter.  Where only ``train``
and ``test`` are there, tune is taken out of train, again by the hash of the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tfedge.data.choices import Choices
from tfedge.data.listing import Listing
from tfedge.data.problems import Problems, plural
from tfedge.data.splits import split_of
from tfedge.errors import UserError

_SPLIT_FOLDERS = {
    "train": "train",
    "tune": "tune",
    "val": "tune",
    "valid": "tune",
    "validation": "tune",
    "test": "test",
}


class Photo(NamedTuple):
    """A photo's name below its folder, the split that it belongs to, and the label of its class."""

    name: str
    split: str
    label: str


class Layout(NamedTuple):
    """Photos, sorted by name, and the labels of all class folders, sorted; photos or not."""

    photos: tuple[Photo, ...]
    labels: tuple[str, ...]


def arrange(listing: Listing, choices: Choices) -> Layout:
    """Give each listed photo its class and split, as the module describes."""
    top = [name for name in listing.folders if "/" not in name]
    split_folders = _split_folders(listing.folder, top)
    depth = 1 if split_folders else 0  # how many folders lie above a class's
    labels = sorted(
        {name.split("/")[depth] for name in listing.folders if name.count("/") == depth}
    )
    _check_classes(listing, labels, depth)
    shares = (choices.tune_share, choices.test_share)
    photos = []
    for file in listing.files:
        parts = file.name.split("/")
        if not split_folders:
            split = split_of(file.name, *shares)
        else:
            split = split_folders[parts[0]]
            if split == "train" and "tune" not in split_folders.values():
                split = split_of(file.name, choices.tune_share, 0)
        photos.append(Photo(file.name, split, parts[depth]))
    return Layout(tuple(photos), tuple(labels))


def _split_folders(folder: Path, top: Sequence[str]) -> dict[str, str]:
    """Return the split that each folder stands for; nothing if all of them are classes."""
    found = {name: _SPLIT_FOLDERS[name.lower()] for name in top if name.lower() in _SPLIT_FOLDERS}
    if not found:
        return {}
    others = [name for name in top if name not in found]
    if others:
        raise UserError(
            folder,
            f"holds folders of splits ({', '.join(found)}) and others ({', '.join(others[:5])})",
            "keep to <class>/*.jpg or to {train,tune,test}/<class>/*.jpg; a class of such a name "
            "needs another",
        )
    if len(set(found.values())) < len(found):
        raise UserError(
            folder,
            f"holds two folders for one split: {', '.join(found)}",
            "keep one of train, of tune (or val, valid, validation) and of test",
        )
    if missing := {"train", "test"} - set(found.values()):
        raise UserError(
            folder,
            f"holds {', '.join(found)} but no {' and no '.join(sorted(missing))}",
            "write train/, test/ and, unless it shall be taken out of train/, tune/; or the class "
            "folders alone, and photos are split by their names",
        )
    return found


def _check_classes(listing: Listing, labels: Sequence[str], depth: int) -> None:
    """Refuse a folder with fewer than two classes, or with photos that lie in none."""
    form = "{train,tune,test}/<class>/*.jpg" if depth else "<class>/*.jpg"
    problems = Problems(listing.folder)
    # A class's name and the photo's follow what lies above the class.
    stray = [file.name for file in listing.files if file.name.count("/") < depth + 1]
    if stray:
        problems.add(
            f"{plural(len(stray), 'photo')} outside the class folders",
            f"put photos into {form}",
            names=stray,
        )
    if not labels:
        problems.add("holds no class folder", f"put photos into {form}")
    elif len(labels) == 1:
        problems.add(
            f"holds one class only, {labels[0]!r}",
            f"put photos of at least two classes into {form}",
        )
    problems.check()
