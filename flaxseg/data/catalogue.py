"""The data sets of files that are known by name."""

from flaxseg.data.ade20k import ADE20K
from flaxseg.data.camvid import CAMVID
from flaxseg.data.cityscapes import CITYSCAPES
from flaxseg.data.folder import FOLDER
from flaxseg.data.pets import PETS

FILE_DATASETS = {dataset.name: dataset for dataset in (ADE20K, CAMVID, CITYSCAPES, FOLDER, PETS)}
"""Data sets of files by name."""
