"""The fake of what can be wrapped around a model's parts."""


class WrappersMP:
    APPLY_MODEL = "apply_model"
