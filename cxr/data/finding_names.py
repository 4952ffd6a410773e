"""How names of findings and columns are compared, and how they are shown."""

import re

ALIASES = {"infiltrate": "infiltration"}  # the word of NIH's box list: the word of its label table


def name_key(name: str) -> str:
    """Return what two spellings of a name have in common: no case, no white space of any kind, no underscores."""
    key = re.sub(r"[\s_]+", "", name).casefold()
    return ALIASES.get(key, key)


def display_name(name: str) -> str:
    """Return the name as people read it: "Pleural Thickening" for "Pleural_Thickening"."""
    return name.replace("_", " ")
