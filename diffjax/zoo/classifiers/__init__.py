"""Classifiers of images as they are, whose features measure the samples of other systems."""
