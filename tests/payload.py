"""Objects whose unpickling runs code that can be observed."""

import os


class Call:
    """Unpickling this calls a function, and sets the state of the result."""

    def __init__(self, function, *args, state=None):
        self.call = function, args
        self.state = state

    def __call__(self):
        """Pickle demands that what it is to call can be called."""

    def __reduce__(self):
        return self.call if self.state is None else (*self.call, self.state)


class Payload(Call):
    """Unpickling this creates a folder."""

    def __init__(self, path):
        super().__init__(os.mkdir, str(path))
