"""Exceptions and warnings that bioattn raises on purpose.

Every message names what was wrong, what was found, what is allowed and a way
out, so the command line can print it in one line without a traceback.
"""


class BioattnError(Exception):
    """Base of every error that bioattn raises on purpose."""


class ConfigError(BioattnError):
    """A setting is unknown, of the wrong type, or impossible with the others."""


class DataError(BioattnError):
    """A file, a record or an array does not hold what it must hold."""


class BioattnWarning(UserWarning):
    """Something works, but not as the user may think: an idle GPU, an ignored setting."""
