"""Data: generators, data that installed packages bundle, and loaders of public data sets."""

from ._graphs import GraphData as GraphData
from ._graphs import data_folder as data_folder
from ._graphs import graphs_unavailable as graphs_unavailable
from ._graphs import load_graphs as load_graphs
from ._images import ImageClasses as ImageClasses
from ._images import image_classes as image_classes
from ._images import images_unavailable as images_unavailable
from ._moving import Glyphs as Glyphs
from ._moving import digit_glyphs as digit_glyphs
from ._moving import flowing_glyphs as flowing_glyphs
from ._moving import mnist_glyphs as mnist_glyphs
from ._moving import mnist_unavailable as mnist_unavailable
from ._reber import ReberStrings as ReberStrings
from ._reber import reber_accepts as reber_accepts
from ._reber import reber_strings as reber_strings
from ._sequence_tasks import TokenTask as TokenTask
from ._sequence_tasks import associative_recall as associative_recall
from ._sequence_tasks import k_hop as k_hop
from ._sequence_tasks import keep_nth as keep_nth
from ._sets import DigitPoints as DigitPoints
from ._sets import SetBatch as SetBatch
from ._sets import digit_points as digit_points
from ._sets import second_minimum as second_minimum
from ._text import CharacterText as CharacterText
from ._text import character_text as character_text
from ._text import text_unavailable as text_unavailable
