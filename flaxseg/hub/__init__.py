"""Models for others: a folder with a card that explains them, and its way to the hub."""

from flaxseg.hub.card import card_text as card_text
from flaxseg.hub.card import is_untouched as is_untouched
