"""Pictures in and out: photos, label maps, overlays, legends and contact sheets."""

from flaxseg.pictures.overlay import colorize as colorize
from flaxseg.pictures.overlay import contact_sheet as contact_sheet
from flaxseg.pictures.overlay import overlay as overlay
from flaxseg.pictures.overlay import with_legend as with_legend
from flaxseg.pictures.photos import read_image as read_image
from flaxseg.pictures.write import write_image as write_image
from flaxseg.pictures.write import write_mask as write_mask
