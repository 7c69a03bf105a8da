"""Losses over label maps with ignored pixels, one idea a file.

All of them take logits (B, H, W, K) and class ids (B, H, W), compute in float32 (float64 for
float64 logits), leave out the pixels whose id is not 0 to K - 1 whatever their scores, and give a
scalar of the whole batch: compiled over a mesh, of the batch of all devices. Values and gradients
are finite for finite scores, without any labelled pixel 0.
"""

from flaxseg.training.losses.combined import NetworkLoss as NetworkLoss
from flaxseg.training.losses.combined import Term as Term
from flaxseg.training.losses.combined import added as added
from flaxseg.training.losses.combined import combine as combine
from flaxseg.training.losses.combined import labelled_pixels as labelled_pixels
from flaxseg.training.losses.combined import loss_terms as loss_terms
from flaxseg.training.losses.combined import segmentation_loss as segmentation_loss
from flaxseg.training.losses.cross_entropy import cross_entropy as cross_entropy
from flaxseg.training.losses.dice import dice as dice
from flaxseg.training.losses.focal import focal as focal
from flaxseg.training.losses.iou import iou as iou
from flaxseg.training.losses.lovasz import lovasz_softmax as lovasz_softmax
from flaxseg.training.losses.objective import Objective as Objective
from flaxseg.training.losses.ohem import ohem as ohem
from flaxseg.training.losses.ohem import ohem_mmseg as ohem_mmseg
