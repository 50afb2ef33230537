"""The fake of what stops a branch."""


class ExecutionBlocker:
    def __init__(self, message):
        self.message = message
