"""ATOP: which joint a part of a static mesh has, from its shape, a sentence, or a motion that was seen."""
