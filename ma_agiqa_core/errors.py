"""What goes wrong because of what a user gave: one base class, so that our own bugs cannot be taken for it.

Each class is also the builtin that fits, so `except FileNotFoundError` and the like keep working.
"""


class MaAgiqaError(ValueError):
    """An input, option, file or model cannot be used; the message says what was expected, what came and what to do."""


class MissingFileError(MaAgiqaError, FileNotFoundError):
    """A file, folder or model is not where it was expected."""


class OutputExistsError(MaAgiqaError, FileExistsError):
    """An output would overwrite or mix with what another run wrote."""


class MissingPackageError(MaAgiqaError, ImportError):
    """An optional package is needed; the message holds its `pip install` line."""


class MisusedCallbackError(MaAgiqaError, RuntimeError):
    """A callback was used outside its `with`, twice at once, or with another pipeline call than it was made for."""


class NotAPictureError(MaAgiqaError, TypeError):
    """Something was given as a picture that is no kind of picture."""


class UnusableModelError(MaAgiqaError):
    """A model that a scorer is made of cannot be loaded: this concerns all pictures, and not one of them."""


class UnreadablePictureError(MaAgiqaError):
    """A file or PIL image without readable pixels; the message is one line, without the path."""


class PictureError(MaAgiqaError):
    """One of the given pictures cannot be read, or cannot be scored.

    Attributes:
        index: Its place among the given pictures, from 0.
        path: Its path, or None if it was not given as one.
        reason: One line, without the path.
    """

    def __init__(self, index: int, path: str | None, reason: str) -> None:
        super().__init__(index, path, reason)  # all three, so that it survives pickling
        self.index, self.path, self.reason = index, path, reason

    def __str__(self) -> str:
        which = f"Picture {self.index}" if self.path is None else f"Picture {self.index} ({self.path!r})"
        return f"{which} cannot be scored: {self.reason}."
