"""Networks: modules that hold parameters, the layers, and how parameters get their first values.

A layer is in the file of its op, minidl/ops/<name>.py: formulas, forward, backward, the function, and last the module that
keeps the function's settings and parameters. Constructors have PyTorch's signatures, `repr` shows what PyTorch's would. Here is
a line for each; `as` tells type checkers that the name is public. Read module.py first. `functional` has every layer as a
function, `init` the initial values, `utils` what clips gradients,
`parallel` what trains on several processes.
"""

from minidl.left_out import answer_for as _answer_for
from minidl.nn import functional as functional
from minidl.nn import init as init
from minidl.nn import parallel as parallel
from minidl.nn import utils as utils
from minidl.nn.containers import ModuleDict as ModuleDict
from minidl.nn.containers import ModuleList as ModuleList
from minidl.nn.containers import ParameterDict as ParameterDict
from minidl.nn.containers import ParameterList as ParameterList
from minidl.nn.containers import Sequential as Sequential
from minidl.nn.module import Identity as Identity
from minidl.nn.module import Module as Module
from minidl.nn.module import Parameter as Parameter
from minidl.ops.adaptive_avg_pool2d import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from minidl.ops.avg_pool2d import AvgPool2d as AvgPool2d
from minidl.ops.batch_norm import BatchNorm1d as BatchNorm1d
from minidl.ops.batch_norm import BatchNorm2d as BatchNorm2d
from minidl.ops.binary_cross_entropy_with_logits import BCEWithLogitsLoss as BCEWithLogitsLoss
from minidl.ops.conv2d import Conv2d as Conv2d
from minidl.ops.conv2d_relu import ConvReLU2d as ConvReLU2d
from minidl.ops.conv_transpose2d import ConvTranspose2d as ConvTranspose2d
from minidl.ops.cross_entropy import CrossEntropyLoss as CrossEntropyLoss
from minidl.ops.cross_entropy import NLLLoss as NLLLoss
from minidl.ops.dropout import Dropout as Dropout
from minidl.ops.dropout2d import Dropout2d as Dropout2d
from minidl.ops.elu import ELU as ELU
from minidl.ops.embedding import Embedding as Embedding
from minidl.ops.gelu import GELU as GELU
from minidl.ops.l1_loss import L1Loss as L1Loss
from minidl.ops.layer_norm import LayerNorm as LayerNorm
from minidl.ops.leaky_relu import LeakyReLU as LeakyReLU
from minidl.ops.linear import Linear as Linear
from minidl.ops.local2d import Local2d as Local2d
from minidl.ops.local_response_norm import LocalResponseNorm as LocalResponseNorm
from minidl.ops.max_pool2d import MaxPool2d as MaxPool2d
from minidl.ops.mse_loss import MSELoss as MSELoss
from minidl.ops.relu import ReLU as ReLU
from minidl.ops.reshape import Flatten as Flatten
from minidl.ops.reshape import ZeroPad2d as ZeroPad2d
from minidl.ops.sigmoid import Sigmoid as Sigmoid
from minidl.ops.silu import SiLU as SiLU
from minidl.ops.smooth_l1_loss import SmoothL1Loss as SmoothL1Loss
from minidl.ops.softmax import LogSoftmax as LogSoftmax
from minidl.ops.softmax import Softmax as Softmax
from minidl.ops.softplus import Softplus as Softplus
from minidl.ops.tanh import Tanh as Tanh

_answer_for(__name__)
