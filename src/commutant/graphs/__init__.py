"""Higher-order graph layers that are equivariant to permutations of the nodes and scale with neighborhoods."""

from ._ego_nets import EgoNets as EgoNets
from ._neighborhoods import Neighborhoods as Neighborhoods
from ._spen import SPEN as SPEN
from ._spen_conv import SPENConv as SPENConv
