"""The one exception a person is meant to read."""


class InputError(ValueError):
    """Bad input, said in one sentence that names the field, the value and the fix.

    `experiments.main` prints the sentence and ends with a non-zero exit code; a library user catches a `ValueError`.
    """
