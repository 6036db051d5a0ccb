"""Where a pipeline's data comes from: what the [data] table may hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tfedge.declarations import required, setting
from tfedge.errors import UserError, did_you_mean
from tfedge.plan import settings
from tfedge.plan.refs import Ref
from tfedge.plan.settings import Names, Options
from tfedge.progress import Progress

AUGMENTATIONS = ("flip", "crop", "colour", "cutout", "mixup")
CACHE = ".data"


FOR_IMAGES = ("flip", "crop", "colour", "cutout")


class Source(Protocol):
    """What the builder asks of the [data] table."""

    def recipe(self, root: Path) -> dict[str, Any]:
        """Return what stands for the data in a stage's key, as JSON values."""

    def open(self, root: Path, progress: Progress) -> Any:
        """Return the data, a `tfedge.data.dataset.Data`."""

    def augmentations(self) -> list[str | Callable[..., Any]]:
        """Return what happens to training inputs, in its order."""


@dataclass(frozen=True)
class Handling:
    """What is done with examples from wherever they come."""

    tune_share: float = setting(
        0.1, "of the examples, where no tune split is given", low=0, high=0.9
    )
    test_share: float = setting(
        0.1, "of the examples, where no test split is given", low=0, high=0.9
    )
    normalise: str = setting(
        "",
        "what the network sees: 0 to 1, -1 to 1, mean 0 and deviation 1, or the inputs as they are"
        " (images: unit, numbers: standard)",
        choices=("unit", "symmetric", "standard", "none"),
    )
    augment: Names = setting(
        (),
        f"changes to training inputs: {', '.join(AUGMENTATIONS)}, or path.py:name",
        choices=AUGMENTATIONS,
    )
    skip_duplicates: bool = setting(
        default=False, help="leave an example out of one split that is in another, too"
    )

    def suited(self, data: Any) -> Any:
        """Return `data`, or refuse it if `augment` cannot work on it."""
        for name in self.augment:
            if data.kind != "image" and name in FOR_IMAGES:
                fix = "leave it out, or write a function of your own: path.py:name"
                raise UserError("[data] augment", f"{name!r} is for images, the data is not", fix)
        return data

    def augmentations(self) -> list[str | Callable[..., Any]]:
        """Load the user's own among `augment`."""
        return [item.guarded() if isinstance(item, Ref) else item for item in self.augment]


@dataclass(frozen=True)
class Folder:
    """Photos: path/<class>/*.jpg, or path/{train,tune,test}/<class>/*.jpg.

    JPEG, PNG, WebP, BMP and GIF.  Without split folders a photo's split comes from the hash of its
    name, so that adding photos moves none.
    """

    path: Path = required("the folder; from the pipeline file's own, if relative")
    size: tuple[int, int] = setting((96, 96), "height and width for the network", low=1, high=4096)
    channels: int = setting(3, "3 for colour, 1 for grey", low=1, high=3)
    resize: str = setting(
        "bilinear", "Pillow's filter", choices=("nearest", "bilinear", "bicubic", "lanczos")
    )
    fit: str = setting("stretch", "of photos of another shape", choices=("stretch", "crop", "pad"))
    skip_unreadable: bool = setting(
        default=False, help="leave out photos that cannot be read, instead of stopping"
    )
    handling: Handling = field(default=Handling())

    def check(self, where: str) -> None:
        """Refuse what no picture has."""
        if self.channels not in (1, 3):
            raise UserError(f"{where} channels", f"must be 1 or 3, got {self.channels}")

    def recipe(self, root: Path) -> dict[str, Any]:
        from tfedge.data.fingerprint import fingerprint

        return _recipe(self, "folder", fingerprint(self.path, root / CACHE))

    def open(self, root: Path, progress: Progress) -> Any:
        from tfedge.data.fingerprint import fingerprint
        from tfedge.data.photos import Pictures, open_folder

        with progress.bar("decoding", 1) as advance:
            return open_folder(
                self.path,
                root / CACHE,
                Pictures((*self.size, self.channels), self.resize, self.fit),
                _choices(self.handling, skip_unreadable=self.skip_unreadable),
                fingerprint=fingerprint(self.path, root / CACHE),
                says=_says(progress, advance),
            )

    def augmentations(self) -> list[str | Callable[..., Any]]:
        return self.handling.augmentations()


@dataclass(frozen=True)
class Npz:
    """Arrays of one .npz file: x and y, or x_train, y_train, x_tune, …, x_test, y_test.

    x is uint8 [count, height, width, channels] (images) or float [count, ...]; y is class numbers
    or names; labels, if there, names the numbers.
    """

    path: Path = required("the file; from the pipeline file's own folder, if relative")
    handling: Handling = field(default=Handling())

    def recipe(self, root: Path) -> dict[str, Any]:
        from tfedge.data.fingerprint import file_fingerprint

        return _recipe(self, "npz", file_fingerprint(self.path, root / CACHE))

    def open(self, root: Path, progress: Progress) -> Any:
        from tfedge.data.arrays import load_npz, open_arrays
        from tfedge.data.fingerprint import file_fingerprint

        data = open_arrays(
            lambda: load_npz(self.path),
            root / CACHE,
            _choices(self.handling),
            where=self.path,
            fingerprint=file_fingerprint(self.path, root / CACHE),
            says=_says(progress),
        )
        return self.handling.suited(data)

    def augmentations(self) -> list[str | Callable[..., Any]]:
        return self.handling.augmentations()


@dataclass(frozen=True)
class Function:
    """A function of the user's own that returns what an .npz would hold, as a mapping.

    Its other settings are the function's arguments.  It runs again when its file changes, an
    argument, or the names, sizes and times of a file or folder that an argument names.
    """

    use: Ref = required("path.py:name")
    arguments: Options = field(default_factory=lambda: Options({}))
    handling: Handling = field(default=Handling())
    folder: Path = field(default=Path(), metadata={"help": "", "hidden": True})

    def recipe(self, root: Path) -> dict[str, Any]:  # noqa: ARG002
        return _recipe(self, self.use.text, self._fingerprint())

    def open(self, root: Path, progress: Progress) -> Any:
        from tfedge.data.arrays import open_arrays

        data = open_arrays(
            lambda: self.use.guarded()(**self._arguments()),
            root / CACHE,
            _choices(self.handling),
            where=self.use.text,
            fingerprint=self._fingerprint(),
            says=_says(progress),
        )
        return self.handling.suited(data)

    def augmentations(self) -> list[str | Callable[..., Any]]:
        return self.handling.augmentations()

    def _arguments(self) -> dict[str, Any]:
        return {name: self._place(value) for name, value in self.arguments.items()}

    def _place(self, value: Any) -> Any:
        """Make a path that exists beside the pipeline file absolute."""
        if isinstance(value, str) and value and (self.folder / value).exists():
            return str((self.folder / value).resolve())
        return value

    def _fingerprint(self) -> str:
        parts: list[Any] = [self.use.fingerprint(), sorted(self.arguments.items())]
        texts = [value for value in self._arguments().values() if isinstance(value, str)]
        parts.extend(_listing(Path(text)) for text in texts if Path(text).is_absolute())
        return hashlib.sha256(repr(parts).encode()).hexdigest()


SOURCES: dict[str, type] = {"folder": Folder, "npz": Npz}
"""What `use` may say in [data], besides a ``path.py:function`` of the user's own."""


def read(table: Mapping[str, Any], where: str, folder: Path) -> Source:
    """Read the [data] table; every mistake is a UserError."""
    use = table.get("use")
    rest = {name: value for name, value in table.items() if name != "use"}
    if use is None:
        raise UserError(where, "'use' is missing", did_you_mean("", SOURCES))
    if isinstance(use, str) and ":" in use:
        function = settings.read(Function, {**rest, "use": use}, where, folder)
        return Function(function.use, function.arguments, function.handling, folder)
    if not isinstance(use, str) or use not in SOURCES:
        fix = f"write {', '.join(map(repr, SOURCES))} or path.py:function"
        raise UserError(where, f"unknown source {use!r}", fix)
    source: Source = settings.read(SOURCES[use], rest, where, folder)
    if isinstance(source, Folder):
        source.check(where)
    return source


def _recipe(source: Any, use: str, fingerprint: str) -> dict[str, Any]:
    values = settings.plain(source)
    kept = {name: value for name, value in values.items() if name not in ("path", "folder", "use")}
    return {**kept, "use": use, "fingerprint": fingerprint}


def _choices(handling: Handling, *, skip_unreadable: bool = False) -> Any:
    from tfedge.data.choices import Choices

    return Choices(
        tune_share=handling.tune_share,
        test_share=handling.test_share,
        normalise=handling.normalise,
        skip_unreadable=skip_unreadable,
        skip_duplicates=handling.skip_duplicates,
    )


def _says(progress: Progress, advance: Callable[..., None] | None = None) -> Any:
    from tfedge.data.choices import Says

    if advance is None:
        return Says(message=progress.say)
    return Says(progress=lambda done, total: advance(done, "", total), message=progress.say)


def _listing(place: Path) -> list[tuple[str, int, int]]:
    """List names, sizes and times of the files at or below `place`."""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    stats = [(str(file.relative_to(place)), file.stat()) for file in files if file.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
