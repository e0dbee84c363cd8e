"""The hosts' visualization hooks, with the pictures in the sub-folders that the images have.

The hosts write all pictures of a test into one folder, under the base names of the images: of
several images of one name, mmdet and mmpretrain keep the last picture. Each module needs its host,
so `mmcloformer.engine.testing.draw_predictions` imports the one that a config needs.
"""
