"""What a user can cause, and the one line that is shown for it."""


class AesearchError(Exception):
    """A plain one-line message that says what is wrong and what to do.

    The command line prints it as ``error: …`` and exits 1.
    """


class CollectionNotFoundError(AesearchError):
    """There is no collection in that folder, or it lacks the artifact asked for."""


class StaleArtifactError(AesearchError):
    """An artifact was made from something that has changed since."""


class SourceError(AesearchError):
    """The images cannot be found or read."""
