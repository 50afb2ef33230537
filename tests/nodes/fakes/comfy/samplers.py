"""The fake of samplers: their names, for the schema. The tests of sampling run in the real ComfyUI."""


class KSampler:
    SCHEDULERS = ["simple", "normal", "karras"]  # noqa: RUF012 (as it is)
    SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m", "dpm_adaptive", "ddim"]  # noqa: RUF012
