"""Compiled parts of the batch engine: many machines against the packed work of a word, a call for all of them."""
