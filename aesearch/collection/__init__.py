"""A folder of files, all made from one set of images."""
