"""Numbers of things in sentences."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: 1 text, 2 texts.

    Parameters
    ----------
    number : int
        How many.
    noun : str
        For one of them.
    plural : str
        For none or several; by default the noun with an s.

    Returns
    -------
    str
        Thousands are separated by commas.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
