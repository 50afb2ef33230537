"""The fake of what can be wrapped around a model's parts."""


class WrappersMP:
    APPLY_MODEL = "apply_model"


class WrapperExecutor:
    """Calls wrappers from the outermost, each with the next to call."""

    def __init__(self, original, wrappers):
        self.original, self.wrappers = original, wrappers

    def __call__(self, *args, **kwargs):
        if not self.wrappers:
            return self.original(*args, **kwargs)
        return self.wrappers[0](WrapperExecutor(self.original, self.wrappers[1:]), *args, **kwargs)
