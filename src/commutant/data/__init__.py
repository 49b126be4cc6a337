"""Data: generators, data that installed packages bundle, and loaders of public data sets."""

from ._graphs import GraphData as GraphData
from ._graphs import data_folder as data_folder
from ._graphs import graphs_unavailable as graphs_unavailable
from ._graphs import load_graphs as load_graphs
from ._sets import DigitPoints as DigitPoints
from ._sets import SetBatch as SetBatch
from ._sets import digit_points as digit_points
from ._sets import second_minimum as second_minimum
