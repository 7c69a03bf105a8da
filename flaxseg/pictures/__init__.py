"""Pictures in and out: photos, label maps, overlays, legends and contact sheets."""

from flaxseg.pictures.legend import with_legend as with_legend
from flaxseg.pictures.open import MAX_PIXELS as MAX_PIXELS
from flaxseg.pictures.open import PHOTO_SUFFIXES as PHOTO_SUFFIXES
from flaxseg.pictures.open import is_photo_name as is_photo_name
from flaxseg.pictures.open import open_picture as open_picture
from flaxseg.pictures.overlay import colorize as colorize
from flaxseg.pictures.overlay import overlay as overlay
from flaxseg.pictures.photos import Photo as Photo
from flaxseg.pictures.photos import PhotoFacts as PhotoFacts
from flaxseg.pictures.photos import decode_plain as decode_plain
from flaxseg.pictures.photos import look_at_photo as look_at_photo
from flaxseg.pictures.photos import read_photo as read_photo
from flaxseg.pictures.photos import turn as turn
from flaxseg.pictures.sheets import batch_sheet as batch_sheet
from flaxseg.pictures.sheets import contact_sheet as contact_sheet
from flaxseg.pictures.sheets import example_sheet as example_sheet
from flaxseg.pictures.write import write_image as write_image
from flaxseg.pictures.write import write_mask as write_mask
