"""Prediction, evaluation and the pictures of both."""

from flaxseg.inference.canvas import Canvases as Canvases
from flaxseg.inference.evaluate import Evaluation as Evaluation
from flaxseg.inference.evaluate import Evaluator as Evaluator
from flaxseg.inference.evaluate import evaluate as evaluate
from flaxseg.inference.evaluate import make_evaluator as make_evaluator
from flaxseg.inference.evaluating import evaluate_dir as evaluate_dir
from flaxseg.inference.metrics import Scores as Scores
from flaxseg.inference.metrics import confusion_matrix as confusion_matrix
from flaxseg.inference.metrics import scores_table as scores_table
from flaxseg.inference.opening import resolve_model_dir as resolve_model_dir
from flaxseg.inference.paired import Comparison as Comparison
from flaxseg.inference.paired import compare as compare
from flaxseg.inference.per_image import PerImage as PerImage
from flaxseg.inference.predict import LabelFn as LabelFn
from flaxseg.inference.predict import Predictor as Predictor
from flaxseg.inference.predict import make_label_fn as make_label_fn
from flaxseg.inference.predicting import predict_files as predict_files
from flaxseg.inference.record import Record as Record
from flaxseg.inference.segmenter import Segmenter as Segmenter
from flaxseg.inference.segmenter import open_segmenter as open_segmenter
from flaxseg.pictures.legend import with_legend as with_legend
from flaxseg.pictures.overlay import colorize as colorize
from flaxseg.pictures.overlay import overlay as overlay
from flaxseg.pictures.photos import read_photo as read_photo
from flaxseg.pictures.sheets import contact_sheet as contact_sheet
from flaxseg.pictures.write import write_image as write_image
from flaxseg.pictures.write import write_mask as write_mask

read_image = read_photo
"""The same by the name that it had first."""
