"""Exported files as models: what `flaxseg export` wrote, called like the network it is made of."""

from flaxseg.exported.files import About as About
from flaxseg.exported.files import Kind as Kind
from flaxseg.exported.files import files_of as files_of
from flaxseg.exported.files import kind_of as kind_of
from flaxseg.exported.files import open_exported as open_exported
from flaxseg.exported.files import read_about as read_about
from flaxseg.exported.network import ExportedConfig as ExportedConfig
from flaxseg.exported.network import ExportedNetwork as ExportedNetwork
from flaxseg.exported.network import require_logits as require_logits
