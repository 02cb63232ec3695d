"""Classifiers of images without noise. Their features measure the samples of other systems."""
