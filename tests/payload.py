"""An object whose unpickling runs code that can be observed."""

import os


class Payload:
    """Unpickling this creates a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))
